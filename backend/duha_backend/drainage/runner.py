"""A model that runs live, a few minutes behind the clock, and looks ahead.

It begins cold some days back and is fed the rain of the store, day by day and then five
minutes by five: a restart replays the same rain from the same start, and so comes to the
same water. Nothing but its process knows its state.
"""

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar
from zoneinfo import ZoneInfo

import numpy as np

from duha_backend.drainage.process import Names, Process, Row
from duha_backend.drainage.rainfall import Rainfall
from duha_backend.drainage.results import (
    Course,
    Standing,
    frames_of,
    has,
    look_ahead,
    now_at,
    snapshot_of,
    told_of,
    totals,
)
from duha_backend.drainage.runs import Runs
from duha_backend.drainage.turns import Turns
from duha_backend.errors import BackendError, Invalid, StoreDown
from duha_backend.rain.areal import Field
from duha_backend.rain.events import Idf
from duha_backend.rain.series import FIVE, MINUTE_MS
from duha_backend.readings import DAY_MS, Readings, length
from duha_backend.registry import tag
from duha_backend.runoff.inp import describe, parse
from duha_backend.runoff.live import (
    MOST_MM_H,
    SwmmModel,
    areal,
    kept,
    rain_field,
)
from duha_backend.runoff.watch import LIKELY, Watch, members, reached
from duha_backend.validate import Array

log = logging.getLogger(__name__)
T = TypeVar("T")

HOUR_MS = 60 * MINUTE_MS
WET_MM = 0.1
CALM_EVERY_MS = HOUR_MS
"""Between forecasts in dry weather; in wet weather each step has one."""
FORECAST_S = 60.0
MINUTE_LIMIT_S = 180.0
"""A step that takes longer is hung: the process is killed and replayed."""
DAY_LIMIT_S = 600.0
SAME_MM = 1e-6
"""Rain of five minutes that differs by less is the same [mm]."""
RETRY_S = (2.0, 10.0, 60.0, 300.0)


