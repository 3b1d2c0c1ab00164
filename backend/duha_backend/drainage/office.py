"""Where rain and models are looked after: one for each process that holds the role."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from duha_backend.alarms.engine import News
from duha_backend.alarms.kinds import OF_RAIN
from duha_backend.alarms.office import Office
from duha_backend.alarms.timers import Holds
from duha_backend.books import Books
from duha_backend.drainage.external import EVERY_S, External
from duha_backend.drainage.rainfall import Rainfall
from duha_backend.drainage.runner import Runner
from duha_backend.drainage.runs import Runs
from duha_backend.drainage.studies import Studies
from duha_backend.drainage.turns import Turns
from duha_backend.live import Live
from duha_backend.rain.events import DesignRain, Idf
from duha_backend.readings import Readings
from duha_backend.registry import Registry, tag
from duha_backend.runoff.live import SwmmModel
from duha_backend.runoff.watch import STAGES, Watch
from duha_contract.clock import Clock
from duha_runtime.supervision import Supervisor
from duha_runtime.waiting import ended

TICK_S = 1.0
MOST_MODELS = 50
"""Models that run live: each has a process of its own."""
DESIGN_PERIOD_A = 5.0
LAG_MS = 20 * 60_000
"""A model that is so far behind the rain is one that fails."""


class Drainage:
    """Rain and runoff of a city.

    Parameters
    ----------
    readings, registry, live, books : Readings, Registry, Live, Books
        What there is.
    alarms : Office
        Who writes alarms down and tells of them.
    clock : Clock
        When it is.
    folder, scheduler : Path, str
        Where outcomes of studies are kept, and who reckons them, as of `Studies`.
    external : sequence of str
        Where rain of others is from, as of `External`.
    zone : str
        Time zone of the city: by its clock models run.

    Attributes
    ----------
    parts : Supervisor
        Failures of each part: rain, external rain, models, alarms, studies.
    """

    def __init__(
        self, readings: Readings, registry: Registry, live: Live, books: Books,
        alarms: Office, clock: Clock, folder: Path, scheduler: str = "",
        external: Sequence[str] = (), zone: str = "UTC",
        parts: Supervisor | None = None,
    ) -> None:  # fmt: skip
        self.parts = parts or Supervisor()
        self._zone = zone
        self._replays = Turns(waiting=MOST_MODELS)
        self._forecasts = Turns(waiting=MOST_MODELS)
        self.rainfall = Rainfall(readings, registry, live, books)
        self.runs = Runs(registry.engine)
        self._studies = Studies(
            self.runs, registry, readings, folder, clock.now_ms, scheduler
        )
        self._external = External(external, readings, live, books)
        self._external_at = float("-inf")
        self._readings = readings
        self._registry = registry
        self._live = live
        self._alarms = alarms
        self._clock = clock
        self._holds = Holds()
        self._seen = -1
        self._watches: list[Watch] = []
        self._design: Idf | None = None
        self._running: dict[str, tuple[str, Runner, asyncio.Task[None]]] = {}
        self._adopted = False

    @property
    def runners(self) -> list[Runner]:
        """Models that run here."""
        return [runner for _, runner, _ in self._running.values()]

    async def run(self, leads: asyncio.Event | None = None) -> None:
        """Look after everything until cancelled; only while this process leads."""

        def leading() -> bool:
            return leads is None or leads.is_set()

        studying = asyncio.create_task(self._study(leading), name="studies")
        try:
            while True:
                if leading():
                    await self._tick()
                else:
                    await self._stop(list(self._running))
                    self._adopted, self._seen = False, -1
                await asyncio.sleep(TICK_S)
        finally:
            await ended([studying])
            await self._stop(list(self._running))

    async def _study(self, leading: Callable[[], bool]) -> None:
        """Studies one after the other, beside everything else."""
        while True:
            await asyncio.sleep(TICK_S)
            if leading():
                with self.parts.barrier("studies"):
                    await self._studies.tend(leading)

    async def _tick(self) -> None:
        """Each job on its own: one that fails does not take the next with it."""
        now = self._clock.now_ms()
        with self.parts.barrier("models"):
            await self._look()
        if self._clock.source() >= self._external_at + EVERY_S:
            self._external_at = self._clock.source()
            with self.parts.barrier("external rain"):
                await self._external.take(now)
        with self.parts.barrier("rain"):
            await self.rainfall.tend(now)
        with self.parts.barrier("alarms of rain"):
            await self._judge(now)

    async def _look(self) -> None:
        """Models, watches and design rain, when something has changed."""
        number = await asyncio.to_thread(self._registry.change, "documents")
        if number == self._seen:
            return
        models = await asyncio.to_thread(self._registry.all, SwmmModel)
        self._watches = await asyncio.to_thread(self._registry.all, Watch)
        tables = await asyncio.to_thread(self._registry.all, DesignRain)
        self._design = tables[0].idf if tables else None
        live = [model for model in models if model.running]
        wanted = {model.id: model for model in live[:MOST_MODELS]}
        marks = await asyncio.to_thread(lambda: {n: tag(m) for n, m in wanted.items()})
        over = [
            name
            for name, (mark, _, _) in self._running.items()
            if marks.get(name) != mark
        ]
        await self._stop(over)
        for name, model in wanted.items():
            if name not in self._running:
                self._begin(model, marks[name])
        self._seen = number

    def _begin(self, model: SwmmModel, mark: str) -> None:
        runner = Runner(
            model, self.rainfall, self._readings, self.runs,
            lambda: [w for w in self._watches if w.model == model.id],
            lambda: (self._design, DESIGN_PERIOD_A) if self._design else None,
            self._clock.now_ms, self._zone, self._replays, self._forecasts,
        )  # fmt: skip
        task = asyncio.create_task(runner.run(), name=f"model {model.id}")
        self._running[model.id] = (mark, runner, task)

    async def _stop(self, names: Iterable[str]) -> None:
        await ended([self._running.pop(name)[2] for name in names])

    # -- alarms ----------------------------------------------------------------------

    async def _judge(self, now: int) -> None:
        """What begins and what is over."""
        if not self._adopted:
            standing = await asyncio.to_thread(self._alarms.book.standing)
            for code, name in standing:
                if code in OF_RAIN:
                    self._holds.adopt(code, name)
            self._adopted = True
        t = now / 1000
        found = {
            (code, name): detail
            for code, name, detail in [*self.rainfall.standing(), *self._of_models()]
        }
        for code, name in self._holds.known() | found.keys():
            detail = found.get((code, name))
            self._holds.see(code, name, detail is not None, t, detail or "")
        news = [
            News(code, name, self._cabinet_of(name), began, now, held.detail)
            for code, name, began, held in self._holds.turned(t, lambda *_: False)
        ]
        if news:
            await self._alarms.tell(news)

    def _of_models(self) -> list[tuple[str, str, str]]:
        names = {watch.id: watch for watch in self._watches}
        found = []
        for runner in self.runners:
            standing = runner.standing
            behind = (self.rainfall.done or 0) - standing.t
            problem = standing.problem
            if not problem and standing.warm and behind > LAG_MS:
                problem = f"{behind / 60_000:.0f} min behind the rain"
            if problem:
                found.append(("modelFailure", runner.model.id, problem[:300]))
            if standing.forecast_problem:
                found.append(
                    (
                        "forecastFailure",
                        runner.model.id,
                        standing.forecast_problem[:300],
                    )
                )
            for name, at in standing.stages.items():
                if name in names:
                    found += _stages(names[name], at)
        return found

    def _cabinet_of(self, name: str) -> str:
        asset = self._live.assets.get(name)
        return asset.cabinet if asset is not None else ""


_IF = {"dry": "even if the rain stops", "persistence": "if the rain goes on"}


def _stages(watch: Watch, at: dict[str, object]) -> list[tuple[str, str, str]]:
    """Alarms of one watch: the stage it has reached, and the one that it will."""
    found = []
    stage = int(str(at.get("stage", 0)))
    if stage:
        detail = (
            f"{watch.name}: SPA {STAGES[stage - 1]}, {at['value']:.2f} {watch.unit}"
        )
        found.append((f"floodStage{stage}", watch.id, detail))
    likely = at.get("likely", ())
    ahead = [one for one in likely if one["stage"] > stage]  # type: ignore[attr-defined]
    if ahead:
        last = max(ahead, key=lambda one: one["stage"])
        detail = (
            f"{watch.name}: SPA {STAGES[last['stage'] - 1]} in {last['minutes']:.0f} min"
            f" {_IF[last['member']]}"
        )
        found.append(("floodForecast", watch.id, detail))
    return found
