"""Studies that were asked for over the API: taken from the book of runs, one at a time."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from duha_backend.drainage.jobs import all_jobs, outcomes
from duha_backend.drainage.rainfall import judged_minutes
from duha_backend.drainage.runs import Run, Runs
from duha_backend.errors import BackendError, Invalid, NotFound, StoreDown
from duha_backend.geo import places_of
from duha_backend.rain.areal import Field
from duha_backend.rain.events import DesignRain
from duha_backend.rain.series import MINUTE_MS
from duha_backend.readings import Readings
from duha_backend.registry import Registry
from duha_backend.runoff.inp import describe, parse
from duha_backend.runoff.live import MOST_MM_H, SwmmModel, areal, rain_field
from duha_backend.runoff.study import EVERY_MIN, Job, Outcome, Rain
from duha_backend.runoff.watch import design_storm

log = logging.getLogger(__name__)

MOST_JOBS = 500
MOST_VALUES = 5_000_000
"""Values of all courses and depths of a study together: some 40 MB."""
LOOK_S = 0.5
"""Between looks at whether a study that is carried out was cancelled."""
LONGEST_EVENT_MS = 7 * 24 * 60 * MINUTE_MS


class DesignStorm(msgspec.Struct, frozen=True):
    """A storm of a table of design rain, over the whole city."""

    table: str
    period_a: float = 5.0
    minutes: int = 60


class Happened(msgspec.Struct, frozen=True):
    """A storm that was: judged rain of the city's gauges, from and to [ms]."""

    start: int
    end: int


class Asked(msgspec.Struct, frozen=True):
    """A study.

    Attributes
    ----------
    name : str
        What it is called.
    models : tuple of str
        Which models are compared.
    design, happened : tuple
        Under which rains.
    members : tuple of float
        Each rain is multiplied by each of them: an ensemble.
    tail_h : float
        How long models run on after their rain [h].
    """

    name: str
    models: tuple[str, ...]
    design: tuple[DesignStorm, ...] = ()
    happened: tuple[Happened, ...] = ()
    members: tuple[float, ...] = (1.0,)
    tail_h: float = 80.0

    def check(self) -> None:
        """Raise Invalid for a study of nothing."""
        if not self.models or not (self.design or self.happened) or not self.members:
            raise Invalid("a study has one model, one rain and one member at least")
        if any(not 0 < factor <= 5 for factor in self.members):
            raise Invalid("members of an ensemble are over 0, and 5 at most")
        rains = len(self.design) + len(self.happened)
        if len(self.models) * rains * len(self.members) > MOST_JOBS:
            raise Invalid(
                f"a study has {MOST_JOBS} runs at most: fewer models, rains or members"
            )
        for one in self.happened:
            if not 0 < one.end - one.start <= LONGEST_EVENT_MS:
                raise Invalid("a storm that was lasts 7 days at most")


