"""Control of the lights: decisions several times a second, writes by line, reports.

The control loop waits for no line, no disk and no broker. Each line is written by a part
of its own, and reports are stored by another.
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
"""Time limit of one write of a line [s]."""
REPORT_AGAIN_S = 5.0
"""Pause before another attempt to store a report [s]."""


class Writer:
    """Writes the levels of one line; never two writes at once.

    Parameters
    ----------
    line : Line
        Line to write.
    parts : Supervisor
        Supervisor that counts failed writes.
    """

    def __init__(self, line: Line, parts: Supervisor) -> None:
        self.line = line
        self._parts = parts
        self._levels: dict[str, int] = {}
        self._asked = asyncio.Event()

    @property
    def busy(self) -> bool:
        """True while a write is under way."""
        return bool(self._levels)

    def request(self, levels: dict[str, int]) -> None:
        """Request a write of levels [%]; ignored while another is under way."""
        if not self.busy:
            self._levels = levels
            self._asked.set()

    async def run(self) -> None:
        """Write requested levels until cancelled."""
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
    """Decides the level of every luminaire.

    Parameters
    ----------
    executor, clock, timekeeper, recorder, pulse : Executor, ...
        Document in force; time, and whether it was set; storage of reports; progress for
        the watchdog.
    parts : Supervisor
        Supervisor that counts failures.
    publish_status : callable
        Publishes the status, after the clock was set.
    """

    def __init__(
        self,
        executor: Executor,
        clock: Clock,
        timekeeper: Timekeeper,
        recorder: Recorder,
        pulse: Pulse,
        parts: Supervisor,
        publish_status: Callable[[], None],
    ) -> None:
        self.writers: dict[str, Writer] = {}
        self._publish_status = publish_status
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
        """Alarms about decisions."""
        return [self._failing] if self._failing else []

    async def run(self) -> None:
        """Evaluate clock and document several times a second until cancelled."""
        while True:
            with self._parts.barrier("clock"):
                if by := self._timekeeper.look():
                    self._moves.append(by)
            with self._parts.barrier("decisions"):
                self._decide()
            self._pulse.beat("control", STUCK_S)
            await asyncio.sleep(CONTROL_S)

    def _decide(self) -> None:
        """Request a write of what has changed from each line."""
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
                    writer.request(mine)
        self._decided_for = desired
        self._tell_failing()

    def _tell_failing(self) -> None:
        """Record an event when luminaires begin, or cease, to fall back."""
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
        """Store reports and clock changes in the outbox until cancelled."""
        while True:
            while self._moves:
                await self._recorder.clock_set(self._moves.popleft())
                self._publish_status()
            pause = CONTROL_S if await self._reported() else REPORT_AGAIN_S
            await asyncio.sleep(pause)

    async def _reported(self) -> bool:
        """Store a new report once lamps are written; False when the disk refused."""
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


def truncated(
    alarms: Iterable[str], most: int = 50, characters: int = 300
) -> list[str]:
    """Limit number and length of alarms to what a status can carry."""
    found = [alarm[:characters] for alarm in alarms]
    if len(found) > most:
        return [*found[: most - 1], f"and {len(found) - most + 1} more"]
    return found
