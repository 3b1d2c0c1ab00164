"""Runoff models: taken, validated by SWMM itself, watched while they run; runs."""

import asyncio
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from fastapi import APIRouter, Query, Response
from pydantic import Field

from duha_backend.api.documents import DryRun, IfMatch, tag_of
from duha_backend.api.fields import Id, Moment, PathId, StrictBody, Text
from duha_backend.api.services import (
    PREFIX,
    SIGNED_IN,
    Limit,
    S,
    Services,
    Who,
    iso,
    needs,
    record,
    to_ms,
)
from duha_backend.drainage.office import MOST_MODELS as MOST_RUNNING
from duha_backend.drainage.paper import comparison
from duha_backend.drainage.process import Names, Process
from duha_backend.drainage.runs import Run
from duha_backend.drainage.studies import Asked, DesignStorm, Happened, outcomes_of
from duha_backend.errors import Conflict, Diverged, Invalid, NotFound
from duha_backend.rain.exchange import Series, to_pi
from duha_backend.readings import DAY_MS, length
from duha_backend.registry import tag
from duha_backend.runoff.live import Place, SwmmModel, device, rain_field
from duha_backend.runoff.study import compared, summary
from duha_backend.runoff.watch import Watch

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)
ENGINEER = [needs("engineer")]
MOST_INPUT = 12 << 20
MOST_MODELS = 200


class PlaceIn(StrictBody):
    """Where the rain of a model's gage is from: a gauge of the city, or a place."""

    gauge: Text = ""
    latitude: float | None = Field(None, ge=-90, le=90)
    longitude: float | None = Field(None, ge=-180, le=180)


class ModelIn(StrictBody):
    """A SWMM model; `inp` is its input file as text, left out to keep the one there is."""

    name: Text = Field(examples=["Lochotín, today"])
    inp: str | None = Field(None, max_length=MOST_INPUT)
    gauges: dict[Text, PlaceIn] = Field({}, max_length=1000)
    latitude: float | None = Field(None, ge=-90, le=90)
    longitude: float | None = Field(None, ge=-180, le=180)
    replay_days: int = Field(7, ge=1, le=30)
    running: bool = True
    horizon_h: float = Field(3, gt=0, le=48)


@router.get("/models")
async def models(services: S) -> list[dict[str, Any]]:
    """All models, how each is running, and what is reached when."""
    found = await asyncio.to_thread(services.registry.all, SwmmModel)
    return [await _standing(services, model) for model in found]


@router.get("/models/{name}")
async def model(name: PathId, services: S, response: Response) -> dict[str, Any]:
    """One model."""
    found = await _find(services, name)
    mark = await asyncio.to_thread(tag, found)
    response.headers["ETag"] = f'"{mark}"'
    return await _standing(services, found)


@router.put("/models/{name}", dependencies=ENGINEER)
async def put(
    name: PathId, body: ModelIn, services: S, who: Who, response: Response,
    if_match: IfMatch = None, dry_run: DryRun = False,
) -> dict[str, Any]:  # fmt: skip
    """Take a model: SWMM opens it, and says every error with its line.

    The answer tells what was changed so that it can be fed live, and what it is made of.
    """
    before = await asyncio.to_thread(services.registry.find, SwmmModel, name)
    if before is None or (body.running and not before.running):
        await _check_room(services, name, running=body.running)
    places = {gage: Place(**place.model_dump()) for gage, place in body.gauges.items()}
    try:
        made, mark = await asyncio.to_thread(_made, name, body, places, before)
        async with services.trials.turn():
            names = await validated(made.raw)
        gauges = [a for a in services.live.assets.values() if a.kind == "rain_gauge"]
        rain_field(made, names.gauges, gauges)
    except (Invalid, Diverged) as error:
        await record(services, who, "refused model", name, str(error)[:500])
        raise
    said = f"{len(made.raw)} bytes, {body.name}"
    if dry_run:  # it has begun a process on this machine
        await record(services, who, "try model", name, said)
    else:
        await asyncio.to_thread(
            services.registry.save, made, services.now_ms(), who.name, tag_of(if_match)
        )
        await record(services, who, "model", name, said)
    response.headers["ETag"] = f'"{mark}"'
    return {"id": name, **_made_of(names)}