class Studies:
    """Carries studies out.

    Parameters
    ----------
    runs, registry, readings : Runs, Registry, Readings
        Where they are asked for, and what they need.
    folder : Path
        Where outcomes are kept, so that an interrupted study goes on.
    scheduler : str
        Address of a dask scheduler; without one this machine's processes.
    """

    def __init__(
        self, runs: Runs, registry: Registry, readings: Readings, folder: Path,
        now_ms: Callable[[], int], scheduler: str = "", workers: int = 1,
    ) -> None:  # fmt: skip
        self._runs = runs
        self._registry = registry
        self._readings = readings
        self._folder = folder
        self._now = now_ms
        self._scheduler = scheduler
        self._workers = workers

    async def tend(self, leading: Callable[[], bool] = lambda: True) -> None:
        """Carry out the oldest study that waits, or was interrupted; only while leading."""
        waiting = await asyncio.to_thread(self._runs.pending, "study")
        if waiting:
            await self._carry_out(waiting[0], leading)

    async def _carry_out(self, run: Run, leading: Callable[[], bool]) -> None:
        """Carry a study out, unless it is cancelled or taken over meanwhile."""
        working = asyncio.create_task(self._work(run), name=f"study {run.id}")
        try:
            while not working.done():
                await asyncio.wait([working], timeout=LOOK_S)
                now = await asyncio.to_thread(self._runs.find, run.id)
                if now is None or now.state != "pending" or not leading():
                    break
        finally:
            working.cancel()
            (raised,) = await asyncio.gather(working, return_exceptions=True)
        if isinstance(raised, Exception):
            raise raised

    async def _work(self, run: Run) -> None:
        result = await asyncio.to_thread(self._runs.result, run.id)
        try:
            asked = msgspec.convert(result["asked"], Asked)
            jobs = await self._jobs(asked)
            found = await self._outcomes(run.id, jobs)
        except StoreDown:
            raise  # the registry or the store is away: the study goes on when it is back
        except Exception as error:
            # Whatever it is, it must not be tried again and again.
            known = isinstance(error, BackendError)
            log.warning("study %s: %s", run.id, error, exc_info=not known)
            await self._end(run.id, state="failed", detail=str(error)[:1000])
            return
        problems = [f"{o.model}: {o.problem}" for o in found if o.problem]
        told = await asyncio.to_thread(msgspec.to_builtins, found)
        await self._end(
            run.id, result=result | {"outcomes": told},
            state="failed" if len(problems) == len(found) else "complete",
            detail="; ".join(problems)[:1000] or f"{len(found)} runs",
        )  # fmt: skip

    async def _end(self, run: str, **values: Any) -> None:
        await asyncio.to_thread(
            self._runs.update, run, "pending", ended=self._now(), **values
        )

    async def _outcomes(self, run: str, jobs: list[Job]) -> list[Outcome]:
        found: dict[int, Outcome] = {}
        told_at = 0.0
        spread = outcomes(jobs, self._folder, self._workers, self._scheduler)
        async with contextlib.aclosing(spread) as each:
            async for number, last in each:
                found[number] = last
                if time.monotonic() - told_at > LOOK_S:
                    told_at = time.monotonic()
                    detail = (
                        f"{len(found)} of {len(jobs)}: {last.model} under {last.rain}"
                    )
                    await asyncio.to_thread(
                        self._runs.update, run, "pending", detail=detail
                    )
        return [found[number] for number in range(len(jobs))]

    async def _jobs(self, asked: Asked) -> list[Job]:
        asked.check()
        found: list[Job] = []
        values = 0
        for name in asked.models:
            model = await asyncio.to_thread(self._registry.find, SwmmModel, name)
            if model is None:
                raise NotFound(f"no model {name!r}")
            rains = await self._rains(asked, model)
            mine = all_jobs([(model.name, model.raw)], rains, asked.tail_h)
            values += await asyncio.to_thread(_values, model.raw, mine)
            if values > MOST_VALUES:
                raise Invalid(
                    "the results of this study are too many: fewer models, rains or"
                    " members, or a shorter time after the rain"
                )
            found += mine
        return found

    async def _rains(self, asked: Asked, model: SwmmModel) -> list[Rain]:
        found = []
        for storm in asked.design:
            table = await asyncio.to_thread(
                self._registry.find, DesignRain, storm.table
            )
            if table is None:
                raise NotFound(f"no design rain table {storm.table!r}")
            course = await asyncio.to_thread(
                design_storm, table.idf, storm.period_a, storm.minutes
            )
            course = course[:, None]
            name = f"{table.name}: {storm.period_a:g} a, {storm.minutes} min"
            found.append(Rain(name, course))
        found += [await self._happened(was, model) for was in asked.happened]
        return members_of(found, asked.members)

    async def _happened(self, was: Happened, model: SwmmModel) -> Rain:
        gauges = await asyncio.to_thread(self._registry.assets, "rain_gauge")
        start, end = (t // MINUTE_MS * MINUTE_MS for t in (was.start, was.end))
        rain, _ = await judged_minutes(
            self._readings, [g.id for g in gauges], start, end
        )
        if np.isnan(rain).all():
            raise NotFound("there is no judged rain in this span")
        names = await asyncio.to_thread(lambda: list(describe(parse(model.raw)).gauges))
        places = places_of(gauges)
        field = Field(places, rain_field(model, names, gauges))
        over = np.minimum(np.nan_to_num(areal(field, rain).T) * 60, MOST_MM_H)
        return Rain(
            f"{np.datetime64(start, 'ms')!s:.16} + {(end - start) / 3.6e6:g} h", over
        )


def members_of(rains: Sequence[Rain], factors: Sequence[float]) -> list[Rain]:
    """Each rain times each factor; one that is 1 keeps its name."""
    return [
        Rain(
            rain.name if factor == 1 else f"{rain.name} × {factor:g}",
            np.minimum(rain.mm_h * factor, MOST_MM_H),
        )
        for rain in rains
        for factor in factors
    ]


def _values(raw: bytes, jobs: Sequence[Job]) -> int:
    """How many values the outcomes of some jobs of one model have."""
    model = describe(parse(raw))
    steps = sum((len(j.rain.mm_h) + j.tail_h * 60) / EVERY_MIN for j in jobs)
    return round(len(model.outfalls) * steps + len(model.nodes) * len(jobs))


def outcomes_of(result: dict[str, Any]) -> list[Outcome]:
    """Outcomes of a study's result."""
    return msgspec.convert(result.get("outcomes", []), list[Outcome])
