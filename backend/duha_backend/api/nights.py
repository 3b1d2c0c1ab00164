"""What nights will be like, what they cost, and why a lamp is as it is."""

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from pydantic import Field

from duha_backend.api.documents import ProgrammeIn
from duha_backend.api.fields import Day, Id, Moment, PathId, StrictBody
from duha_backend.api.overrides import TargetIn
from duha_backend.api.plans import PlanIn
from duha_backend.api.services import PREFIX, SIGNED_IN, S, iso, to_ms
from duha_backend.errors import Invalid, NotFound
from duha_backend.lighting.inventory import LuminaireType
from duha_backend.lighting.preview import Course, Night, Preview, preview
from duha_backend.lighting.tariff import Tariff
from duha_contract.programmes import Calendar, Programme, date_of

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)


class PreviewIn(StrictBody):
    """Whose nights, and under which calendar or programme, if not the one they have."""

    target: TargetIn
    calendar: Id | None = Field(None, description="As if this one were assigned.")
    programme: ProgrammeIn | None = Field(
        None, description="As if every night were so."
    )
    plan: PlanIn | None = Field(None, description="As if this had been published.")
    first: Day | None = Field(None, description="Tonight, without it.")
    nights: int = Field(7, ge=1, le=31)


@router.post("/preview")
async def preview_nights(body: PreviewIn, services: S) -> dict[str, Any]:
    """Tonight and the nights to come as curves, with energy, cost and CO2."""
    found, tariff = await asyncio.to_thread(_preview, services, body)
    return _preview_out(found, tariff)


@router.get("/luminaires/{device}/explain")
async def explain(
    device: PathId,
    services: S,
    at: Annotated[Moment | None, Query(description="Past or future; now.")] = None,
) -> dict[str, Any]:
    """Level of a luminaire at an instant, and the chain of reasons."""
    if device not in services.live.index:
        raise NotFound(f"no luminaire {device!r}")
    now = services.now_ms()
    t = to_ms(at) if at is not None else now
    decision = await asyncio.to_thread(services.desk.explain, device, t)
    return {
        "id": device,
        "at": iso(t),
        "level": decision.level,
        "reason": msgspec.to_builtins(decision.reason),
        "until": iso(round(decision.until * 1000)),
    }


@router.get("/calendars/{name}/check")
async def check_calendar(name: PathId, services: S) -> list[dict[str, Any]]:
    """Why a calendar may not be in force where it is assigned; nothing when it may."""
    wanted = await asyncio.to_thread(services.desk.wanted)
    if name not in wanted.calendars:
        raise NotFound(f"no calendar {name!r}")
    found = await asyncio.to_thread(
        services.desk.refusals, wanted, wanted.calendars[name]
    )
    return [refusal.told() for refusal in found]


def _preview(services: S, body: PreviewIn) -> tuple[Preview, Tariff]:
    desk, registry = services.desk, services.registry
    lamps = desk.members(body.target.kind, body.target.id)
    if not lamps:
        raise NotFound(f"no luminaire in {body.target.kind} {body.target.id!r}")
    if sum(one is not None for one in (body.calendar, body.programme, body.plan)) > 1:
        raise Invalid("preview a calendar, a programme or a plan, not two of them")
    now = desk.wanted()
    proposed = now
    if body.plan is not None:
        proposed = desk.with_plan(body.plan.documents())
    elif body.programme is not None:
        raw = {"id": "preview", **body.programme.model_dump(mode="json")}
        programme = msgspec.convert(raw, Programme)
        calendar = Calendar("preview", "", "preview")
        proposed = now._replace(
            programmes={**now.programmes, "preview": programme},
            calendars={**now.calendars, "preview": calendar},
            assignments={asset.id: "preview" for asset in lamps},
        )
    elif body.calendar is not None:
        if body.calendar not in now.calendars:
            raise NotFound(f"no calendar {body.calendar!r}")
        proposed = now._replace(
            assignments={asset.id: body.calendar for asset in lamps}
        )
    types = {kind.id: kind for kind in registry.all(LuminaireType)}
    tariff = registry.find(Tariff, "energy") or Tariff()
    t = services.now_ms()
    first = body.first or date_of(desk.place, t / 1000)
    standing = desk.standing(t)
    found = preview(
        lamps, proposed, now, standing, types, tariff, desk.sun, first, body.nights
    )
    return found, tariff


def _preview_out(found: Preview, tariff: Tariff) -> dict[str, Any]:
    return {
        "start": iso(round(found.start * 1000)),
        "step_s": found.step_s,
        "courses": [_course_out(course) for course in found.courses],
        "nights": [_night_out(night) for night in found.nights],
        "calendars": found.programmes,
        "affected": found.affected,
        "total": _costs(found.nights, tariff),
        "without_type": found.without_type,
    }


def _course_out(course: Course) -> dict[str, Any]:
    return {
        "calendar": course.told.calendar,
        "overrides": [override.id for override in course.told.overrides],
        "luminaires": course.luminaires,
        "level": course.level.round(1).tolist(),
    }


def _night_out(night: Night) -> dict[str, Any]:
    sun = {
        name: None if t is None else iso(round(t * 1000))
        for name, t in (("sunset", night.sunset), ("sunrise", night.sunrise))
    }
    energy = {
        name: round(getattr(night, name), 3)
        for name in ("kwh", "now_kwh", "baseline_kwh")
    }
    return {"date": night.date.isoformat(), **sun, **energy}


def _costs(nights: list[Night], tariff: Tariff) -> dict[str, Any]:
    """Energy, money and CO2 of all nights; null where nobody has said what it costs."""
    out: dict[str, Any] = {"currency": tariff.currency, "source": tariff.source}
    for name in ("kwh", "now_kwh", "baseline_kwh"):
        kwh = sum(getattr(night, name) for night in nights)
        prefix = name.removesuffix("kwh")
        price, co2 = tariff.price_per_kwh, tariff.co2_kg_per_kwh
        out[name] = round(kwh, 3)
        out[f"{prefix}cost"] = None if price is None else round(kwh * price, 2)
        out[f"{prefix}co2_kg"] = None if co2 is None else round(kwh * co2, 3)
    return out
