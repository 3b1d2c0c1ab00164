"""Levels by hand, and what programmes answer to."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter
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
from duha_backend.lighting.desk import next_noon
from duha_backend.lighting.inventory import Asset
from duha_backend.lighting.wanted import Sensed, StoredOverride, TargetKind, Wanted
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


@router.get("/overrides")
async def overrides(services: S) -> list[dict[str, Any]]:
    """Overrides of the last day, newest first, each with how far it has got."""
    since = services.now_ms() - 24 * HOUR_MS
    found = await asyncio.to_thread(services.registry.overrides, since)
    wanted = await asyncio.to_thread(services.desk.wanted)
    return [_override_out(services, stored, wanted) for stored in found]


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


@router.post("/inputs", status_code=204, dependencies=OPERATOR)
async def sense(body: SensedIn, services: S, who: Who) -> None:
    """Take traffic or motion that something outside has sensed."""
    now = services.now_ms()
    kind, target = body.target.kind, body.target.id
    if body.neighbours_m:
        near = services.desk.near(kind, target, body.neighbours_m)
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
    wanted = await asyncio.to_thread(services.desk.wanted)
    return _override_out(services, stored, wanted)


def _end(body: OverrideIn, start: int, services: Services) -> int:
    if body.until is not None:
        return to_ms(body.until)
    if body.minutes is not None:
        return start + round(body.minutes * 60_000)
    return next_noon(services.desk.place, start)


def _override_out(
    services: Services, stored: StoredOverride, wanted: Wanted
) -> dict[str, Any]:
    override, control, desk = stored.override, services.control, services.desk
    members = desk.members(stored.target_kind, stored.target)
    diverged = control.diverged(members)
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
        "state": control.state_of(stored),
        "luminaires": len(members),
        "cabinets": sorted({asset.cabinet for asset in members}),
        "pending": control.pending(stored, members),
        "diverged": [_diverged(services, name) for name in diverged],
        "below_class": desk.below_class(override.level, members, wanted),
    }


def _diverged(services: Services, name: str) -> dict[str, Any]:
    """A luminaire that does not do what was asked, and since when."""
    since = services.live.diverged_since(name)
    asset: Asset = services.live.assets[name]
    age = None if since is None else (services.now_ms() - since) / 1000
    return {"id": name, "cabinet": asset.cabinet, "age_s": age}