def _made(
    name: str, body: ModelIn, places: dict[str, Place], before: SwmmModel | None
) -> tuple[SwmmModel, str]:
    """A model that has been looked at, and its tag."""
    raw = body.inp.encode() if body.inp is not None else before.raw if before else b""
    made = SwmmModel(
        name, body.name, raw, places, body.latitude, body.longitude, body.replay_days,
        body.running, body.horizon_h,
    )  # fmt: skip
    made.check()
    return made, tag(made)


async def _check_room(services: Services, name: str, *, running: bool) -> None:
    there = await asyncio.to_thread(services.registry.all, SwmmModel)
    others = [model for model in there if model.id != name]
    if len(others) >= MOST_MODELS:
        raise Conflict(f"there are {MOST_MODELS} models already: remove one first")
    if running and sum(model.running for model in others) >= MOST_RUNNING:
        raise Conflict(f"{MOST_RUNNING} models run already: add it with running false")


@router.delete("/models/{name}", status_code=204, dependencies=ENGINEER)
async def delete(name: PathId, services: S, who: Who, if_match: IfMatch = None) -> None:
    """Take a model away; its results stay."""
    await asyncio.to_thread(
        services.registry.drop, SwmmModel, name, services.now_ms(), who.name,
        tag_of(if_match),
    )  # fmt: skip
    await record(services, who, "delete model", name, "")


@router.get("/models/{name}/inp")
async def inp(name: PathId, services: S) -> Response:
    """The input file as its author wrote it."""
    found = await _find(services, name)
    return Response(found.raw, media_type="text/plain; charset=utf-8")


@router.get("/models/{name}/now")
async def now(name: PathId, services: S) -> dict[str, Any]:
    """Every node and link of a model that runs, now.

    `nodes`: depth [m], inflow, flooding [L/s]; `links`: flow [L/s], depth [m].
    """
    await _find(services, name)
    _, result = await asyncio.to_thread(services.runs.newest, name)
    if not result:
        raise NotFound(f"model {name!r} has not come to the present yet")
    return await _encoded(dict(result) | {"at": iso(result["t"])})


@router.get("/models/{name}/forecast")
async def forecast(name: PathId, services: S) -> dict[str, Any]:
    """The newest forecast of a model: each member's course of what is watched."""
    await _find(services, name)
    runs = await asyncio.to_thread(services.runs.page, "forecast", name, 10)
    for run in runs:
        if run.state == "complete":
            result = await asyncio.to_thread(services.runs.result, run.id)
            return await _encoded({"run": run.id, "t0": iso(run.t0), **result})
    raise NotFound(f"model {name!r} has no forecast yet")


@router.get("/models/{name}/export.json")
async def export(
    name: PathId, services: S, since: Moment | None = None, until: Moment | None = None,
) -> Response:  # fmt: skip
    """What is watched in a model, as it was, as Delft-FEWS PI-JSON."""
    await _find(services, name)
    end = to_ms(until) if until else services.now_ms()
    start = to_ms(since) if since else end - DAY_MS
    if not start < end <= start + 31 * DAY_MS:
        raise Invalid("since is before until, by 31 days at most")
    watches = await asyncio.to_thread(services.registry.all, Watch)
    series = []
    for watch in watches:
        if watch.model != name:
            continue
        kind = "node" if watch.part == "node" else "conduit"
        place = device(name, watch.object)
        frame = await services.readings.window(kind, place, start, end)
        if length(frame):
            flags = np.zeros(length(frame), dtype=int)
            series.append(
                Series(
                    watch.object, watch.what, watch.unit,
                    frame["ts"] / 1000, frame[watch.what], flags, watch.name,
                    watch.latitude, watch.longitude, accumulative=False,
                )
            )  # fmt: skip
    made = await asyncio.to_thread(to_pi, series, name)
    return Response(msgspec.json.encode(made), media_type="application/json")


