"""Assets in and out, what was refused and its replay, the audit log, backups."""

import asyncio
import csv
import datetime as dt
import io
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from duha_backend import assets as files
from duha_backend import backups
from duha_backend.api.bodies import uploaded
from duha_backend.api.fields import Body, Number, PathId
from duha_backend.api.masks import text_without_secrets
from duha_backend.api.services import (
    PREFIX,
    SIGNED_IN,
    Limit,
    S,
    Services,
    Who,
    encoded,
    iso,
    needs,
    record,
)
from duha_backend.cells import plain_cells

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)
Shown = Annotated[str | None, Query(max_length=200)]
MOST_AUDIT = 100_000
_AUDIT = ("at", "who", "source", "action", "target", "detail", "before", "after", "why")


class ReplayIn(Body):
    """Which refused things are examined once more."""

    ids: list[Number] = Field(min_length=1, max_length=10_000)


@router.get("/assets")
async def assets(
    services: S,
    kind: Shown = None,
    cabinet: Shown = None,
    cursor: Annotated[str, Query(max_length=200)] = "",
    limit: Limit = 500,
) -> dict[str, Any]:
    """Assets by id, page by page: ask again with `cursor` until it is null."""
    rows = await asyncio.to_thread(
        services.registry.asset_page, kind, cabinet, cursor, limit + 1
    )
    more = len(rows) > limit
    items = [asset._asdict() for asset in rows[:limit]]
    return {"items": items, "cursor": items[-1]["id"] if more else None}


@router.get("/assets.csv", response_class=Response)
async def assets_csv(services: S) -> Response:
    """All assets as CSV, in the form that an import takes."""
    found = await asyncio.to_thread(services.registry.assets)
    text = await asyncio.to_thread(files.to_csv, found)
    return Response(text, media_type="text/csv; charset=utf-8")


@router.get("/assets.geojson", response_model=dict[str, Any])
async def assets_geojson(services: S) -> Response:
    """All assets and streets as GeoJSON, in the form that an import takes."""
    found = await asyncio.to_thread(services.registry.assets)
    streets = await asyncio.to_thread(services.registry.streets)
    made = await asyncio.to_thread(files.to_geojson, found, streets)
    return await encoded(made)


@router.post("/assets/import", dependencies=[needs("engineer")])
async def import_assets(
    request: Request,
    services: S,
    who: Who,
    dry_run: Annotated[bool, Query(description="Only say what would happen.")] = True,
    skip_bad: Annotated[bool, Query(description="Take the good rows alone.")] = False,
) -> dict[str, Any]:
    """Take assets from a CSV or GeoJSON body; each bad row is named with its reason.

    A dry run, which is what happens when nothing else is said, changes nothing. A file with
    bad rows is taken only with `skip_bad`.
    """
    registry = services.registry
    cabinets = await asyncio.to_thread(registry.assets, "cabinet")
    known = [cabinet.id for cabinet in cabinets]
    async with uploaded(request) as file, services.importing:
        raw = await asyncio.to_thread(file.read)
        parsed = await asyncio.to_thread(files.parse, raw, known)
    taken = not dry_run and (skip_bad or not parsed.problems)
    if taken:
        await asyncio.to_thread(registry.put_assets, parsed.assets, parsed.streets)
        detail = f"{len(parsed.assets)} assets, {len(parsed.problems)} bad rows"
        await record(services, who, "import", "assets", detail)
    return {
        "taken": taken,
        "assets": len(parsed.assets),
        "streets": len(parsed.streets),
        "without_control": parsed.without_control,
        "problems": [problem._asdict() for problem in parsed.problems[:1000]],
        "problem_count": len(parsed.problems),
    }


@router.delete("/assets/{name}", status_code=204, dependencies=[needs("engineer")])
async def remove_asset(name: PathId, services: S, who: Who) -> None:
    """Take an asset out of the inventory; its readings stay.

    A cabinet goes when nothing hangs on it any more.
    """
    now = services.now_ms()
    gone = await asyncio.to_thread(services.registry.drop_asset, name, now, who.name)
    before = msgspec.json.encode(gone._asdict()).decode()
    await record(services, who, "remove_asset", name, gone.kind, before=before)


@router.get("/quarantine")
async def quarantine(
    services: S,
    cursor: Number | None = None,
    controller: Shown = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """What was refused, newest first: reason and bytes."""
    rows = await asyncio.to_thread(
        services.books.quarantine, cursor, limit + 1, controller
    )
    more = len(rows) > limit
    items = [
        row
        | {
            "received": iso(row["received"]),
            "replayed": row["replayed"] and iso(row["replayed"]),
            "raw": bytes(row["raw"]).decode(errors="backslashreplace"),
        }
        for row in rows[:limit]
    ]
    return {"items": items, "cursor": items[-1]["id"] if more else None}


@router.post("/quarantine/replay", dependencies=[needs("engineer")])
async def replay(body: ReplayIn, services: S, who: Who) -> dict[str, Any]:
    """Examine refused things by the rules of now, and store what is fine."""
    found = await services.ingest.replay(body.ids)
    stored = [number for number, reason in found.items() if not reason]
    await record(services, who, "replay", "quarantine", f"{len(stored)} stored")
    refused = [{"id": n, "reason": reason} for n, reason in found.items() if reason]
    return {"stored": stored, "refused": refused}


@router.get("/audit")
async def audit(
    services: S, cursor: Number | None = None, limit: Limit = 100
) -> dict[str, Any]:
    """Who did what, newest first."""
    rows = await asyncio.to_thread(services.registry.audit_page, cursor, limit + 1)
    more = len(rows) > limit
    items = [_told(row) for row in rows[:limit]]
    return {"items": items, "cursor": items[-1]["id"] if more else None}


@router.get("/audit.csv", response_class=Response)
async def audit_csv(services: S) -> Response:
    """The audit log as CSV, newest first: its last 100,000 lines."""
    text = await asyncio.to_thread(_audit_text, services)
    return Response(text, media_type="text/csv; charset=utf-8")


def _audit_text(services: Services) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_AUDIT)
    for row in services.registry.audit_page(None, MOST_AUDIT):
        told = _told(row)
        writer.writerow(plain_cells(told[name] for name in _AUDIT))
    return out.getvalue()


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the audit log without the secrets of channels."""
    bodies = {
        name: text_without_secrets(row[name] or "") for name in ("before", "after")
    }
    return row | bodies | {"at": iso(row["ts"])}


@router.post("/backups", status_code=201, dependencies=[needs("admin")])
async def backup(services: S, who: Who) -> dict[str, Any]:
    """Copy the embedded stores, while they run, into a folder beside the data.

    409 where there is nothing to copy: servers have backups of their own.
    """
    begun = dt.datetime.fromtimestamp(services.real_ms() / 1000, dt.UTC)
    async with services.backing_up:
        folder, made = await backups.make(
            services.data / "backups",
            begun,
            (
                services.readings.backup,
                lambda to: asyncio.to_thread(services.registry.backup, to),
            ),
        )
    await record(services, who, "backup", str(folder), "")
    return {"folder": str(folder), "files": made}
