"""What goes into the outbox: readings, rain, events and reports, with the right time."""

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from duha_contract.clock import Clock
from duha_contract.messages import LEAD_COLUMNS, Event, Report, Table
from duha_contract.quantities import KINDS
from duha_contract.rain import increment, possible_tips
from duha_edge.errors import OutboxError
from duha_edge.outbox import Content, CounterState, Outbox, Stamp
from duha_edge.profiles import Counter
from duha_edge.timekeeper import Timekeeper

log = logging.getLogger(__name__)

LOSS_EVERY_S = 3600.0
"""A full outbox drops something at each cycle; it is reported once an hour."""

DETAIL_CHARS = 500
MOST_EVENTS = 1000
"""Events that wait for the next cycle; of more, the oldest are dropped."""

Values = dict[str, float | None]
Row = tuple[object, ...]


_NAMES = {kind: tuple(q.name for q in found) for kind, found in KINDS.items()}


@dataclass
class Cycle:
    """What one round of a line has brought."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    counters: dict[str, CounterState] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    tally: dict[str, int] = field(default_factory=dict)

    def add(
        self, kind: str, device: str, ts: int, quality: str, values: Values
    ) -> None:
        """A device was asked."""
        columns = [values.get(name) for name in _NAMES[kind]]
        self.rows.setdefault(kind, []).append((device, ts, quality, *columns))
        self.tally[quality] = self.tally.get(quality, 0) + 1


class Recorder:
    """Keeps what was seen; a disk that is full is an alarm, not a reason to stop.

    Parameters
    ----------
    outbox, clock, timekeeper : Outbox, Clock, Timekeeper
        Where to, and when.
    wake : callable
        Told when there is something new to send.
    """

    def __init__(
        self,
        outbox: Outbox,
        clock: Clock,
        timekeeper: Timekeeper,
        wake: Callable[[], None],
    ) -> None:
        self.outbox = outbox
        self.clock = clock
        self._timekeeper = timekeeper
        self._wake = wake
        self._counters: dict[str, CounterState] | None = None
        self._events: list[Event] = []
        self._failed_at: float | None = None
        self._loss_told = 0.0
        self._rebase = False
        self.alarm = ""
        self._read_counters()

    @property
    def trusted(self) -> bool:
        """Whether the clock can be believed."""
        return self._timekeeper.trusted(self.clock.now())

    @property
    def stamp(self) -> Stamp:
        """What the clock is worth now."""
        since = round(self.clock.timeline.at(self._timekeeper.since) * 1000)
        return Stamp("trusted" if self.trusted else "unset", since)

    def note(self, code: str, device: str | None = None, detail: str = "") -> None:
        """Remember an event; it is stored with the next cycle."""
        log.info("event %s %s %s", code, device or "", detail)
        detail = detail[:DETAIL_CHARS]
        self._events.append(Event(self.clock.now_ms(), code, device, detail))
        del self._events[:-MOST_EVENTS]

    def count(
        self, device: str, counter: Counter, values: Values, ts: int, into: Cycle
    ) -> None:
        """Turn a raw counter into tips and rain since the last reading that was kept."""
        total = values.get("counter_raw")
        if total is None or not math.isfinite(total):
            return
        if self._counters is None:
            return  # what has fallen is counted when it is known since when
        before = self._counters.get(device)
        seconds = (ts - before.ts) / 1000 if before else 0.0
        found = increment(
            before.raw if before else None,
            int(total),
            modulus=counter.modulus,
            most=possible_tips(seconds, counter.mm_per_count),
        )
        values["counts"] = found.tips
        values["rain_mm"] = round(found.tips * counter.mm_per_count, 4)
        values["interval_s"] = round(max(0.0, seconds), 3)
        into.counters[device] = CounterState(int(total), ts)
        if before and found.event == "reset":
            detail = f"{before.raw} -> {int(total)}"
            into.events.append(Event(ts, "counter_reset", device, detail))

    async def cycle(self, cycle: Cycle) -> None:
        """Put a poll cycle into the outbox: rain and events apart from telemetry."""
        await self._note_loss()
        noted, self._events = self._events, []
        rain = tuple(_table(k, r) for k, r in cycle.rows.items() if k == "rain_gauge")
        other = tuple(_table(k, r) for k, r in cycle.rows.items() if k != "rain_gauge")
        events = (*noted, *cycle.events)
        contents = []
        if rain or events:
            contents.append(Content(vital=True, tables=rain, events=events))
        if other:
            contents.append(Content(vital=False, tables=other))
        if not await self._put(contents, cycle.counters):
            self._events = noted + self._events
        elif self._counters is not None:
            self._counters |= cycle.counters

    async def report(self, report: Report) -> bool:
        """Put what was made of a desired document into the outbox; False if it failed."""
        return await self._put([Content(vital=True, reports=(report,))])

    async def clock_set(self, by_s: float) -> None:
        """The clock was set: note it, and put right what this boot has recorded."""
        shown = by_s * self.clock.timeline.rate
        self.note("clock_set", detail=f"{shown:+.1f} s")
        if self._counters is not None:
            self._counters = {
                device: state._replace(ts=state.ts + round(1000 * shown))
                for device, state in self._counters.items()
            }
        if self.trusted:
            self._rebase = True
            await self._put_right()
            self._wake()

    async def _put_right(self) -> None:
        """Put right the times of what this boot has recorded; again when it fails."""
        try:
            moved = await asyncio.to_thread(self.outbox.rebase, self.stamp.since)
        except OutboxError as error:
            log.warning("times are put right later: %s", error)
        else:
            self._rebase = False
            log.info("the clock was set: %d batches put right", moved)

    def _read_counters(self) -> None:
        """Learn the last kept readings of the counters, as soon as they can be read."""
        with suppress(OutboxError):
            self._counters = self.outbox.counters()

    async def _note_loss(self) -> None:
        now = self.clock.now()
        if self._loss_told <= now < self._loss_told + LOSS_EVERY_S:
            return
        if not self.outbox.unreported:
            return
        try:
            lost = await asyncio.to_thread(self.outbox.take_lost)
        except OutboxError:
            return  # the same failure is about to be met, and said, by `put`
        self._loss_told = now
        self.note("outbox_full", detail=f"{lost} batches dropped")

    async def _put(
        self, contents: list[Content], counters: dict[str, CounterState] | None = None
    ) -> bool:
        """Put something into the outbox; False when it has not taken it.

        A controller whose disk is full goes on measuring and dimming; what the disk does
        not take waits in memory, and an alarm says so.
        """
        try:
            kept = await asyncio.to_thread(
                self.outbox.put, contents, self.stamp, counters
            )
        except OutboxError as error:
            self._fails(str(error))
            return False
        if kept:
            await self._works()
        else:
            self._fails(self.outbox.trouble)
        self._wake()
        return True

    def _fails(self, reason: str) -> None:
        if self._failed_at is None:
            self._failed_at = self.clock.now()
            log.error("%s", reason)
        self.alarm = reason

    async def _works(self) -> None:
        if self._failed_at is not None:
            seconds = self.clock.now() - self._failed_at
            self._failed_at, self.alarm = None, ""
            self.note("outbox_recovered", detail=f"not on disk for {seconds:.0f} s")
        if self._counters is None:
            await asyncio.to_thread(self._read_counters)
        if self._rebase:
            await self._put_right()


def _table(kind: str, rows: list[Row]) -> Table:
    columns = (*LEAD_COLUMNS, *_NAMES[kind])
    return Table(kind, columns, tuple(rows))
