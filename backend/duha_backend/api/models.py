"""Runoff models: taken, validated by SWMM itself, watched while they run; runs."""

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from duha_backend.api.documents import DryRun, IfMatch, tag_of
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
)
from duha_backend.drainage.process import Names, Process
from duha_backend.drainage.runs import Run
from duha_backend.errors import NotFound
from duha_backend.registry import tag
from duha_backend.runoff.live import Place, SwmmModel, rain_field
from duha_backend.runoff.watch import Watch

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)
ENGINEER = [needs("engineer")]


class PlaceIn(BaseModel):
    """Where the rain of a model's gage is from: a gauge of the city, or a place."""

    model_config = ConfigDict(extra="forbid")
    gauge: str = ""
    latitude: float | None = Field(None, ge=-90, le=90)
    longitude: float | None = Field(None, ge=-180, le=180)


class ModelIn(BaseModel):
    """A SWMM model; `inp` is its input file as text, left out to keep the one there is."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(examples=["Lochotín, today"])
    inp: str | None = None
    gauges: dict[str, PlaceIn] = {}
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
async def model(name: str, services: S, response: Response) -> dict[str, Any]:
    """One model."""
    found = await _find(services, name)
    response.headers["ETag"] = f'"{tag(found)}"'
    return await _standing(services, found)


@router.put("/models/{name}", dependencies=ENGINEER)
async def put(
    name: str, body: ModelIn, services: S, who: Who, response: Response,
    if_match: IfMatch = None, dry_run: DryRun = False,
) -> dict[str, Any]:  # fmt: skip
    """Take a model: SWMM opens it, and says every error with its line.

    The answer tells what was changed so that it can be fed live, and what it is made of.
    """
    before = await asyncio.to_thread(services.registry.find, SwmmModel, name)
    raw = body.inp.encode() if body.inp is not None else before.raw if before else b""
    places = {gage: Place(**place.model_dump()) for gage, place in body.gauges.items()}
    made = SwmmModel(
        name, body.name, raw, places, body.latitude, body.longitude, body.replay_days,
        body.running, body.horizon_h,
    )  # fmt: skip
    made.check()
    names = await validated(made.raw)
    gauges = [a for a in services.live.assets.values() if a.kind == "rain_gauge"]
    rain_field(made, names.gauges, gauges)
    if not dry_run:
        await asyncio.to_thread(
            services.registry.save, made, services.now_ms(), who.name, tag_of(if_match)
        )
        await record(services, who, "model", name, f"{len(raw)} bytes, {body.name}")
    response.headers["ETag"] = f'"{tag(made)}"'
    return {"id": name, **_made_of(names)}


@router.delete("/models/{name}", status_code=204, dependencies=ENGINEER)
async def delete(name: str, services: S, who: Who, if_match: IfMatch = None) -> None:
    """Take a model away; its results stay."""
    await asyncio.to_thread(
        services.registry.drop, SwmmModel, name, services.now_ms(), who.name,
        tag_of(if_match),
    )  # fmt: skip
    await record(services, who, "delete model", name, "")


@router.get("/models/{name}/inp")
async def inp(name: str, services: S) -> Response:
    """The input file as its author wrote it."""
    found = await _find(services, name)
    return Response(found.raw, media_type="text/plain; charset=utf-8")


@router.get("/models/{name}/now")
async def now(name: str, services: S) -> dict[str, Any]:
    """Every node and link of a model that runs, now.

    `nodes`: depth [m], inflow, flooding [L/s]; `links`: flow [L/s], depth [m].
    """
    await _find(services, name)
    runs = await asyncio.to_thread(services.runs.page, "live", name, 1)
    result = await asyncio.to_thread(services.runs.result, runs[0].id) if runs else None
    if not result:
        raise NotFound(f"model {name!r} has not come to the present yet")
    return dict(result) | {"at": iso(result["t"])}


@router.get("/models/{name}/forecast")
async def forecast(name: str, services: S) -> dict[str, Any]:
    """The newest forecast of a model: each member's course of what is watched."""
    await _find(services, name)
    runs = await asyncio.to_thread(services.runs.page, "forecast", name, 10)
    for run in runs:
        if run.state == "complete":
            result = await asyncio.to_thread(services.runs.result, run.id)
            told: dict[str, Any] = {"run": run.id, "t0": iso(run.t0), **result}
            return told
    raise NotFound(f"model {name!r} has no forecast yet")


@router.get("/runs")
async def runs(
    services: S, kind: Literal["live", "forecast", "study"] | None = None,
    model: str | None = None, limit: Limit = 50,
) -> list[dict[str, Any]]:  # fmt: skip
    """Runs, newest first: pending, running, failed or complete; cold or warm."""
    found = await asyncio.to_thread(services.runs.page, kind, model, limit)
    return [_told(run) for run in found]


@router.get("/runs/{name}")
async def run(name: str, services: S) -> dict[str, Any]:
    """A run with what it has found."""
    found = await asyncio.to_thread(services.runs.find, name)
    if found is None:
        raise NotFound(f"no run {name!r}")
    result = await asyncio.to_thread(services.runs.result, name)
    return _told(found) | {"result": result}


async def validated(raw: bytes) -> Names:
    """What SWMM makes of a model; raises Invalid with every error and its line."""
    process = Process()
    try:
        return await process.open(raw, 1_767_225_600)  # any day will do
    finally:
        await process.close()


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
    runs = await asyncio.to_thread(services.runs.page, "live", model.id, 1)
    watches = await asyncio.to_thread(services.registry.all, Watch)
    last = runs[0] if runs else None
    result = await asyncio.to_thread(services.runs.result, last.id) if last else None
    result = result or {}
    stages = result.get("stages", {})
    return {
        "id": model.id,
        "name": model.name,
        "etag": tag(model),
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
