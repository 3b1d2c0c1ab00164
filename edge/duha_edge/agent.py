"""The composition root of the edge: one task group holds every task of the agent."""

import asyncio
import hashlib
import importlib.metadata
import logging
import time
from pathlib import Path

import msgspec

from duha_contract.clock import Clock
from duha_contract.errors import ContractError
from duha_contract.messages import Desired, Status
from duha_edge.errors import EdgeError
from duha_edge.executor import Executor
from duha_edge.line import Line
from duha_edge.link import Link
from duha_edge.outbox import Outbox
from duha_edge.pulse import Pulse, notify, watchdog_s
from duha_edge.recorder import Recorder
from duha_edge.site import SiteFile, Source
from duha_edge.timekeeper import Timekeeper
from duha_edge.units import LinePlan, line_plans
from duha_runtime.waiting import ended, heard

log = logging.getLogger(__name__)

CONTROL_S = 0.3
"""How often the programme is looked at, in real seconds."""
LOOK_S = 2.0
"""How often the site file is looked at, in real seconds."""
STUCK_S = 60.0


class Agent:
    """Polls, stores, sends, and keeps the lights as the desired document says.

    Parameters
    ----------
    file : SiteFile
        What hangs on this controller.
    clock : Clock
        Its source is made steady here; its timeline stays.
    source : Source, optional
        Where the site file is, to follow its changes.
    """

    def __init__(
        self,
        file: SiteFile,
        clock: Clock,
        source: Source | None = None,
    ) -> None:
        self.file = file
        folder = Path(file.site.data)
        folder.mkdir(parents=True, exist_ok=True)
        self.outbox = Outbox(folder / "outbox.db", int(file.outbox.max_mib * 2**20))
        self._timekeeper = Timekeeper(
            clock.source, newest=self.outbox.newest_ms() / 1000
        )
        self.clock = Clock(self._timekeeper.now, clock.timeline)
        self.pulse = Pulse()
        self.executor = Executor([], file.site.place, folder / "desired.json")
        self.link = self._link()
        self.recorder = Recorder(
            self.outbox, self.clock, self._timekeeper, self._stored
        )
        self.lines: dict[str, Line] = {}
        self._source = source
        self._refused = ""
        self._missed = 0
        self._exchanged: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._look = asyncio.Event()
        self._plans = line_plans(file)
        for name, plan in self._plans.items():
            self.lines[name] = self._line(plan)
        self._cover()

    def _stored(self) -> None:
        self.link.wake()

    def look_again(self) -> None:
        """The site file may have changed; look now."""
        self._look.set()

    async def run(self) -> None:
        """Run until cancelled."""
        log.info(
            "controller %s: %d devices on %d lines, outbox %s",
            self.file.site.controller,
            len(self.file.device),
            len(self.lines),
            self.outbox.path,
        )
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for name in self.lines:
                    self._start(name)
                self._start_link()
                group.create_task(self._control(), name="control")
                group.create_task(self._beat(), name="watchdog")
                if self._source is not None:
                    group.create_task(self._watch(self._source), name="site file")
        finally:
            self.outbox.close()

    def status(self) -> Status:
        """The state of this controller."""
        lines = self.lines.values()
        return Status(
            v=1,
            online=True,
            ts=self.clock.now_ms(),
            version=importlib.metadata.version("duha"),
            boot=self.outbox.boot,
            clock="trusted" if self.recorder.trusted else "unset",
            period_s=self.file.site.period_s,
            backlog=len(self.outbox),
            missed_cycles=self._missed + sum(line.missed_cycles for line in lines),
            silent_units=sum(line.bus.silent_units for line in lines),
            lost=self.outbox.lost,
            alarms=tuple(self._alarms()),
            site=digest(self.file),
            site_error=self._refused,
        )

    def _alarms(self) -> list[str]:
        """What is wrong with the controller itself."""
        alarms = [self.recorder.alarm] if self.recorder.alarm else []
        if not self.recorder.trusted:
            alarms.append("the clock is not set")
        alarms += [alarm for line in self.lines.values() for alarm in line.alarms]
        return alarms + [f"{part} is stuck" for part in self.pulse.stuck()]

    def _desired(self, desired: Desired) -> None:
        try:
            if self.executor.accept(desired):
                log.info("desired revision %d is in force", desired.revision)
        except ContractError as error:
            log.warning("desired revision %d refused: %s", desired.revision, error)
            self.recorder.note("desired_refused", detail=str(error))

    # -- the parts, and their change while running -------------------------------

    def _link(self) -> Link:
        file = self.file
        return Link(
            file.site, file.broker, self.outbox, self.status, self._desired,
            file.outbox.drain_per_s,
        )  # fmt: skip

    def _line(self, plan: LinePlan) -> Line:
        return Line(plan, self.clock, self.executor, self.recorder, self.pulse)

    def _start(self, name: str) -> None:
        self._tasks[name] = self._group.create_task(
            self.lines[name].run(), name=f"line {name}"
        )

    def _start_link(self) -> None:
        self._tasks["link"] = self._group.create_task(self.link.run(), name="link")

    async def _stop(self, name: str) -> None:
        over = [self._tasks.pop(name)]
        if name in self._writing:  # two masters on one line would be one too many
            over.append(self._writing.pop(name))
        await ended(over)

    def _cover(self) -> None:
        self.executor.cover(
            [d.id for plan in self._plans.values() for d in plan.devices if d.dimmable],
            self.file.site.place,
        )

    async def _watch(self, source: Source) -> None:
        """Follow the site file; one that is still being written is left to settle."""
        applied = before = source.signature()
        while True:
            await heard(self._look, LOOK_S)
            asked = self._look.is_set()
            self._look.clear()
            now = source.signature()
            settled, before = now == before, now
            if asked or (settled and now != applied):
                applied = now
                await self._renew(source)

    async def _renew(self, source: Source) -> None:
        """Read the site file, and apply what is new in it; a bad one changes nothing."""
        try:
            file = await asyncio.to_thread(source.load)
            plans = await asyncio.to_thread(line_plans, file)
            self._check_same(file)
            fresh = {
                name: self._line(plan)
                for name, plan in plans.items()
                if self._plans.get(name) != plan
            }
        except EdgeError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                log.error("site file refused, the old one goes on: %s", error)  # noqa: TRY400
                self.recorder.note("site_refused", detail=self._refused)
                self.link.tell()
            return
        mended, self._refused = self._refused, ""
        if (file, plans) != (self.file, self._plans):
            await self._apply(file, plans, fresh)
        elif mended:
            self.link.tell()

    def _check_same(self, file: SiteFile) -> None:
        """Raise EdgeError where only a restart can follow the change."""
        for key in ("city", "controller", "data"):
            if getattr(file.site, key) != getattr(self.file.site, key):
                raise EdgeError(f"`{key}` has changed: that needs a restart")
        if file.outbox.max_mib != self.file.outbox.max_mib:
            raise EdgeError("`max_mib` has changed: that needs a restart")

    async def _apply(
        self, file: SiteFile, plans: dict[str, LinePlan], fresh: dict[str, Line]
    ) -> None:
        """Stop, begin or exchange the lines that have changed; leave the others alone."""
        gone = [name for name in self._plans if name not in plans]
        self._exchanged = {*gone, *(name for name in fresh if name in self.lines)}
        for name in self._exchanged:
            await self._stop(name)
            self._missed += self.lines[name].missed_cycles
        old, self.file, self._plans = self.file, file, plans
        self._cover()
        self.lines = {
            n: line for n, line in self.lines.items() if n not in gone
        } | fresh
        self._exchanged = set()
        for name in fresh:
            self._start(name)
        if (old.broker, old.outbox) != (file.broker, file.outbox):
            await self._stop("link")
            self.link = self._link()
            self._start_link()
        changed = ", ".join([*fresh, *gone]) or "no line"
        self.recorder.note("site_applied", detail=f"{digest(file)}: {changed}")
        self.link.tell()

    # -- lights and life -----------------------------------------------------------

    async def _control(self) -> None:
        """Look at clock and programme several times a second; write what has changed.

        Each line is written by a task of its own: a line full of dead units must not
        keep the others from obeying.
        """
        writing = self._writing
        while True:
            if by := self._timekeeper.look():
                await self.recorder.clock_set(by)
                self.link.tell()
            revision = self.executor.revision
            for name, levels in self._due().items():
                if name not in writing or writing[name].done():
                    writing[name] = self._group.create_task(
                        self.lines[name].write(levels), name=f"write {name}"
                    )
            self.pulse.beat("control", STUCK_S)
            await asyncio.sleep(CONTROL_S)
            idle = all(task.done() for task in writing.values())
            if idle and revision == self.executor.revision:
                report = self.executor.report(self.clock.now_ms())
                if report is not None:
                    await self.recorder.report(report)

    def _due(self) -> dict[str, dict[str, int]]:
        """Levels to write now, by line."""
        due = self.executor.to_write(
            self.clock.now(), time.monotonic(), trusted=self.recorder.trusted
        )
        if not due:
            return {}
        by_line: dict[str, dict[str, int]] = {}
        for name, plan in self._plans.items():
            mine = {d.id: due[d.id] for d in plan.devices if d.id in due}
            if mine and name not in self._exchanged:
                by_line[name] = mine
        return by_line

    async def _beat(self) -> None:
        """Feed the watchdog of systemd for as long as every part gets on."""
        notify("READY=1")
        every = watchdog_s() or STUCK_S
        while True:
            stuck = self.pulse.stuck()
            if stuck:
                log.error("stuck: %s", ", ".join(stuck))
            else:
                notify("WATCHDOG=1")
            await asyncio.sleep(every)


def digest(file: SiteFile) -> str:
    """A short name for the content of a site file."""
    return hashlib.sha256(msgspec.json.encode(file)).hexdigest()[:12]
