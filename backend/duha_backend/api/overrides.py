"""Levels by hand, and what programmes answer to."""

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Response
from pydantic import AfterValidator, Field

from duha_backend.api.fields import Moment, PathId, StrictBody, storable
from duha_backend.api.services import (
    PREFIX,
    SIGNED_IN,
    S,
    Services,
    Who,
    iso,
    needs,
    record,
    to_ms,
)
from duha_backend.errors import Invalid
from duha_backend.lighting.board import Standing
from duha_backend.lighting.desk import next_noon
from duha_backend.lighting.wanted import Sensed, TargetKind
from duha_contract.lighting import Override

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)
OPERATOR = [needs("operator")]
HOUR_MS = 3_600_000
MOST_MINUTES = 1e7


class TargetIn(StrictBody):
    """Whom something is for."""

    kind: TargetKind
    id: Annotated[str, AfterValidator(storable)] = Field(
        "", description="Empty for the city.", examples=["RVO-001"], max_length=10_000
    )


class OverrideIn(StrictBody):
    """A level by hand. It always ends: `until`, `minutes` from its start, or next noon."""

    target: TargetIn
    level: float = Field(description="0 to 100 %", ge=0, le=100, examples=[30])
    start: Moment | None = Field(None, description="Now, without it.")
    until: Moment | None = None
    minutes: float | None = Field(None, gt=0, le=MOST_MINUTES, examples=[60])
    fade_s: float = Field(
        0, ge=0, le=3600, description="How long it takes to get there."
    )
    reason: str = Field("", max_length=200, examples=["festival"])
    emergency: bool = False


class EmergencyIn(StrictBody):
    """Full light, before everything else."""

    target: TargetIn = TargetIn(kind="city", id="")
    minutes: float | None = Field(
        None, gt=0, le=MOST_MINUTES, description="Until next noon, without it."
    )
    reason: str = Field(
        min_length=1, max_length=200, examples=["accident on the bridge"]
    )


class SensedIn(StrictBody):
    """An adaptive input: traffic or motion that was sensed; it ends unless sent again."""

    kind: Literal["traffic", "motion"]
    target: TargetIn
    hold_s: float = Field(
        gt=0, le=3600, description="How long it holds.", examples=[120]
    )
    neighbours_m: float = Field(
        0, ge=0, le=500, description="Luminaires so near to the target answer too."
    )
    detail: str = Field("", max_length=100, examples=["detector D-17"])


@router.get("/overrides", response_model=list[dict[str, Any]])
async def overrides(services: S) -> Response:
    """Overrides of the last day, newest first, each with how far it has got.

    The number `overrides` in each event of ``/events`` grows when one has got further.
    """
    services.control.overrides.look()  # what has been reported since the last tick
    body = await asyncio.to_thread(_encoded, services)
    return Response(body, media_type="application/json")


def _encoded(services: Services) -> bytes:
    now = services.now_ms()
    board = services.control.overrides
    return msgspec.json.encode([_out(found, now) for found in board.newest_first()])


@router.post("/overrides", status_code=201, dependencies=OPERATOR)
async def add_override(body: OverrideIn, services: S, who: Who) -> dict[str, Any]:
    """Give luminaires a level until a time."""
    if body.until is not None and body.minutes is not None:
        raise Invalid(
            "say 'until' or 'minutes', not both; without them next noon ends it"
        )
    start = to_ms(body.start) if body.start else services.now_ms()
    override = Override(
        id="", level=body.level, start=start, end=_end(body, start, services),
        reason=body.reason, who=who.name, emergency=body.emergency, fade_s=body.fade_s,
    )  # fmt: skip
    return await _add(services, who, body.target, override)


@router.post("/emergency", status_code=201, dependencies=OPERATOR)
async def emergency(body: EmergencyIn, services: S, who: Who) -> dict[str, Any]:
    """Full light at once, for the city or a part of it; ends like any override."""
    start = services.now_ms()
    end = (
        start + round(body.minutes * 60_000)
        if body.minutes
        else next_noon(services.desk.place, start)
    )
    override = Override("", 100.0, start, end, body.reason, who.name, emergency=True)
    return await _add(services, who, body.target, override)


@router.delete("/overrides/{name}", status_code=204, dependencies=OPERATOR)
async def cancel_override(name: PathId, services: S, who: Who) -> None:
    """End an override now."""
    await asyncio.to_thread(services.registry.cancel_override, name, services.now_ms())
    await record(services, who, "cancel_override", name, "")
    services.control.touch()
    await services.control.settle()
    await services.control.overrides.refresh()


@router.post("/inputs", status_code=204, dependencies=OPERATOR)
async def sense(body: SensedIn, services: S, who: Who) -> None:
    """Take traffic or motion that something outside has sensed."""
    now = services.now_ms()
    kind, target = body.target.kind, body.target.id
    if body.neighbours_m:
        near = await asyncio.to_thread(
            services.desk.near, kind, target, body.neighbours_m
        )
        kind, target = "luminaire", ",".join(near)
    end = now + round(body.hold_s * 1000)
    given = Sensed(body.kind, kind, target, now, end, body.detail, who.name)
    await asyncio.to_thread(services.desk.sense, given)
    await services.control.settle()


async def _add(
    services: Services, who: Who, target: TargetIn, override: Override
) -> dict[str, Any]:
    stored = await asyncio.to_thread(
        services.desk.add_override, target.kind, target.id, override
    )
    detail = f"{override.level:g} % until {iso(override.end)}"
    action = "emergency" if override.emergency else "override"
    await record(
        services, who, action, f"{target.kind} {target.id}".strip(), detail,
        why=override.reason,
    )  # fmt: skip
    await services.control.settle()
    board = services.control.overrides
    await board.refresh()
    standing = board.find(stored.override.id)
    return {} if standing is None else _out(standing, services.now_ms())


def _end(body: OverrideIn, start: int, services: Services) -> int:
    if body.until is not None:
        return to_ms(body.until)
    if body.minutes is not None:
        return start + round(body.minutes * 60_000)
    return next_noon(services.desk.place, start)


def _out(standing: Standing, now: int) -> dict[str, Any]:
    """An override, whom it reaches, and how far it has got."""
    stored, override = standing.stored, standing.stored.override
    return {
        "id": override.id,
        "target": {"kind": stored.target_kind, "id": stored.target},
        "level": override.level,
        "start": iso(override.start),
        "end": iso(override.end),
        "fade_s": override.fade_s,
        "reason": override.reason,
        "who": override.who,
        "emergency": override.emergency,
        "state": standing.state,
        "luminaires": standing.luminaires,
        "without_control": standing.without_control,
        "cabinets": sorted(standing.reached),
        "pending": sorted(standing.pending) if standing.state == "pending" else [],
        "diverged": [
            {"id": name, "cabinet": cabinet, "age_s": (now - since) / 1000}
            for cabinet, mine in sorted(standing.diverged.items())
            for name, since in mine.items()
        ],
        "below_class": standing.below_class,
    }
