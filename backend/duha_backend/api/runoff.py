"""What becomes of rain: sizing of what keeps it, with the calculation shown."""

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from duha_backend.api.fields import Id, StrictBody
from duha_backend.api.services import PREFIX, SIGNED_IN, S, iso
from duha_backend.errors import NotFound
from duha_backend.rain.events import DesignRain
from duha_backend.readings import rows_of
from duha_backend.runoff.catchments import Catchment
from duha_backend.runoff.sizing import Surface, coefficient, size

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)
HOUR_MS = 3_600_000


class SurfaceIn(StrictBody):
    """A part of what drains: a kind with its slope, or a coefficient."""

    name: str = "surface"
    area_m2: float = Field(gt=0, le=1e9, examples=[250])
    kind: str = Field("", examples=["roof"])
    slope_pct: float = Field(1, ge=0, le=1000)
    coefficient: float | None = Field(None, ge=0, le=1)


class SizingIn(StrictBody):
    """A device for retention or infiltration."""

    surfaces: list[SurfaceIn] = Field(min_length=1, max_length=200)
    table: Id = Field(description="Id of a design rain table.", examples=["city"])
    period_a: float = Field(
        5, gt=0, le=10_000, description="5 as a rule, 10 where harm is near."
    )
    infiltrating_m2: float = Field(0, ge=0, le=1e9, examples=[16])
    conductivity_m_s: float = Field(0, ge=0, le=1, examples=[5e-6])
    outflow_l_s: float = Field(0, ge=0, le=1e9)


@router.post("/sizing")
async def sizing(body: SizingIn, services: S) -> dict[str, Any]:
    """Volume, emptying time and throttle, with every duration of the calculation.

    After ČSN 75 9010 (infiltration) and TNV 75 9011 (throttle), over the city's own table of
    design rain.
    """
    table = await asyncio.to_thread(services.registry.find, DesignRain, body.table)
    if table is None:
        raise NotFound(f"no design rain table {body.table!r}")
    surfaces = tuple(
        Surface(
            surface.name,
            surface.area_m2,
            coefficient(surface.kind, surface.slope_pct)
            if surface.coefficient is None
            else surface.coefficient,
        )
        for surface in body.surfaces
    )
    found = size(
        surfaces, table.idf, body.period_a, body.infiltrating_m2, body.conductivity_m_s,
        body.outflow_l_s,
    )  # fmt: skip
    trials = [trial._asdict() for trial in found.trials]
    return found._asdict() | {"trials": trials, "source": table.source}


@router.get("/runoff")
async def loads(services: S) -> list[dict[str, Any]]:
    """What runs off every catchment now, by the model that is always on [L/s], [L/s/ha].

    `at` and what follows from it are null where nothing has been worked out for an hour.
    """
    known = await asyncio.to_thread(services.registry.all, Catchment)
    rows = rows_of(
        await services.readings.latest("catchment", services.now_ms() - HOUR_MS)
    )
    newest = {row["device"]: row for row in rows}
    return [_load(one, newest.get(one.id)) for one in known]


def _load(one: Catchment, row: dict[str, Any] | None) -> dict[str, Any]:
    flow = row["runoff_l_s"] if row else None
    return {
        "id": one.id, "name": one.name, "latitude": one.latitude,
        "longitude": one.longitude, "area_ha": one.area_ha, "outline": one.outline,
        "at": iso(row["ts"]) if row else None,
        "runoff_l_s": flow,
        "load_l_s_ha": None if flow is None else flow / one.area_ha,
    }  # fmt: skip
