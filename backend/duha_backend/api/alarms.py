"""Alarms: seen, acknowledged, shelved, assigned; and who has been told."""

import asyncio
import csv
import io
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from duha_backend.alarms.kinds import KINDS, Severity
from duha_backend.api.fields import Moment, Number, StrictBody
from duha_backend.api.services import (
    PREFIX,
    SIGNED_IN,
    Limit,
    S,
    Who,
    iso,
    needs,
    record,
    to_ms,
)
from duha_backend.cells import plain_cell
from duha_backend.errors import Invalid

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)
OPERATOR = [needs("operator")]
Shown = Annotated[str | None, Query(max_length=200)]
_TIMES = ("raised", "cleared", "acknowledged", "shelved_until")
_ORDER = (
    "id", "severity", "code", "object", "cabinet", "street", "pole", "asset_id",
    "latitude", "longitude", "raised", "detail", "affected", "assigned", "state",
    "comment",
)  # fmt: skip


class IdsIn(StrictBody):
    """Which alarms."""

    ids: list[Number] = Field(min_length=1, max_length=10_000)


class SeenIn(IdsIn):
    """What somebody says who has seen them."""

    comment: str = Field("", max_length=200, examples=["crew is on its way"])


class ShelveIn(IdsIn):
    """Until when, and why: one of `until` and `hours`."""

    until: Moment | None = None
    hours: float | None = Field(None, gt=0, le=24 * 366, examples=[48])
    reason: str = Field(min_length=1, max_length=200, examples=["waiting for a driver"])


class AssignIn(IdsIn):
    """Who looks after them; empty for nobody."""

    to: str = Field(max_length=100, examples=["crew 2"])


@router.get("/alarms")
async def alarms(
    services: S,
    everything: bool = False,
    shelved: bool = False,
    cabinet: Shown = None,
    thing: Annotated[Shown, Query(alias="object")] = None,
    severity: Severity | None = None,
    cursor: Number | None = None,
    limit: Limit = 500,
) -> dict[str, Any]:
    """Alarms that want somebody, newest first; `everything` for the whole book.

    `shelved` for those that are put aside now.
    """
    rows = await asyncio.to_thread(
        services.alarms.book.page, services.now_ms(),
        everything=everything or shelved, before=cursor, limit=limit + 1, cabinet=cabinet,
        thing=thing, severity=severity, shelved=shelved,
    )  # fmt: skip
    more = len(rows) > limit
    items = [_out(row) for row in rows[:limit]]
    return {"items": items, "cursor": items[-1]["id"] if more else None}


@router.get("/alarms/kinds")
async def kinds() -> list[dict[str, Any]]:
    """Every alarm that there is: how much it matters, and after how long it is raised."""
    return [kind._asdict() for kind in KINDS.values()]


@router.get("/alarms/orders.csv", response_class=Response)
async def work_orders(services: S) -> Response:
    """What stands now, with places, as CSV for whoever goes out."""
    rows = await asyncio.to_thread(
        services.alarms.book.page, services.now_ms(), limit=100_000
    )
    out = io.StringIO()
    writer = csv.DictWriter(out, _ORDER, extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        if row["cleared"] is None:
            asset = services.live.assets.get(row["object"])
            place = asset._asdict() if asset else {}
            order = place | _out(row)
            writer.writerow({name: plain_cell(cell) for name, cell in order.items()})
    return Response(out.getvalue(), media_type="text/csv; charset=utf-8")


@router.post("/alarms/acknowledge", dependencies=OPERATOR)
async def acknowledge(body: SeenIn, services: S, who: Who) -> dict[str, int]:
    """Say that somebody has seen them."""
    book, now, comment = services.alarms.book, services.now_ms(), body.comment.strip()
    made = await asyncio.to_thread(book.acknowledge, body.ids, who.name, now, comment)
    await record(services, who, "acknowledge", _named(body.ids), comment)
    return {"acknowledged": made}


@router.post("/alarms/shelve", status_code=204, dependencies=OPERATOR)
async def shelve(body: ShelveIn, services: S, who: Who) -> None:
    """Put alarms aside until a time, with a reason."""
    if (body.until is None) == (body.hours is None):
        raise Invalid("say either 'until' or 'hours': nothing is shelved for ever")
    now = services.now_ms()
    until = to_ms(body.until) if body.until else now + round((body.hours or 0) * 3.6e6)
    book = services.alarms.book
    await asyncio.to_thread(book.shelve, body.ids, who.name, now, until, body.reason)
    await record(
        services,
        who,
        "shelve",
        _named(body.ids),
        f"until {iso(until)}",
        why=body.reason,
    )


@router.post("/alarms/unshelve", status_code=204, dependencies=OPERATOR)
async def unshelve(body: IdsIn, services: S, who: Who) -> None:
    """Take alarms from the shelf."""
    await asyncio.to_thread(services.alarms.book.unshelve, body.ids)
    await record(services, who, "unshelve", _named(body.ids), "")


@router.post("/alarms/assign", status_code=204, dependencies=OPERATOR)
async def assign(body: AssignIn, services: S, who: Who) -> None:
    """Say who looks after alarms."""
    await asyncio.to_thread(services.alarms.book.assign, body.ids, body.to)
    await record(services, who, "assign_alarm", _named(body.ids), body.to)


@router.get("/deliveries")
async def deliveries(
    services: S, alarm: Number | None = None, limit: Limit = 200
) -> list[dict[str, Any]]:
    """Who has been told of what, newest first, and how it went."""
    rows = await asyncio.to_thread(services.alarms.deliveries.log, alarm, limit)
    return [row | {"ts": iso(row["ts"])} for row in rows]


def _named(ids: list[int]) -> str:
    shown = ", ".join(str(number) for number in ids[:20])
    return shown if len(ids) <= 20 else f"{shown} and {len(ids) - 20} more"


def _out(row: dict[str, Any]) -> dict[str, Any]:
    times = {n: None if row[n] is None else iso(row[n]) for n in _TIMES}
    return row | times
