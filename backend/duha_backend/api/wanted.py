"""What is wanted: overrides, programmes, calendars, assignments, groups."""

import asyncio
import datetime as dt
from typing import Any, Literal, TypeVar

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, Field

from duha_backend.api.services import (
    PREFIX,
    SIGNED_IN,
    S,
    Services,
    Who,
    iso,
    record,
    to_ms,
)
from duha_backend.control import TargetKind
from duha_backend.errors import Invalid
from duha_backend.registry import Group, StoredOverride
from duha_contract.lighting import Calendar, Override, Programme

T = TypeVar("T")
router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)


class TargetIn(BaseModel):
    """Whom an override is for."""

    kind: TargetKind
    id: str = Field("", description="Empty for the city.")


class OverrideIn(BaseModel):
    """A level by hand. It always ends: `until`, or `minutes` from now."""

    target: TargetIn
    level: float = Field(description="0 to 100 %", ge=0, le=100)
    until: dt.datetime | None = None
    minutes: float | None = Field(None, gt=0)
    reason: str = Field("", max_length=200)
    emergency: bool = False


class StepIn(BaseModel):
    """One step of a programme."""

    at: str = Field(description="22:30, sunset-10 or sunrise+5", examples=["sunset"])
    level: float = Field(ge=0, le=100)
    fade_s: float = Field(0, ge=0, le=3600)


class ProgrammeIn(BaseModel):
    """A programme of one night."""

    name: str
    steps: list[StepIn] = Field(min_length=1, max_length=50)
    wet_level: float | None = Field(None, ge=0, le=100)


class CalendarIn(BaseModel):
    """Which programme for which night."""

    name: str
    default: str
    rules: list[dict[str, Any]] = []


class AssignmentIn(BaseModel):
    """The calendar of a target; null takes it away."""

    calendar: str | None


class GroupIn(BaseModel):
    """A named list of luminaires."""

    name: str
    members: list[str] = Field(max_length=100_000)


@router.get("/overrides")
async def overrides(services: S) -> list[dict[str, Any]]:
    """Overrides of the last day, newest first, each with how far it has got."""
    since = services.now_ms() - 24 * 3_600_000
    found = await asyncio.to_thread(services.registry.overrides, since)
    return [_override_out(services, stored) for stored in found]


@router.post("/overrides", status_code=201)
async def add_override(body: OverrideIn, services: S, who: Who) -> dict[str, Any]:
    """Give a luminaire, street, group, cabinet or the city a level until a time."""
    now = services.now_ms()
    if (body.until is None) == (body.minutes is None):
        raise Invalid("say either 'until' or 'minutes': an override always ends")
    end = to_ms(body.until) if body.until else now + round((body.minutes or 0) * 60_000)
    override = Override(
        id="", level=body.level, start=now, end=end, reason=body.reason, who=who,
        emergency=body.emergency,
    )  # fmt: skip
    target = body.target
    stored = await asyncio.to_thread(
        services.control.add_override, target.kind, target.id, override
    )
    detail = f"{body.level:g} % until {iso(end)}: {body.reason}"
    await record(services, who, "override", f"{target.kind} {target.id}", detail)
    await services.control.settle()
    return _override_out(services, stored)


@router.delete("/overrides/{name}", status_code=204)
async def cancel_override(name: str, services: S, who: Who) -> None:
    """End an override now."""
    await asyncio.to_thread(services.registry.cancel_override, name, services.now_ms())
    await record(services, who, "cancel_override", name, "")
    services.control.touch()
    await services.control.settle()


@router.get("/programmes")
async def programmes(services: S) -> list[dict[str, Any]]:
    """All programmes."""
    found = await asyncio.to_thread(services.registry.programmes)
    return [msgspec.to_builtins(programme) for programme in found]


@router.put("/programmes/{name}")
async def put_programme(
    name: str, body: ProgrammeIn, services: S, who: Who
) -> dict[str, Any]:
    """Store a programme; one that cannot be evaluated is refused."""
    programme = _converted({"id": name, **body.model_dump()}, Programme)
    await asyncio.to_thread(services.control.save_programme, programme)
    await record(services, who, "programme", name, body.name)
    await services.control.settle()
    return body.model_dump()


@router.get("/calendars")
async def calendars(services: S) -> list[dict[str, Any]]:
    """All calendars."""
    found = await asyncio.to_thread(services.registry.calendars)
    return [msgspec.to_builtins(calendar) for calendar in found]


@router.put("/calendars/{name}")
async def put_calendar(
    name: str, body: CalendarIn, services: S, who: Who
) -> dict[str, Any]:
    """Store a calendar; the programmes that it names must be there."""
    calendar = _converted({"id": name, **body.model_dump()}, Calendar)
    await asyncio.to_thread(services.control.save_calendar, calendar)
    await record(services, who, "calendar", name, body.name)
    await services.control.settle()
    return body.model_dump()


@router.get("/assignments")
async def assignments(services: S) -> dict[str, str]:
    """Calendar by luminaire, cabinet or "*"."""
    return await asyncio.to_thread(services.registry.assignments)


@router.put("/assignments/{target}")
async def put_assignment(
    target: str, body: AssignmentIn, services: S, who: Who
) -> dict[str, str | None]:
    """Assign a calendar to a luminaire, a cabinet or "*", the whole city."""
    await asyncio.to_thread(services.control.assign, target, body.calendar)
    await record(services, who, "assign", target, body.calendar or "none")
    await services.control.settle()
    return {"target": target, "calendar": body.calendar}


@router.get("/groups")
async def groups(services: S) -> list[dict[str, Any]]:
    """All groups."""
    found = await asyncio.to_thread(services.registry.groups)
    return [msgspec.to_builtins(group) for group in found]


@router.put("/groups/{name}")
async def put_group(name: str, body: GroupIn, services: S, who: Who) -> dict[str, Any]:
    """Store a group of luminaires."""
    group = Group(name, body.name, tuple(body.members))
    await asyncio.to_thread(services.control.save_group, group)
    await record(services, who, "group", name, f"{len(body.members)} luminaires")
    await services.control.settle()
    return msgspec.to_builtins(group)  # type: ignore[no-any-return]


def _override_out(services: Services, stored: StoredOverride) -> dict[str, Any]:
    override = stored.override
    kind: Literal["luminaire", "street", "group", "cabinet", "city"]
    kind = stored.target_kind  # type: ignore[assignment]
    members = services.control.members(kind, stored.target)
    return {
        "id": override.id,
        "target": {"kind": kind, "id": stored.target},
        "level": override.level,
        "start": iso(override.start),
        "end": iso(override.end),
        "reason": override.reason,
        "who": override.who,
        "emergency": override.emergency,
        "state": services.control.state_of(stored),
        "luminaires": len(members),
        "diverged": services.control.diverged(members),
    }


def _converted(raw: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from None
