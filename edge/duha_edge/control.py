"""Control of the lights: decides several times a second, has each line write, reports.

Nothing that control itself does waits for a line, a disk or the broker. Each line is
written by a part of its own, and so is what goes into the outbox.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable

from duha_contract.clock import Clock
from duha_edge.executor import Executor
from duha_edge.line import Line
from duha_edge.pulse import Pulse
from duha_edge.recorder import Recorder
from duha_edge.timekeeper import Timekeeper
from duha_runtime.supervision import Supervisor

CONTROL_S = 0.3
"""How often the programme is looked at, in real seconds."""
STUCK_S = 60.0
LONGEST_WRITE_S = 300.0
"""A line that takes longer to be written is told again from the start."""
REPORT_AGAIN_S = 5.0
"""After a report that the disk refused."""


class Writer:
    """Brings the lamps of one line to their levels; never two writes at once.

    Parameters
    ----------
    line : Line
        What is written.
    parts : Supervisor
        Whom a failed write is told; the next one is made all the same.
    """

    def __init__(self, line: Line, parts: Supervisor) -> None:
        self.line = line
        self._parts = parts
        self._levels: dict[str, int] = {}
        self._asked = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether a write is under way."""
        return bool(self._levels)

    def ask(self, levels: dict[str, int]) -> None:
        """Write levels [%]; while a write is under way this one is left out."""
        if not self.busy:
            self._levels = levels
            self._asked.set()

    async def run(self) -> None:
        """Write what is asked for until cancelled."""
        part = f"writes {self.line.plan.bus.name}"
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                with self._parts.barrier(part):
                    async with asyncio.timeout(LONGEST_WRITE_S):
                        await self.line.write(self._levels)
            finally:
                self._levels = {}


class Control:
    """Decides what every luminaire is to do now.

    Parameters
    ----------
    executor, clock, timekeeper, recorder, pulse : Executor, ...
        What is wanted; time, and whether it was set; where reports go; who is told of
        progress.
    parts : Supervisor
        Whom a failure is told.
    tell : callable
        Says the status of now, when the clock has been set.
    """

    def __init__(
        self,
        executor: Executor,
        clock: Clock,
        timekeeper: Timekeeper,
        recorder: Recorder,
        pulse: Pulse,
        parts: Supervisor,
        tell: Callable[[], None],
    ) -> None:
        self.writers: dict[str, Writer] = {}
        self._tell = tell
        self._executor = executor
        self._clock = clock
        self._timekeeper = timekeeper
        self._recorder = recorder
        self._pulse = pulse
        self._parts = parts
        self._moves: deque[float] = deque()
        self._decided_for: object = self
        self._failing = ""

    @property
    def alarms(self) -> list[str]:
        """What is wrong with deciding, in sentences."""
        return [self._failing] if self._failing else []

    async def run(self) -> None:
        """Look at clock and programme several times a second, until cancelled."""
        while True:
            with self._parts.barrier("clock"):
                if by := self._timekeeper.look():
                    self._moves.append(by)
            with self._parts.barrier("decisions"):
                self._decide()
            self._pulse.beat("control", STUCK_S)
            await asyncio.sleep(CONTROL_S)

    def _decide(self) -> None:
        """Ask each line to write what has changed."""
        desired = self._executor.desired
        due = self._executor.to_write(
            self._clock.now(), time.monotonic(), trusted=self._recorder.trusted
        )
        if due:
            for writer in self.writers.values():
                mine = {
                    d.id: due[d.id] for d in writer.line.plan.devices if d.id in due
                }
                if mine:
                    writer.ask(mine)
        self._decided_for = desired
        self._tell_failing()

    def _tell_failing(self) -> None:
        """Note when luminaires begin, or cease, to fall back to another document."""
        failing = self._executor.failing
        if bool(failing) == bool(self._failing):
            return
        if not failing:
            self._failing = ""
            self._recorder.note("decision_recovered")
            return
        device, error = next(iter(failing.items()))
        self._failing = f"the document in force fails for {device}: {error}"
        self._recorder.note("decision_failed", device, error)

    async def record(self) -> None:
        """Put reports and moves of the clock into the outbox, until cancelled."""
        while True:
            while self._moves:
                await self._recorder.clock_set(self._moves.popleft())
                self._tell()
            pause = CONTROL_S if await self._reported() else REPORT_AGAIN_S
            await asyncio.sleep(pause)

    async def _reported(self) -> bool:
        """Report what is new, once lamps have been told; False when the disk refused."""
        busy = any(writer.busy for writer in self.writers.values())
        if busy or self._decided_for is not self._executor.desired:
            return True
        report = self._executor.report(self._clock.now_ms())
        if report is None:
            return True
        kept = await self._recorder.report(report)
        if kept:
            self._executor.reported(report)
        return kept


def limited(alarms: Iterable[str], most: int = 50, characters: int = 300) -> list[str]:
    """Alarms as a status can carry them: so many, so long."""
    found = [alarm[:characters] for alarm in alarms]
    if len(found) > most:
        return [*found[: most - 1], f"and {len(found) - most + 1} more"]
    return found