@router.get("/runs")
async def runs(
    services: S, kind: Literal["live", "forecast", "study"] | None = None,
    model: Annotated[str | None, Query(max_length=200)] = None, limit: Limit = 50,
) -> list[dict[str, Any]]:  # fmt: skip
    """Runs, newest first: pending, running, failed or complete; cold or warm."""
    found = await asyncio.to_thread(services.runs.page, kind, model, limit)
    return [_told(run) for run in found]


@router.get("/runs/{name}")
async def run(name: PathId, services: S) -> dict[str, Any]:
    """A run with what it has found."""
    found = await asyncio.to_thread(services.runs.find, name)
    if found is None:
        raise NotFound(f"no run {name!r}")
    result = await asyncio.to_thread(services.runs.result, name)
    return await _encoded(_told(found) | {"result": result})


async def validated(raw: bytes) -> Names:
    """What SWMM makes of a model; raises Invalid with every error and its line."""
    process = Process()
    try:
        return await process.open(raw, 1_767_225_600)  # any day will do
    finally:
        await process.close()


async def _encoded(told: dict[str, Any]) -> dict[str, Any]:
    """A large answer, encoded beside the event loop; FastAPI passes it on as it is."""
    raw = await asyncio.to_thread(msgspec.json.encode, told)
    return Response(raw, media_type="application/json")  # type: ignore[return-value]


def _made_of(names: Names) -> dict[str, Any]:
    return {
        "changes": names.changes,
        "gauges": names.gauges,
        "nodes": len(names.nodes),
        "links": len(names.links),
        "subcatchments": len(names.subcatchments),
        "lids": len(names.lids),
        "area_ha": round(names.area_ha, 3),
    }


async def _find(services: Services, name: str) -> SwmmModel:
    found = await asyncio.to_thread(services.registry.find, SwmmModel, name)
    if found is None:
        raise NotFound(f"no model {name!r}")
    return found


async def _standing(services: Services, model: SwmmModel) -> dict[str, Any]:
    last, result = await asyncio.to_thread(services.runs.newest, model.id)
    watches = await asyncio.to_thread(services.registry.all, Watch)
    result = result or {}
    stages = result.get("stages", {})
    return {
        "id": model.id,
        "name": model.name,
        "etag": await asyncio.to_thread(tag, model),
        "running": model.running,
        "replay_days": model.replay_days,
        "horizon_h": model.horizon_h,
        "latitude": model.latitude,
        "longitude": model.longitude,
        "gauges": {name: _place(place) for name, place in model.gauges.items()},
        "bytes": len(model.raw),
        "run": _told(last) if last else None,
        "behind_s": (services.now_ms() - last.t0) / 1000 if last else None,
        "area_ha": result.get("area_ha"),
        "wet": result.get("wet"),
        "missing_min": result.get("missing_min"),
        "changes": result.get("changes", []),
        "watches": [
            {
                "id": watch.id,
                "name": watch.name,
                "what": watch.what,
                "part": watch.part,
                "object": watch.object,
                "device": device(model.id, watch.object),
                "stages": watch.stages,
                "latitude": watch.latitude,
                "longitude": watch.longitude,
                **stages.get(watch.id, {}),
            }
            for watch in watches
            if watch.model == model.id
        ],
    }


def _place(place: Place) -> dict[str, Any]:
    return {
        "gauge": place.gauge, "latitude": place.latitude, "longitude": place.longitude
    }  # fmt: skip


def _told(run: Run) -> dict[str, Any]:
    times = {name: iso(getattr(run, name)) for name in ("start", "t0", "begun")}
    ended = iso(run.ended) if run.ended is not None else None
    return run._asdict() | times | {"ended": ended}


# -- studies -----------------------------------------------------------------------------


