"""What was kept: assets, readings, rain, what was refused, who did what."""

import asyncio
import datetime as dt
from typing import Annotated, Any

from fastapi import APIRouter, Query

from duha_backend.api.services import PREFIX, SIGNED_IN, Limit, S, iso, to_ms
from duha_backend.errors import Invalid, NotFound
from duha_backend.live import ms_of
from duha_contract.quantities import KINDS

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)


@router.get("/assets")
async def assets(
    services: S,
    kind: str | None = None,
    cabinet: str | None = None,
    cursor: str = "",
    limit: Limit = 500,
) -> dict[str, Any]:
    """Assets by id, page by page: ask again with `cursor` until it is null."""
    rows = await asyncio.to_thread(
        services.registry.asset_page, kind, cabinet, cursor, limit + 1
    )
    more = len(rows) > limit
    items = [asset._asdict() for asset in rows[:limit]]
    return {"items": items, "cursor": items[-1]["id"] if more else None}


@router.get("/readings/{kind}/{device}")
async def readings(
    kind: str,
    device: str,
    services: S,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    cursor: str | None = None,
    limit: Limit = 1000,
) -> dict[str, Any]:
    """Readings of a device, oldest first; the last hour when no span is given."""
    if kind not in KINDS:
        raise NotFound(f"no kind {kind!r}; there are {', '.join(KINDS)}")
    end = to_ms(until) if until else services.now_ms() + 1
    start = to_ms(since) if since else end - 3_600_000
    if cursor is not None:
        _checked_time(cursor)
    page = await asyncio.to_thread(
        services.readings.window, kind, device, start, end, cursor, limit
    )
    items = [row | {"ts": iso(ms_of(row["ts"]))} for row in page.rows]
    return {"items": items, "cursor": page.cursor}


@router.get("/rain")
async def rain(
    services: S,
    hours: Annotated[float, Query(gt=0, le=24 * 31)] = 3,
    bin_minutes: Annotated[int, Query(ge=1, le=1440)] = 5,
) -> dict[str, Any]:
    """Rain of every gauge in bins [mm]; a bin without an entry had none."""
    now = services.now_ms()
    width = bin_minutes * 60_000
    start = (now - round(hours * 3_600_000)) // width * width
    rows = await asyncio.to_thread(
        services.readings.rain, start, now + 1, width // 1000
    )
    gauges: dict[str, list[list[float]]] = {gauge: [] for gauge in services.live.rain}
    for row in rows:
        gauges.setdefault(row["device"], []).append(
            [ms_of(row["start"]), row["rain_mm"]]
        )
    ages = {gauge: services.live.age_ms(gauge, now) for gauge in gauges}
    return {
        "start": start,
        "end": now,
        "bin_ms": width,
        "gauges": gauges,
        "age_ms": ages,
    }


@router.get("/quarantine")
async def quarantine(
    services: S, cursor: str | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """What was refused, newest first: reason and bytes."""
    if cursor is not None and not cursor.isdigit():
        raise Invalid(f"{cursor!r} is no cursor")
    page = await asyncio.to_thread(services.readings.quarantine, cursor, limit)
    items = [
        row
        | {
            "received": iso(ms_of(row["received"])),
            "raw": bytes(row["raw"]).decode(errors="backslashreplace"),
        }
        for row in page.rows
    ]
    return {"items": items, "cursor": page.cursor}


@router.get("/audit")
async def audit(
    services: S, cursor: int | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """Who did what, newest first."""
    rows = await asyncio.to_thread(services.registry.audit_page, cursor, limit + 1)
    more = len(rows) > limit
    items = [row | {"at": iso(row["ts"])} for row in rows[:limit]]
    return {"items": items, "cursor": items[-1]["id"] if more else None}


def _checked_time(text: str) -> None:
    try:
        dt.datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{text!r} is no cursor") from None