class Runner:
    """One model.

    Parameters
    ----------
    model : SwmmModel
        What runs.
    rainfall, readings, runs : Rainfall, Readings, Runs
        Where rain is from, and where results go.
    watches : callable
        Gives what is watched in it.
    design : callable
        Gives the city's design rain and return period for forecasts, or None.
    zone : str
        Time zone of the city: its clock is that of the model.
    replays, forecasts : Turns, optional
        Who of all models of this process may replay, or look ahead, at the same time.
    """

    def __init__(
        self, model: SwmmModel, rainfall: Rainfall, readings: Readings, runs: Runs,
        watches: Callable[[], Sequence[Watch]],
        design: Callable[[], tuple[Idf, float] | None],
        now_ms: Callable[[], int], zone: str = "UTC", replays: Turns | None = None,
        forecasts: Turns | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self._zone = zone
        self._replays = replays or Turns()
        self._forecasts = forecasts or Turns()
        self.standing = Standing()
        self._rainfall = rainfall
        self._readings = readings
        self._runs = runs
        self._watches = watches
        self._design = design
        self._now = now_ms
        self.process = Process()

    async def run(self) -> None:
        """Run until cancelled; begin again, by replay, whenever it has broken down."""
        tries = 0
        while True:
            try:
                await self._live()
            except Exception as error:
                # Whatever it is, it is this model's trouble: the others go on.
                known = isinstance(error, BackendError | OSError)
                log.warning("model %s: %s", self.model.id, error, exc_info=not known)
                self.standing.problem = str(error) or type(error).__name__
                await self._note_end(str(error))
            finally:
                await self.process.close()
            if self.standing.warm:
                tries = 0
            await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
            tries += 1

    async def _note_end(self, why: str) -> None:
        with contextlib.suppress(Exception):  # the registry may be what is away
            for kind in ("live", "forecast"):
                await asyncio.to_thread(
                    self._runs.end_all, kind, self.model.id, self._now(), why
                )

    # -- its course ------------------------------------------------------------------

    async def _live(self) -> None:
        due = await self._until(0)
        start = await self._cold_start(due)
        async with self._replays.turn():
            names = await self.process.open(
                self.model.raw, start / 1000 + clock_offset_s(self._zone, start)
            )
        course = await asyncio.to_thread(self._course, names)
        await self._note_end("its process was gone")
        run = await asyncio.to_thread(
            self._runs.begin, "live", self.model.id, start, start, self._now(),
            _mark(self.model),
        )  # fmt: skip
        self.standing = Standing(t=start, start=start, run=run)
        course.stored = await self._insist(lambda: self._stored(start))
        t = start
        while True:
            due = await self._until(t)
            end = min(due, t + DAY_MS)
            if end - t > HOUR_MS:
                async with self._replays.turn():
                    rows = await self._advance(course, t, end)
            else:
                rows = await self._advance(course, t, end)
            await self._keep(course, rows, start)
            t = self.standing.t = end
            if t < due:
                log.info("model %s: replayed up to %s", self.model.id, _at(t))
                continue
            await self._tell(course, t)
            longest = (2 * self.model.replay_days + 1) * DAY_MS
            if t - start > longest and not self.standing.wet:
                await asyncio.to_thread(
                    self._runs.update, run, state="complete", ended=self._now()
                )
                await self.process.close()
                return  # begun anew, so that a replay is never much longer than it must be

    async def _until(self, t: int) -> int:
        """When rain is judged beyond a time: up to when."""
        rain = self._rainfall
        async with rain.moved:
            await rain.moved.wait_for(lambda: rain.done is not None and rain.done > t)
            return rain.done or 0

    async def _cold_start(self, due: int) -> int:
        """Where it has begun already, if that is not too long ago; else some days back."""
        days = self.model.replay_days * DAY_MS
        found = await asyncio.to_thread(self._runs.page, "live", self.model.id, 1)
        for last in found:
            mine = last.id.startswith(_mark(self.model)) and last.state != "complete"
            if mine and due - 2 * days - DAY_MS < last.start < due:
                return last.start
        return (due - days) // DAY_MS * DAY_MS

    async def _stored(self, start: int) -> dict[int, float]:
        """Rain of each time since the start whose results are in the store [mm]."""
        frame = await self._readings.window(
            "model", self.model.id, start, self._now() + DAY_MS
        )
        if not length(frame):
            return {}
        rain = np.asarray(frame["rain_mm"], dtype=float)
        return dict(zip(frame["ts"].tolist(), rain.tolist(), strict=True))

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """A call to the stores, again until they work: the model itself waits."""
        while True:
            try:
                return await call()
            except StoreDown as error:
                self.standing.problem = str(error).splitlines()[0]
                log.warning("model %s: %s", self.model.id, self.standing.problem)
                await asyncio.sleep(getattr(error, "after_s", RETRY_S[0]))

    def _field(self, names: Names) -> Field:
        gauges = self._rainfall.gauges
        return Field(
            self._rainfall.places, rain_field(self.model, names.gauges, gauges)
        )

    def _course(self, names: Names) -> Course:
        watched: dict[str, list[str]] = {"node": [], "link": []}
        for watch in self._watches():
            watched[watch.part].append(watch.object)
        outfalls = describe(parse(self.model.raw)).outfalls
        names.changes.append(
            f"it runs by the clock of the city at its cold start, {self._zone}"
        )
        nodes, links = kept(names.nodes, names.links, outfalls, watched)
        return Course(
            names,
            self._field(names),
            nodes,
            links,
            np.empty((0, len(names.gauges))),
            frozenset(outfalls),
            gauges=self._rainfall.gauges,
        )

    async def _advance(self, course: Course, start: int, end: int) -> list[Row]:
        rain_mm, _ = await self._insist(lambda: self._rainfall.minutes(start, end))
        if self._rainfall.gauges is not course.gauges:  # the city has others now
            course.gauges, course.field = (
                self._rainfall.gauges,
                self._field(course.names),
            )
        over = areal(course.field, rain_mm).T
        missing = np.isnan(over).any(axis=1)
        self.standing.missing = int(missing.sum())
        rain = np.minimum(np.nan_to_num(over) * 60, MOST_MM_H)
        course.rain = np.concatenate((course.rain, over * 60))[-60:]
        self.standing.wet = bool(np.nansum(course.rain, axis=0).max() / 60 >= WET_MM)
        limit = MINUTE_LIMIT_S if end - start < HOUR_MS else DAY_LIMIT_S
        return await self.process.run(rain, FIVE, limit)

    # -- what becomes known ---------------------------------------------------------------

    async def _keep(self, course: Course, rows: list[Row], start: int) -> None:
        """Store results; of a replay those that are not stored, or had another rain.

        The same rain gives the same water. Once late rain has changed it, everything from
        there on is written again, so that the history is that of the model that runs.
        """
        if not rows:
            return
        course.last = rows[-1]
        before, course.before = course.before, totals(rows[-1])
        times = [start + row.minute * MINUTE_MS for row in rows]
        rain = np.diff([row.injected_mm for row in rows], prepend=before[0])
        known = _known(course.stored, times, rain.tolist())
        if known == len(rows):
            return
        course.stored = {}
        if known:
            before = totals(rows[known - 1])
        frames = await asyncio.to_thread(
            frames_of, self.model, course, rows[known:], times[known:], before
        )
        for kind, frame in frames.items():
            await self._insist(partial(self._readings.put, kind, frame))

    async def _tell(self, course: Course, t: int) -> None:
        """Where it stands now, and what may come."""
        watches = list(self._watches())
        self.standing.problem, self.standing.warm = "", True
        if course.last is not None:
            self.standing.stages = {
                w.id: now_at(w, course) for w in watches if has(w, course.names)
            }
        wait = FIVE * MINUTE_MS if self.standing.wet else CALM_EVERY_MS
        if t - course.forecast_at >= wait:
            course.forecast_at = t
            await self._forecast(course, t, watches)
        for watch in watches:
            look_ahead(watch, course, self.standing)
        snapshot = await asyncio.to_thread(snapshot_of, course, self.standing)
        await self._insist(
            partial(
                asyncio.to_thread, self._runs.update, self.standing.run, warm=True, t0=t,
                result=snapshot,
            )
        )  # fmt: skip

    async def _forecast(self, course: Course, t: int, watches: list[Watch]) -> None:
        begun = self._now()
        run = await asyncio.to_thread(
            self._runs.begin, "forecast", self.model.id, t, t, begun
        )
        mine = [w for w in watches if has(w, course.names)]
        nodes = sorted(
            {course.names.nodes.index(w.object) for w in mine if w.part == "node"}
        )
        links = sorted(
            {course.names.links.index(w.object) for w in mine if w.part == "link"}
        )
        rains, without = self._members(course)
        async with self._forecasts.turn():
            found = await self.process.forecast(rains, nodes, links, FIVE, FORECAST_S)
        told, courses = told_of(found, mine, course.names, nodes, links)
        problems = [
            f"{n}: {one['problem']}" for n, one in found.items() if one["problem"]
        ]
        self.standing.forecast_problem = "; ".join(problems + without)
        for watch in mine:
            likely = {n: c for n, c in courses[watch.id].items() if n in LIKELY}
            course.ahead[watch.id] = [
                *((one, True) for one in reached(watch, likely, FIVE)),
                *((one, False) for one in reached(watch, courses[watch.id], FIVE)),
            ]
        await asyncio.to_thread(
            self._runs.update, run, ended=self._now(), warm=True,
            state="failed" if len(problems) == len(found) else "complete",
            detail=self.standing.forecast_problem, result=told,
        )  # fmt: skip

    def _members(self, course: Course) -> tuple[dict[str, Array], list[str]]:
        """Rains that may come; and why there is none of the city's design rain."""
        minutes = round(self.model.horizon_h * 60)
        try:
            return members(course.rain, minutes, self._design()), []
        except Invalid as error:  # a table that does not reach to this storm
            return members(course.rain, minutes), [f"design: {error}"]


def clock_offset_s(zone: str, at_ms: int) -> float:
    """How far the clock of a zone is ahead of UTC at a time [s].

    A model keeps the offset of its cold start: its clock neither jumps nor stops. After a
    change of summer time it is an hour off until it begins cold again.
    """
    offset = dt.datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)).utcoffset()
    return offset.total_seconds() if offset is not None else 0.0


def _known(
    stored: Mapping[int, float], times: Sequence[int], rain_mm: Sequence[float]
) -> int:
    """How many rows, from the first on, are stored with the rain that they have."""
    for number, (t, rain) in enumerate(zip(times, rain_mm, strict=True)):
        if t not in stored or not abs(stored[t] - rain) <= SAME_MM:
            return number
    return len(times)


def _at(ms: int) -> str:
    return str(np.datetime64(ms, "ms"))[:16]


def _mark(model: SwmmModel) -> str:
    """How ids of its runs begin; another version of the model has another one."""
    return tag(model)[:12]
