"""Live rain: from the readings of gauges to judged, filled minutes, a few minutes late.

Every five minutes what has come is judged against the last month, corrected, filled,
brought to the catchments, and stored beside the raw readings. What comes late is judged
again; so is everything since a rule or a calibration that changes.
"""

import asyncio
import copy
import datetime as dt
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from duha_backend.books import Books, Marked
from duha_backend.geo import places_of
from duha_backend.live import Live
from duha_backend.rain.areal import Field
from duha_backend.rain.quality import FLAGS, Rules
from duha_backend.rain.series import (
    FIVE,
    MINUTE_MS,
    GaugeCare,
    Minutes,
    RainRules,
    fives,
    judged_last,
    made,
    moment_ms,
    quality_words,
    spread,
    worked_on,
)
from duha_backend.readings import (
    DAY_MS,
    LATE,
    QUARTER_MS,
    Frame,
    Readings,
    length,
)
from duha_backend.registry import Registry
from duha_backend.runoff.catchments import Catchment, Tier1
from duha_backend.runoff.live import areal
from duha_backend.validate import Array

if TYPE_CHECKING:
    from duha_backend.lighting.inventory import Asset

log = logging.getLogger(__name__)

FIVE_MS = FIVE * MINUTE_MS
HISTORY_MS = 31 * DAY_MS
FIRST_MS = 2 * DAY_MS
"""How far back rain is judged when it never was."""
AFTER_MS = 10 * MINUTE_MS
AGAIN = "again"
"""Marks since when somebody wants everything judged again."""
ALARM_STEPS, MISSING_STEPS = 12, 3
"""What was wrong within an hour still is; a quarter without data is missing data."""
EARLIEST_MS = 946_684_800_000
"""2000-01-01: older rain is an error in somebody's dates [ms]."""
SINK_MS = 3 * 3_600_000
"""So far a late value reaches into the judgement of what came after it."""


Mark = tuple[str, Marked, int, str]


