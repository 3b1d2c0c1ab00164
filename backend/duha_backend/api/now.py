"""The city as it is now."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from duha_backend.api.fields import PathId
from duha_backend.api.services import (
    COOKIE,
    PREFIX,
    SIGNED_IN,
    S,
    Services,
    Who,
    encoded,
    iso,
)
from duha_backend.errors import Invalid, NotFound
from duha_backend.lighting.inventory import Asset
from duha_backend.live import Live
from duha_contract.quantities import BY_NAME, KINDS

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)
STREAM_S = 3600.0
ASK_EVERY_S = 0.9
"""How often it is asked whether the session of a stream still holds [s]."""


@router.get("/city")
async def city(services: S, who: Who) -> dict[str, Any]:
    """Name, clock, cabinets and gauges of the city, and who asks."""
    live = services.live
    gauges = [a for a in live.assets.values() if a.kind == "rain_gauge"]
    return {
        "id": services.city,
        "name": services.name,
        "who": who.name,
        "role": who.role,
        "now": services.now_ms(),
        "rate": services.rate,
        "zone": services.control.place.zone,
        "grafana": services.grafana or None,
        "assets": live.version,
        "cabinets": [a._asdict() for a in live.assets.values() if a.kind == "cabinet"],
        "gauges": [a._asdict() for a in gauges],
    }


@router.get("/luminaires")
async def luminaires(
    services: S, accept_encoding: Annotated[str, Header(max_length=1000)] = ""
) -> Response:
    """All luminaires in columns, in the order of the bytes of ``/state``.

    Of a column with few values, `names` has each once and `of` says which is whose.
    """
    live = services.live
    return await services.lamps.answer(
        live.version, live.lamps, accept_encoding, "application/json"
    )


@router.get("/streets")
async def streets(
    services: S, accept_encoding: Annotated[str, Header(max_length=1000)] = ""
) -> Response:
    """The street plan as GeoJSON."""
    return await services.streets.answer(
        services.live.version, lambda: _streets(services), accept_encoding,
        "application/geo+json",
    )  # fmt: skip


def _streets(services: Services) -> bytes:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "LineString", "coordinates": street["line"]},
            "properties": {"name": street["name"], "main": street["main"]},
        }
        for street in services.registry.streets()
    ]
    return msgspec.json.encode({"type": "FeatureCollection", "features": features})


@router.get("/headline")
async def headline(services: S) -> dict[str, Any]:
    """Availability, alarms by state, power asked for, and what the last night saved.

    `lit_uncommanded` burn though nobody told them to; `expected_kw` is what luminaires of
    known types take at the levels they were told; `night` is null until one is settled.
    """
    return await asyncio.to_thread(services.headline.now, services.now_ms())


@router.get("/cabinets")
async def cabinets(services: S) -> list[dict[str, Any]]:
    """Every cabinet with its place, how many luminaires it feeds, and its power [W].

    `power_w` is what its meters show together; null where none has been read.
    """
    live = services.live
    return [
        {
            "id": asset.id,
            "street": asset.street,
            "district": asset.district,
            "luminaires": len(live.of_cabinet(asset.id)),
            "power_w": _power([_last(services, m) for m in live.devices("meter", asset.id)]),
        }
        for asset in live.assets.values()
        if asset.kind == "cabinet"
    ]  # fmt: skip


@router.get("/cabinets/{name}")
async def cabinet(name: PathId, services: S) -> dict[str, Any]:
    """One cabinet: the power it should take and takes, its meters, doors and breakers."""
    live = services.live
    asset = live.assets.get(name)
    if asset is None or asset.kind != "cabinet":
        raise NotFound(f"the city has no cabinet {name}")
    meters, contacts = (
        [_last(services, device) for device in live.devices(kind, name)]
        for kind in ("meter", "cabinet_io")
    )
    expected = await asyncio.to_thread(services.headline.expected_w, name)
    return {
        **asset._asdict(),
        "luminaires": len(live.of_cabinet(name)),
        "expected_w": expected,
        "power_w": _power(meters),
        "meters": meters,
        "contacts": contacts,
    }


def _power(meters: list[dict[str, Any]]) -> float | None:
    """What meters show together [W]; None where none has been read."""
    powers = [meter["values"].get("power_w") for meter in meters]
    known = [power for power in powers if power is not None]
    return sum(known) if known else None


def _last(services: Services, asset: Asset) -> dict[str, Any]:
    reading = services.live.latest[asset.kind].reading(asset.id)
    return {
        "id": asset.id,
        "feeder": asset.feeder,
        "at": iso(reading.ts) if reading else None,
        "quality": reading.quality if reading else None,
        "values": reading.values if reading else {},
    }


@router.get("/state")
async def state(services: S) -> Response:
    """One byte for each luminaire, and in ``X-Seq`` the tick that it belongs to."""
    live = services.live
    headers = {"X-Seq": str(live.tick_now.seq), "Cache-Control": "no-store"}
    return Response(
        live.state.tobytes(), media_type="application/octet-stream", headers=headers
    )


@router.get("/latest/{kind}")
async def latest(
    kind: PathId, services: S, columns: Annotated[str, Query(max_length=2000)] = "",
    cabinet: Annotated[
        str, Query(description="Of this cabinet alone.", max_length=200)
    ] = "",
) -> Response:  # fmt: skip
    """The last reading of every device of a kind, in columns: one compact call.

    `columns` names quantities, comma-separated; without it all of them come. `ts` is 0 for
    a device that was never read.
    """
    if kind not in KINDS:
        raise NotFound(f"no kind {kind!r}; there are {', '.join(KINDS)}")
    wanted = columns.split(",") if columns else [q.name for q in KINDS[kind]]
    unknown = [name for name in wanted if name not in BY_NAME[kind]]
    if unknown:
        raise Invalid(f"{kind} has no {', '.join(unknown)}")
    found, mine = services.live.latest[kind], None
    if cabinet:
        mine = [asset.id for asset in services.live.devices(kind, cabinet)]
    body = await asyncio.to_thread(found.encode, wanted, mine)
    # Compressing would take longer than sending, on the lines where this is asked.
    headers = {"Cache-Control": "no-store", "Content-Encoding": "identity"}
    return Response(body, media_type="application/json", headers=headers)


@router.get("/events", response_class=StreamingResponse)
async def events(services: S, request: Request) -> StreamingResponse:
    """What changes, tick by tick: columns `i`, `s` and the figures.

    Who misses a `seq` fetches ``/state``. A stream ends with its session, and after an
    hour: a browser asks again, and is asked again who it is.
    """
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    token = bearer if scheme.lower() == "bearer" else request.cookies.get(COOKIE, "")

    def holds() -> bool:
        return services.registry.who(token, services.real_ms()) is not None

    return StreamingResponse(
        _ticks(services.live, holds), media_type="text/event-stream", headers=headers
    )


async def _ticks(live: Live, holds: Callable[[], bool]) -> AsyncGenerator[bytes]:
    """Ticks as they come, while a session holds.

    A page that reads slowly is given the newest tick, never those that it has missed. A
    registry that is away or slow ends no stream.
    """
    seen = live.tick_now.seq
    begun = time.monotonic()
    asked, asking = begun, None
    try:
        while time.monotonic() < begun + STREAM_S:
            tick = await live.next_tick(seen)
            seen = tick.seq
            if asking is None and time.monotonic() > asked + ASK_EVERY_S:
                asked = time.monotonic()
                asking = asyncio.create_task(asyncio.to_thread(holds))
                await asyncio.wait((asking,), timeout=0.2)
            if asking is not None and asking.done():
                if asking.exception() is None and not asking.result():
                    return
                asking = None
            yield tick.event
    finally:
        if asking is not None:
            asking.cancel()


@router.get("/controllers", response_model=list[dict[str, Any]])
async def controllers(
    services: S,
    unregistered: Annotated[
        bool, Query(description="Those instead that nobody has registered.")
    ] = False,
) -> Response:
    """Every controller: whether it is there, how old its data is, what it carries out.

    `clock_skew_s` is how far its clock is ahead, null where that is not known.
    """
    now, live = services.now_ms(), services.live
    found = []
    for known in (live.unregistered if unregistered else live.controllers).values():
        desired = services.control.desired.get(known.id)
        report = known.report
        last = known.last_batch_ms
        found.append(
            {
                "id": known.id,
                "stale": known.stale,
                "age_s": None if last is None else (now - last) / 1000,
                "clock_skew_s": known.clock_skew_s,
                "desired_revision": desired.revision if desired else None,
                "reported_revision": report.revision if report else None,
                "diverged": list(report.diverged) if report else [],
                "wet_road": [msgspec.to_builtins(c) for c in desired.conditions]
                if desired
                else [],
                "status": msgspec.to_builtins(known.status) if known.status else None,
            }
        )
    return await encoded(found)


@router.get("/roads")
async def roads(services: S) -> list[dict[str, Any]]:
    """State of the roads, by cabinet and the gauges that they are near to.

    `luminaires` is null where all of a cabinet are meant.
    """
    found, now = services.control.roads, services.now_ms()
    return [
        {
            "cabinet": cabinet,
            "gauges": area.gauges,
            "luminaires": area.devices,
            "state": found.state_of_area(area, now),
            "wet_until": iso(wet.end)
            if (wet := found.standing.get(area.gauges))
            else None,
        }
        for cabinet, areas in found.areas().items()
        for area in areas
    ]


@router.get("/luminaires/{device}")
async def luminaire(device: PathId, services: S) -> dict[str, Any]:
    """One luminaire: commanded, in effect, actual, and the chain of reasons."""
    live, city = services.live, services.live.city
    if device not in city.index:
        raise NotFound(f"no luminaire {device!r}")
    asset = city.assets[device]
    control = services.control
    reading = live.latest["luminaire"].reading(device)
    values = reading.values if reading else {}
    decision = services.control.decision(device, services.now_ms() / 1000)
    return {
        **asset._asdict(),
        "state": live.describe(device),
        "commanded": values.get("level_commanded_pct"),
        "in_effect": values.get("level_in_effect_pct"),
        "actual": values.get("level_actual_pct"),
        "wanted": decision.level,
        "reason": msgspec.to_builtins(decision.reason),
        "road": control.roads.state_of(asset.cabinet, device, services.now_ms()),
        "values": values,
        "quality": reading.quality if reading else None,
        "at": iso(reading.ts) if reading else None,
        "age_s": (services.now_ms() - reading.ts) / 1000 if reading else None,
    }
