"""The composition root of the edge: a supervisor runs every part of the agent.

A failed part is reported and restarted alone. Lights come first: control waits for no
other part, and each luminaire, each line's writes and each document has a barrier of its
own.
"""

import asyncio
import hashlib
import importlib.metadata
import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec

from duha_contract.clock import Clock
from duha_contract.messages import Desired, Status
from duha_edge.control import STUCK_S, Control, Writer, truncated
from duha_edge.document_queue import DocumentQueue
from duha_edge.errors import ConfigError, EdgeError
from duha_edge.executor import Executor
from duha_edge.line import Line
from duha_edge.link import Link
from duha_edge.outbox import Outbox
from duha_edge.profiles import Write
from duha_edge.pulse import Pulse, notify, watchdog_s
from duha_edge.recorder import Recorder
from duha_edge.site import SiteFile, Source
from duha_edge.timekeeper import Timekeeper
from duha_edge.units import LEVEL, LinePlan, line_plans
from duha_runtime.supervision import Failure, Supervisor
from duha_runtime.waiting import heard

log = logging.getLogger(__name__)

SENTENCE_CHARS = 500
LOOK_S = 2.0
"""How often the site file is looked at, in real seconds."""


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
        folder = _folder(file.site.data)
        self.outbox = Outbox(folder / "outbox.db", int(file.outbox.max_mib * 2**20))
        self._timekeeper = Timekeeper(
            clock.source, newest=self.outbox.newest_ms() / 1000
        )
        self.clock = Clock(self._timekeeper.now, clock.timeline)
        self.pulse = Pulse()
        self.parts = Supervisor(self._part_changed)
        self._plans = line_plans(file)
        self.executor = Executor(
            self._luminaires(),
            file.site.place,
            folder / "desired.json",
            self.clock.now(),
        )
        self.recorder = Recorder(
            self.outbox, self.clock, self._timekeeper, self._stored
        )
        self.documents = DocumentQueue(self.executor, self.clock, self.recorder.note)
        self.control = Control(
            self.executor, self.clock, self._timekeeper, self.recorder, self.pulse,
            self.parts, self._publish_status,
        )  # fmt: skip
        self.link = self._link()
        self.lines: dict[str, Line] = {}
        self._source = source
        self._refused = ""
        self._missed = 0
        self._exchanged: set[str] = set()
        self._look = asyncio.Event()
        self._applied = source.signature() if source else ()
        for name, plan in self._plans.items():
            self.lines[name] = self._line(plan)

    def _stored(self) -> None:
        self.link.wake()

    def _publish_status(self) -> None:
        self.link.tell()

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
            async with self.parts:
                for name in self.lines:
                    self._start(name)
                self.parts.start("control", self.control.run)
                self.parts.start("documents", self.documents.run)
                self.parts.start("document on disk", self.documents.store)
                self.parts.start("records", self.control.record)
                self._start_link()
                self.parts.start("watchdog", self._beat)
                if self._source is not None:
                    self.parts.start("site file", self._watch)
                await self.parts.wait()
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
            alarms=tuple(truncated(self._alarms())),
            site=digest(self.file),
            site_error=self._refused[:SENTENCE_CHARS],
        )

    def _alarms(self) -> Iterator[str]:
        """Alarms about the controller itself."""
        if self.recorder.alarm:
            yield self.recorder.alarm
        if not self.recorder.trusted:
            yield "the clock is not set"
        yield from self.control.alarms
        yield from self.documents.alarms
        for line in self.lines.values():
            yield from line.alarms
        for part in self.pulse.stuck():
            yield f"{part} is stuck"
        for failure in self.parts.failing:
            yield f"part {failure.part} failed: {failure.error}"

    def _part_changed(self, failure: Failure) -> None:
        """Record that a part fails or works again, and publish the status."""
        code = "part_failed" if failure.error else "part_recovered"
        self.recorder.note(code, detail=f"{failure.part}: {failure.error}".rstrip(": "))
        self.link.tell()

    def _desired(self, desired: Desired) -> None:
        self.documents.submit(desired)

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
        line = self.lines[name]
        writer = Writer(line, self.parts)
        self.parts.start(f"line {name}", line.run)
        self.parts.start(f"writes {name}", writer.run)
        self.control.writers[name] = writer

    def _start_link(self) -> None:
        self.parts.start("link", self.link.run)

    async def _stop(self, name: str) -> None:
        """Stop a line and its writes: two masters on one line would be one too many."""
        self.control.writers.pop(name, None)
        await self.parts.stop(f"writes {name}")
        await self.parts.stop(f"line {name}")

    def _luminaires(self) -> dict[str, Write | None]:
        """Dimmable luminaires with the writable range of their gear."""
        dimmable = (
            d for plan in self._plans.values() for d in plan.devices if d.dimmable
        )
        points = {device.id: device.profile.point_of(LEVEL) for device in dimmable}
        return {name: point.write if point else None for name, point in points.items()}

    async def _watch(self) -> None:
        """Follow the site file; one that is still being written is left to settle."""
        source = self._source
        assert source is not None, "started with a source only"  # noqa: S101
        before = self._applied
        while True:
            await heard(self._look, LOOK_S)
            asked = self._look.is_set()
            self._look.clear()
            now = source.signature()
            settled, before = now == before, now
            if asked or (settled and now != self._applied):
                self._applied = now
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
        self.executor.cover(self._luminaires(), file.site.place)
        self.lines = {
            n: line for n, line in self.lines.items() if n not in gone
        } | fresh
        self._exchanged = set()
        for name in fresh:
            self._start(name)
        if (old.broker, old.outbox) != (file.broker, file.outbox):
            await self.parts.stop("link")
            self.link = self._link()
            self._start_link()
        changed = ", ".join([*fresh, *gone]) or "no line"
        self.recorder.note("site_applied", detail=f"{digest(file)}: {changed}")
        self.link.tell()

    async def _beat(self) -> None:
        """Feed the watchdog of systemd while control makes progress.

        A stuck line is an alarm: a restart would interrupt the healthy lines.
        """
        notify("READY=1")
        every = watchdog_s() or STUCK_S
        told: list[str] = []
        while True:
            stuck = self.pulse.stuck()
            if stuck and stuck != told:
                log.error("stuck: %s", ", ".join(stuck))
            told = stuck
            if "control" not in stuck:
                notify("WATCHDOG=1")
            await asyncio.sleep(every)


def _folder(data: str) -> Path:
    """Create the data folder if it does not exist."""
    folder = Path(data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data folder {folder}: {error.strerror}") from None
    return folder


def digest(file: SiteFile) -> str:
    """A short name for the content of a site file."""
    return hashlib.sha256(msgspec.json.encode(file)).hexdigest()[:12]