class Rainfall:
    """Rain of a city, minute by minute.

    Parameters
    ----------
    readings, registry, live, books : Readings, Registry, Live, Books
        What was read, what is known of the gauges, and what has come late.

    Attributes
    ----------
    done : int or None
        Up to when rain is judged [ms].
    gauges : list of Asset
        The city's gauges, in the order of every array here.
    last : Minutes or None
        What was worked out last.
    """

    def __init__(
        self, readings: Readings, registry: Registry, live: Live, books: Books
    ) -> None:
        self._readings = readings
        self._registry = registry
        self._live = live
        self._books = books
        self.done: int | None = None
        self.gauges: list[Asset] = []
        self.last: Minutes | None = None
        self._seen = (-1, -1)
        self._care: dict[str, GaugeCare] = {}
        self._rules = RainRules("city")
        self._again: int | None = None
        self._since: int | None = None
        self._history = np.empty((0, 0))
        self._flags = np.empty((0, 0))
        self._frost = np.empty(0)
        self.places = places_of(())
        self.field = Field(self.places, self.places)
        self.tier1 = Tier1(())
        self.moved = asyncio.Condition()

    async def tend(self, now: int) -> None:
        """Judge what is due at a time [ms]."""
        await self._look()
        if not self.gauges:
            return
        delay = round(self._rules.delay_min * MINUTE_MS)
        due = (now - delay) // FIVE_MS * FIVE_MS
        if self._since is None:  # what was before anybody looked is not missing now
            self._since = due + MISSING_STEPS * FIVE_MS
        if self.done is None:
            await self._begin(due)
        while self.done is not None and self.done < due:
            # Day by day of UTC: a calibration holds from a day on.
            end = min(due, (self.done // DAY_MS + 1) * DAY_MS)
            await self._finish(self.done, end)
            async with self.moved:
                self.done = end
                self.moved.notify_all()
        await self._late()
        await self._judge_again()

    # -- what is known of gauges -------------------------------------------------------

    async def _look(self) -> None:
        """Gauges, what is known of them, rules and catchments, when they have changed."""
        number = await asyncio.to_thread(self._registry.change, "documents")
        seen = (number, self._live.version)
        if seen == self._seen:
            return
        assets = [a for a in self._live.assets.values() if a.kind == "rain_gauge"]
        care = {c.id: c for c in await self._all(GaugeCare)}
        rules = next((r for r in await self._all(RainRules) if r.id == "city"), None)
        rules = rules or RainRules("city")
        catchments = await self._all(Catchment)
        if [a.id for a in assets] != [a.id for a in self.gauges]:
            self.done = None  # arrays have another order now
        if self._seen[0] >= 0:
            self._changed(care, rules)
        self.gauges, self._care, self._rules = assets, care, rules
        self.places = places_of(assets)
        self.field = Field(self.places, places_of(catchments))
        if tuple(catchments) != self.tier1.catchments:
            self.tier1 = Tier1(catchments)
            if self.done is not None:
                await self._warm(self.done)
        self._seen = seen

    async def _all(self, kind: type) -> list:  # type: ignore[type-arg]
        return await asyncio.to_thread(self._registry.all, kind)

    def _changed(self, care: dict[str, GaugeCare], rules: RainRules) -> None:
        """What has changed since when: from there on everything is judged again."""
        since = []
        for name in care.keys() | self._care.keys():
            old, new = self._care.get(name), care.get(name)
            if old != new:
                since += [_since(old), _since(new)]
        if rules.thresholds != self._rules.thresholds and self.done is not None:
            since.append(self.done - HISTORY_MS)
        if since:
            self.again(min(since))

    def again(self, since_ms: int) -> None:
        """Judge everything since a time [ms] again, in the background."""
        day = since_ms // DAY_MS * DAY_MS
        self._again = day if self._again is None else min(self._again, day)

    @property
    def behind(self) -> int | None:
        """From when on everything waits to be judged again [ms]; None for nothing."""
        return self._again

    # -- what is new -------------------------------------------------------------------

    async def _begin(self, due: int) -> None:
        """Go on where the store ends."""
        newest = await self._readings.latest("rain", due - HISTORY_MS)
        start = due - FIRST_MS
        if length(newest):
            start = int(newest["ts"].max()) // FIVE_MS * FIVE_MS + FIVE_MS
        start = min(start, due)
        raw, temperature = await self._stored(start - HISTORY_MS, start)
        self._history, self._frost = fives(raw), temperature
        self._flags = np.zeros((len(self.gauges), 0))
        await self._warm(start)
        self.done = start

    async def _warm(self, until: int) -> None:
        """Bring the catchments to where they were, over the rain of the last day."""
        if not self.tier1.catchments:
            return
        rain, _ = await self.minutes(until - DAY_MS, until)
        self.tier1 = Tier1(self.tier1.catchments)
        self.tier1.step(areal(self.field, rain).T)

    async def _finish(self, start: int, end: int) -> None:
        """Judge and store a span; the state moves on only once everything is stored."""
        raw, temperature = await self._read(start, end)
        history = np.concatenate((self._history, fives(raw)), axis=1)
        frost = np.concatenate((self._frost, temperature))
        found = await self._judged(history, frost, raw, start)
        await self._put(start, found, temperature)
        tier1 = await self._run_off(start, found.rain)
        keep = HISTORY_MS // FIVE_MS
        self._history, self._frost = history[:, -keep:], frost[-keep:]
        judged = np.concatenate((self._flags, found.flags[:, ::FIVE]), axis=1)
        self._flags = judged[:, -ALARM_STEPS:]
        self.last, self.tier1 = found, tier1

    async def _judged(
        self, history: Array, frost: Array, raw: Array, start: int
    ) -> Minutes:
        steps = raw.shape[1] // FIVE
        first = start - (history.shape[1] - steps) * FIVE_MS
        names = [gauge.id for gauge in self.gauges]
        rules = self._rules.rules
        heated = np.array([self._heated(name) for name in names])
        judged = await asyncio.to_thread(
            judged_last, history, self.places, rules, steps,
            maintenance=worked_on(self._care, names, first, history.shape[1]),
            temperature_c=frost, heated=heated,
        )  # fmt: skip
        known = [self._care[n].calibrations if n in self._care else () for n in names]
        day = dt.datetime.fromtimestamp(start / 1000, dt.UTC).date()
        return await asyncio.to_thread(
            made, raw, judged, self.places, known, day, rules.near_m
        )

    def _heated(self, name: str) -> bool:
        return name in self._care and self._care[name].heated

    async def _read(self, start: int, end: int) -> tuple[Array, Array]:
        """Raw minutes (g, t) from the readings; and temperature by five minutes."""
        rows: dict[str, list[Frame]] = {}
        names = [gauge.id for gauge in self.gauges]
        frames = self._readings.export(
            "rain_gauge", start - AFTER_MS, end + AFTER_MS, names
        )
        async for frame in frames:
            good = frame["quality"] == "good"
            for name in dict.fromkeys(frame["device"].tolist()):
                mine = good & (frame["device"] == name)
                rows.setdefault(name, []).append(
                    {key: column[mine] for key, column in frame.items()}
                )
        count = (end - start) // MINUTE_MS
        raw = np.full((len(names), count), np.nan)
        cold: list[tuple[Array, Array]] = []
        for row, name in enumerate(names):
            if name not in rows:
                continue
            ts, rain, interval, degrees = (
                np.concatenate([frame[key] for frame in rows[name]])
                for key in ("ts", "rain_mm", "interval_s", "temperature_c")
            )
            raw[row] = spread(ts, rain, interval, start, count)
            if not self._heated(name):
                cold.append((ts, degrees))
        return raw, _by_five(cold, start, end)

    async def minutes(self, start: int, end: int) -> tuple[Array, Array]:
        """Rain (g, t) as it was judged [mm], NaN where nobody knows; and its quality."""
        names = [gauge.id for gauge in self.gauges]
        return await judged_minutes(self._readings, names, start, end)

    async def _stored(self, start: int, end: int) -> tuple[Array, Array]:
        """Raw minutes (g, t) as they were stored, and temperature by five minutes."""
        raw = np.full((len(self.gauges), (end - start) // MINUTE_MS), np.nan)
        at = {gauge.id: row for row, gauge in enumerate(self.gauges)}
        cold = []
        async for frame in self._readings.export("rain", start, end):
            rows, minutes, known = _where(frame, at, start)
            raw[rows, minutes] = frame["raw_mm"][known]
            cold.append((frame["ts"], frame["temperature_c"]))
        return raw, _by_five(cold, start, end)

    async def _put(self, start: int, found: Minutes, temperature: Array) -> None:
        count = found.raw.shape[1]
        times = start + np.arange(count) * MINUTE_MS
        n = len(self.gauges)
        owners = np.array([g.cabinet or "city" for g in self.gauges], dtype=object)
        names = np.array([g.id for g in self.gauges], dtype=object)
        await self._readings.put(
            "rain",
            {
                "device": np.repeat(names, count),
                "ts": np.tile(times, n),
                "controller": np.repeat(owners, count),
                "quality": quality_words(found).ravel(),
                "raw_mm": found.raw.ravel(),
                "rain_mm": found.rain.ravel(),
                "quality_index": found.quality.ravel(),
                "flags": found.flags.ravel().astype(float),
                "temperature_c": np.tile(np.repeat(temperature, FIVE), n),
            },
        )

    async def _run_off(self, start: int, rain: Array) -> Tier1:
        """Store rain over the catchments and their runoff; return the model after it."""
        catchments, tier1 = self.tier1.catchments, copy.deepcopy(self.tier1)
        if not catchments:
            return tier1
        over = areal(self.field, rain)
        flow = await asyncio.to_thread(tier1.step, over.T)
        count = over.shape[1]
        words = np.where(np.isnan(over).ravel(), "missing", "good").astype(object)
        names = np.array([c.id for c in catchments], dtype=object)
        await self._readings.put(
            "catchment",
            {
                "device": np.repeat(names, count),
                "ts": np.tile(start + np.arange(count) * MINUTE_MS, len(names)),
                "controller": np.full(over.size, "city", dtype=object),
                "quality": words,
                "rain_mm": over.ravel(),
                "runoff_l_s": flow.T.ravel(),
            },
        )
        return tier1

    # -- what is judged again -------------------------------------------------------------

    async def _late(self) -> None:
        """Judge the newest day with late readings again.

        One day a call: an import of a month of rain must not hold up what falls now.
        """
        marked = await asyncio.to_thread(self._books.marked, LATE)
        for kind, _, start, mark in marked:
            if kind == AGAIN:
                self.again(max(start, EARLIEST_MS))
                await asyncio.to_thread(self._books.unmark, kind, LATE, start, mark)
        done = self.done
        if done is None:
            return
        day = newest_day([m for m in marked if m[0] != AGAIN], done)
        if day:
            await self._redo_day(day, done)
        for kind, _, start, mark in day:
            await asyncio.to_thread(self._books.unmark, kind, LATE, start, mark)

    async def _redo_day(self, marks: Sequence[Mark], done: int) -> None:
        """Judge the quarters of one day again, and what they reach into."""
        first, last = marks[0][2], marks[-1][2]
        if first < EARLIEST_MS:
            log.warning("rain: late readings before 2000 are left alone")
            return
        raw, _ = await self._read(first, last + QUARTER_MS)
        stored, _ = await self._stored(first, last + QUARTER_MS)
        if np.allclose(raw, stored, atol=1e-8, equal_nan=True):
            return
        end = min(done, last + QUARTER_MS + SINK_MS)
        for start in range(first, end, DAY_MS):  # a calibration holds from a day on
            await self._redo(start, min(end, start + DAY_MS), fresh=True)

    async def _judge_again(self) -> None:
        """One day of what is to be judged again."""
        if self._again is None or self.done is None:
            return
        start = self._again
        oldest = await self._oldest(start)
        if oldest is not None:  # rain that was all judged false is looked at, too
            start = max(start, oldest // DAY_MS * DAY_MS)
        end = min(self.done, start + DAY_MS)
        if start < end:
            await self._redo(start, end, fresh=False)
        self._again = end if end < self.done else None
        if self._again is None:
            log.info("rain: judged again up to now")

    async def _oldest(self, since: int) -> int | None:
        """A day at or before the first stored rain since a time; None without any."""
        for start in range(since, self.done or since, 30 * DAY_MS):
            end = start + 30 * DAY_MS
            found = await self._readings.rain(start, end, DAY_MS, "rain")
            if length(found):
                return max(since, int(found["ts"].min()) - 30 * DAY_MS)
        return None

    async def _redo(self, start: int, end: int, *, fresh: bool) -> None:
        """Judge a span again: over its stored raw minutes, or what was read since."""
        read = self._read if fresh else self._stored
        raw, temperature = await read(start, end)
        if np.isnan(raw).all():
            return
        before, frost = await self._stored(start - HISTORY_MS, start)
        history = np.concatenate((fives(before), fives(raw)), axis=1)
        found = await self._judged(
            history, np.concatenate((frost, temperature)), raw, start
        )
        await self._put(start, found, temperature)
        if fresh and self.done is not None:
            steps = (self.done - start) // FIVE_MS
            width = raw.shape[1] // FIVE
            if 0 < steps <= self._history.shape[1]:
                at = self._history.shape[1] - steps
                self._history[:, at : at + width] = fives(raw)

    def standing(self) -> list[tuple[str, str, str]]:
        """What is wrong with gauges now: code of the alarm, gauge, reasons."""
        if self.last is None or self.done is None:
            return []
        found = []
        for row, gauge in enumerate(self.gauges):
            flags = self._flags[row, -ALARM_STEPS:].astype(int)
            bits = int(np.bitwise_or.reduce(flags))
            reasons = [name for i, name in enumerate(FLAGS) if bits & (1 << i)]
            silent = np.isnan(self._history[row, -MISSING_STEPS:]).all()
            if not silent or self._since is None or self.done < self._since:
                reasons = [name for name in reasons if name != "missing"]
            found += [(code, gauge.id, why) for code, why in _alarms(reasons)]
        return found

    @property
    def rules(self) -> Rules:
        """The thresholds in force."""
        return self._rules.rules


async def judged_minutes(
    readings: Readings, gauges: Sequence[str], start: int, end: int
) -> tuple[Array, Array]:
    """Rain (g, t) as it was judged [mm], NaN where nobody knows; and its quality.

    Parameters
    ----------
    readings : Readings
        The store.
    gauges : sequence of str
        Order of the rows.
    start, end : int
        Whole minutes [ms).
    """
    shape = (len(gauges), (end - start) // MINUTE_MS)
    rain, quality = np.full(shape, np.nan), np.full(shape, np.nan)
    at = {gauge: row for row, gauge in enumerate(gauges)}
    async for frame in readings.export("rain", start, end, gauges):
        rows, minutes, known = _where(frame, at, start)
        words = frame["quality"][known]
        rain[rows, minutes] = np.where(
            words == "missing", np.nan, frame["rain_mm"][known]
        )
        quality[rows, minutes] = frame["quality_index"][known]
    return rain, quality


def newest_day(marks: Sequence[Mark], done: int) -> list[Mark]:
    """Marks of the newest UTC day whose quarters are over, the oldest first.

    Parameters
    ----------
    marks : sequence of Mark
        Kind, step, start [ms] and mark of quarters.
    done : int
        Up to when rain is judged [ms].
    """
    due = sorted((m for m in marks if m[2] + QUARTER_MS <= done), key=lambda m: m[2])
    return [m for m in due if m[2] // DAY_MS == due[-1][2] // DAY_MS]


def _alarms(reasons: Sequence[str]) -> list[tuple[str, str]]:
    blocked = [r for r in reasons if r in ("blocked", "partly_blocked")]
    silent = ("missing", "maintenance", "frozen", "suspect", *blocked)
    other = [r for r in reasons if r not in silent]
    found = []
    if blocked:
        found.append(("rainGaugeBlocked", " ".join(blocked).replace("_", " ")))
    if other:
        found.append(("rainGaugeFault", ", ".join(other).replace("_", " ")))
    if "missing" in reasons:
        found.append(("rainDataMissing", "no reading"))
    return found


def _since(care: GaugeCare | None) -> int:
    """Since when what is known of a gauge matters [ms]."""
    days = [c.since for c in care.calibrations] if care else []
    spells = [s.start for s in care.maintenance] if care else []
    times = [dt.datetime.combine(d, dt.time(), dt.UTC) for d in days] + spells
    return round(min(moment_ms(t) for t in times)) if times else 2**62


def _where(frame: Frame, at: dict[str, int], start: int) -> tuple[Array, Array, Array]:
    """Rows and minutes of a frame, and which of it belongs to known gauges."""
    rows = np.array([at.get(name, -1) for name in frame["device"].tolist()])
    known = rows >= 0
    return rows[known], (frame["ts"][known] - start) // MINUTE_MS, known


def _by_five(cold: Sequence[tuple[Array, Array]], start: int, end: int) -> Array:
    """The mean of temperatures in steps of five minutes; NaN where there is none."""
    count = (end - start) // FIVE_MS
    total, number = np.zeros(count), np.zeros(count)
    for ts, degrees in cold:
        step = (ts - start) // FIVE_MS
        known = ~np.isnan(degrees) & (step >= 0) & (step < count)
        np.add.at(total, step[known], degrees[known])
        np.add.at(number, step[known], 1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