class DesignIn(StrictBody):
    """A storm of a table of design rain."""

    table: Id
    period_a: float = Field(5, gt=0, le=10_000)
    minutes: int = Field(60, ge=10, le=1440)


class HappenedIn(StrictBody):
    """A storm that was."""

    since: Moment
    until: Moment


class StudyIn(StrictBody):
    """The same rains over several models."""

    name: Text = Field(examples=["What rain gardens are worth"])
    models: list[Id] = Field(min_length=1, max_length=20)
    design: list[DesignIn] = Field([], max_length=50)
    happened: list[HappenedIn] = Field([], max_length=50)
    members: list[Annotated[float, Field(ge=0, le=100)]] = Field(
        [1.0], max_length=50, examples=[[0.8, 1.0, 1.2]]
    )
    tail_h: float = Field(80, ge=0, le=240)


@router.post("/studies", status_code=202, dependencies=ENGINEER)
async def study(body: StudyIn, services: S, who: Who) -> dict[str, Any]:
    """Ask for a study; it is carried out where runoff is looked after."""
    asked = Asked(
        body.name, tuple(body.models),
        tuple(DesignStorm(**one.model_dump()) for one in body.design),
        tuple(Happened(to_ms(one.since), to_ms(one.until)) for one in body.happened),
        tuple(body.members), body.tail_h,
    )  # fmt: skip
    asked.check()
    for name in body.models:
        await _find(services, name)
    run = await asyncio.to_thread(
        services.runs.ask, ",".join(body.models)[:200], services.now_ms(),
        msgspec.to_builtins(asked), who.name,
    )  # fmt: skip
    await record(services, who, "study", run, body.name)
    return {"id": run}


@router.delete("/studies/{name}", status_code=204, dependencies=ENGINEER)
async def cancel(name: PathId, services: S, who: Who) -> None:
    """Cancel a study that waits or is carried out: its processes end within a second."""
    run, _ = await _study(services, name)
    if run.state == "cancelled":
        return
    done = await asyncio.to_thread(
        services.runs.update, name, "pending", state="cancelled",
        ended=services.now_ms(), detail=f"cancelled by {who.name}",
    )  # fmt: skip
    if not done:
        raise Conflict(f"study {name!r} is over: it is {run.state}")
    await record(services, who, "cancel study", name, run.detail)


@router.get("/studies/{name}")
async def study_of(name: PathId, services: S) -> dict[str, Any]:
    """A study: how far it is, and the comparison under each rain."""
    run, result = await _study(services, name)
    made = await asyncio.to_thread(_comparison, result)
    return await _encoded(_told(run) | made)


def _comparison(result: dict[str, Any]) -> dict[str, Any]:
    outcomes = outcomes_of(result)
    rains = list(dict.fromkeys(outcome.rain for outcome in outcomes))
    return {
        "asked": result["asked"],
        "rains": [
            {
                "rain": rain,
                "models": [o.model for o in outcomes if o.rain == rain],
                "lines": [line._asdict() for line in compared(outcomes, rain)],
            }
            for rain in rains
        ],
        "outcomes": summary(outcomes),
    }


@router.get("/studies/{name}/report.pdf")
async def study_on_paper(
    name: PathId, services: S, language: Literal["cs", "en"] = "cs"
) -> Response:
    """The comparison as PDF."""
    run, result = await _study(services, name)
    outcomes = await asyncio.to_thread(outcomes_of, result)
    if not outcomes:
        raise NotFound(f"study {name!r} has no result yet: it is {run.state}")
    title = result["asked"]["name"]
    made = await asyncio.to_thread(comparison, title, outcomes, language)
    return Response(made, media_type="application/pdf")


async def _study(services: Services, name: str) -> tuple[Run, dict[str, Any]]:
    run = await asyncio.to_thread(services.runs.find, name)
    if run is None or run.kind != "study":
        raise NotFound(f"no study {name!r}")
    return run, await asyncio.to_thread(services.runs.result, name)
