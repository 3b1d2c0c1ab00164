"""Energy of nights that are over: sums, gaps, indicators; on screen and on paper."""

import asyncio
import csv
import datetime as dt
import io
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Response

from duha_backend.api.fields import Day
from duha_backend.api.services import PREFIX, SIGNED_IN, S, Who, needs, record
from duha_backend.cells import plain_cells
from duha_backend.energy import paper
from duha_backend.energy.book import ENOUGH, Every, Line, Part
from duha_backend.energy.indicators import indicators
from duha_backend.errors import Invalid
from duha_backend.lighting.inventory import LuminaireType, Stretch

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)
Since = Annotated[Day | None, Query(description="First night; a year ago.")]
Until = Annotated[Day | None, Query(description="The night after the last one.")]
Only = Annotated[str, Query(description="One district or cabinet.", max_length=200)]


@router.get("/energy")
async def energy(
    services: S, since: Since = None, until: Until = None, every: Every = "month",
    part: Part = "city", only: Only = "", language: Literal["cs", "en"] = "en",
) -> dict[str, Any]:  # fmt: skip
    """Energy used, baseline and saving, by period and part of the city.

    Of what was read: `covered` is its share, `unknown_high_kwh` the most that the rest has
    taken, `saved_uncertainty_kwh` the uncertainty of the saving.
    """
    first, last = _span(services, since, until)
    lines, terms = await _report(services, first, last, every, part, only)
    return {
        "since": first.isoformat(),
        "until": last.isoformat(),
        "lines": [line._asdict() for line in lines],
        "terms": terms,
        "method": paper.method(lines, language),
    }


@router.get("/energy.csv", response_class=Response)
async def energy_csv(
    services: S, since: Since = None, until: Until = None, every: Every = "month",
    part: Part = "city", only: Only = "",
) -> Response:  # fmt: skip
    """The same as CSV."""
    lines, _ = await _report(
        services, *_span(services, since, until), every, part, only
    )
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(Line._fields)
    writer.writerows(plain_cells(line) for line in lines)
    return Response(out.getvalue(), media_type="text/csv; charset=utf-8")


@router.get("/energy.pdf", response_class=Response)
async def energy_pdf(
    services: S, since: Since = None, until: Until = None, every: Every = "month",
    part: Part = "city", only: Only = "", language: Literal["cs", "en"] = "cs",
) -> Response:  # fmt: skip
    """The same as a report on paper, with its method."""
    first, last = _span(services, since, until)
    lines, terms = await _report(services, first, last, every, part, only)
    body = await asyncio.to_thread(
        paper.report, services.name, first, last, lines, terms, language
    )
    name = f"{services.city}-energy-{first}-{last}.pdf"
    headers = {"Content-Disposition": f'inline; filename="{name}"'}
    return Response(body, media_type="application/pdf", headers=headers)


@router.get("/energy/gaps")
async def gaps(services: S, night: Day | None = None) -> list[dict[str, Any]]:
    """What meters show beyond luminaires and cabinet, beside its uncertainty (k = 2)."""
    night = night or _last_night(services)
    return await asyncio.to_thread(services.energy.book.gaps, night)


@router.get("/energy/indicators")
async def energy_indicators(services: S) -> list[dict[str, Any]]:
    """EN 13201-5: power density and annual consumption of each stretch.

    The annual consumption is of the stretch's own luminaires, from the nights of the last
    year; null where too little of those was read.
    """
    return await asyncio.to_thread(_indicators, services)


@router.post("/energy/settle", dependencies=[needs("engineer")])
async def settle(night: Day, services: S, who: Who) -> dict[str, int]:
    """Settle a night again, with the types of now and the tariff of that night."""
    if night > _last_night(services):
        raise Invalid(f"the night of {night} is not over")
    found = await services.energy.settle(night)
    await record(services, who, "settle", night.isoformat(), f"{len(found)} cabinets")
    return {"cabinets": len(found)}


async def _report(
    services: S, since: dt.date, until: dt.date, every: Every, part: Part, only: str
) -> tuple[list[Line], list[dict[str, Any]]]:
    book = services.energy.book
    lines = await asyncio.to_thread(book.report, since, until, every, part, only)
    return lines, await asyncio.to_thread(book.terms, since, until)


def _last_night(services: S) -> dt.date:
    sun = services.desk.sun
    return sun.date_of(services.now_ms() / 1000) - dt.timedelta(days=1)


def _span(
    services: S, since: dt.date | None, until: dt.date | None
) -> tuple[dt.date, dt.date]:
    last = until or _last_night(services) + dt.timedelta(days=1)
    first = since or last - dt.timedelta(days=365)
    if first >= last:
        raise Invalid("'since' is before 'until'")
    return first, last


def _indicators(services: S) -> list[dict[str, Any]]:
    types = {kind.id: kind for kind in services.registry.all(LuminaireType)}
    last = _last_night(services) + dt.timedelta(days=1)
    year = services.energy.book.stretches(last - dt.timedelta(days=365), last)
    found = []
    for stretch in services.registry.all(Stretch):
        lamps = services.desk.lamps.by("stretch").get(stretch.id, [])
        level = np.array([stretch.normal_level])
        watts = sum(
            float(types[a.type].power(level)[0]) for a in lamps if a.type in types
        )
        nights, wh, covered = year.get(stretch.id, (0, 0.0, 0.0))
        annual = wh * 365 / nights / covered if covered >= ENOUGH else None
        told = {"nights": nights, "covered": covered}
        found.append(indicators(stretch, watts, annual)._asdict() | told)
    return found
