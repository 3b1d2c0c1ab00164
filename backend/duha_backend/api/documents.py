"""Programmes, calendars, groups, stretches, types, tariff: what two people may edit.

Each answer carries an ETag; a PUT or DELETE with ``If-Match`` changes nothing when
somebody else has been there since (412). ``dry_run=true`` says what would be refused.
"""

import asyncio
import json
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from duha_backend.alarms.channels import Channel
from duha_backend.alarms.quiet import Quiet
from duha_backend.api.fields import (
    LONGEST_ID,
    Day,
    Finite,
    Id,
    PathId,
    Points,
    Size,
    StrictBody,
    Text,
    ZonedMoment,
    storable,
)
from duha_backend.api.masks import MASK, masked, without_secrets
from duha_backend.api.services import (
    PREFIX,
    SIGNED_IN,
    S,
    Services,
    Who,
    iso,
    needs,
    record,
)
from duha_backend.errors import Invalid, NotFound
from duha_backend.lighting.inventory import Group, LuminaireType, Stretch
from duha_backend.lighting.tariff import Tariff
from duha_backend.rain.events import DesignRain
from duha_backend.rain.series import GaugeCare, RainRules
from duha_backend.registry import tag
from duha_backend.runoff.catchments import Catchment
from duha_backend.runoff.watch import Watch
from duha_contract.programmes import Calendar, Programme

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)
ENGINEER = [needs("engineer")]
IfMatch = Annotated[
    str | None,
    Header(description="ETag of what is to be replaced.", max_length=200),
]
DryRun = Annotated[bool, Query(description="Only say what would be refused.")]
Percent = Annotated[float, Field(ge=0, le=100)]
At = Annotated[str, Field(max_length=32)]
Lasting = Annotated[float, Field(gt=0, le=1e6)]
Depth = Annotated[float, Field(ge=0, le=1e5)]
Target = Annotated[str, Path(min_length=1, max_length=200), AfterValidator(storable)]


class _In(StrictBody):
    """A field that is not known is a mistake, not something to pass over."""

    name: Text


class StepIn(StrictBody):
    """One step of a programme."""

    at: str = Field(
        description="22:30, sunset-10 or sunrise+5", examples=["sunset"], max_length=32
    )
    level: Percent
    fade_s: float = Field(0, ge=0, le=3600)


class PeriodIn(StrictBody):
    """An active period: outside all of them the light is off."""

    start: At = "sunset"
    end: At = "sunrise"
    early_min: float = Field(
        0, ge=0, le=180, description="A light sensor may begin so early."
    )
    late_min: float = Field(0, ge=0, le=180, description="Or so late.")


class EffectIn(StrictBody):
    """What an adaptive input does."""

    on: Literal["wet_road", "traffic", "motion"]
    level: Percent | None = Field(
        None, description="Without it the normal class level."
    )
    operation: Literal["max", "set", "min"] = "max"
    start: At = ""
    end: At = ""


class ProgrammeIn(_In):
    """A programme of one night."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "Residential streets",
                "active": [{"start": "sunset", "end": "sunrise"}],
                "steps": [
                    {"at": "sunset", "level": 100, "fade_s": 60},
                    {"at": "22:00", "level": 50, "fade_s": 120},
                    {"at": "05:00", "level": 80},
                ],
                "effects": [{"on": "wet_road"}],
            }
        },
    )
    steps: list[StepIn] = Field(min_length=1, max_length=50)
    active: list[PeriodIn] = Field([], max_length=10)
    effects: list[EffectIn] = Field([], max_length=10)
    part_night: bool = False


class RuleIn(StrictBody):
    """The nights of a programme; every condition must hold."""

    programme: Id
    first: Day | None = None
    last: Day | None = None
    yearly: bool = False
    weekdays: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] = Field(
        [], max_length=7
    )
    nth: list[Literal[1, 2, 3, 4, 5, -1]] = Field([], max_length=6)
    holidays: str = Field(
        "",
        description="Country code: its public holidays.",
        examples=["CZ"],
        max_length=16,
    )
    dates: list[Day] = Field([], max_length=1000)


class CalendarIn(_In):
    """Which programme for which night; the first rule that covers a night wins."""

    default: Id
    rules: list[RuleIn] = Field([], max_length=200)


class GroupIn(_In):
    """Luminaires by name, or by a rule over fields of the inventory."""

    # Checked without a call for each: a large group holds nobody up.
    members: list[Annotated[str, Field(max_length=LONGEST_ID)]] = Field(
        [], max_length=100_000
    )
    rule: dict[Text, Annotated[list[Text], Field(max_length=10_000)]] = Field(
        {}, examples=[{"street": ["Lipová"], "type": ["LED62"]}], max_length=20
    )


class StretchIn(_In):
    """A part of a street with its lighting class (EN 13201-2)."""

    normal: str = Field("", examples=["M4"])
    adaptive: list[Text] = Field([], examples=[["M5", "M6"]], max_length=20)
    levels: dict[Text, Percent] = Field(
        {}, examples=[{"M4": 80, "M5": 55, "M6": 40}], max_length=50
    )
    length_m: float = Field(0, ge=0, le=100_000)
    width_m: float = Field(0, ge=0, le=1000)


class TypeIn(_In):
    """A type of luminaire."""

    rated_w: float = Field(gt=0, le=100_000, examples=[62])
    standby_w: float = Field(0.5, ge=0, le=1000)
    curve: Points = Field([], examples=[[[0, 0.5], [50, 30], [100, 62]]])
    virtual_pct: float = Field(100, gt=0, le=100)
    clo: Points = Field([])
    depreciation: Points = Field([])
    lamp: str = "LED"
    driver: str = ""
    luminous_flux_lm: Size = 0
    tolerance_pct: float = Field(15, gt=0, le=1000)
    power_factor: Points = Field([])


class TariffIn(_In):
    """Price, emission factor and baseline of energy."""

    name: Text = ""
    price_per_kwh: Size | None = None
    currency: str = "CZK"
    co2_kg_per_kwh: Size | None = None
    source: str = Field("", examples=["contract 2026; Ministry of Industry and Trade"])
    baseline_w: dict[Text, Size] = Field(
        {}, examples=[{"LED62": 150}], max_length=10_000
    )
    cabinet_w: Size = 0
    reactive_share: float = Field(0, ge=0, le=5)


class QuietIn(_In):
    """When nothing is expected of cabinets that are switched off by day."""

    name: Text = ""
    cabinets: list[Id] = Field([], description="None named: all.", max_length=10_000)
    start: At = "sunrise"
    end: At = "sunset"


class ChannelIn(_In):
    """Who is told of alarms."""

    name: Text = ""
    kind: Literal["email", "webhook"]
    to: str = Field(examples=["dispatch@example.org", "https://example.org/alarms"])
    severities: list[Literal["high", "medium", "low"]] = Field(
        ["high", "medium", "low"], max_length=3
    )
    codes: list[Text] = Field([], description="None named: all.", max_length=100)
    when_over: bool = Field(False, description="Told when it is over, too.")


class DesignRainIn(_In):
    """A table of design rain; the figures here are an example and no city's."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "Example",
                "source": "example, no city's",
                "durations_min": [5, 15, 60, 1440],
                "periods_a": [2, 5, 10],
                "depth_mm": [
                    [6, 8.5, 10.2],
                    [10.1, 14.6, 17.5],
                    [14.8, 21.6, 26],
                    [33, 45, 53],
                ],
            }
        },
    )
    durations_min: list[Lasting] = Field(min_length=2, max_length=100)
    periods_a: list[Lasting] = Field(min_length=1, max_length=50)
    depth_mm: list[Annotated[list[Depth], Field(max_length=50)]] = Field(
        min_length=2, max_length=100
    )
    source: str = Field(min_length=1)


class CalibrationIn(StrictBody):
    """What a calibration of a gauge has found: points, or the time of a tip."""

    since: Day
    points: Points = Field(
        [], description="Measured and true intensity [mm/h].", examples=[[[50, 53.5]]]
    )
    tip_loss_s: float = Field(0, ge=0, le=5)
    mm_per_tip: float = Field(0.2, gt=0, le=100)
    source: str = ""


class SpellIn(StrictBody):
    """Somebody works on a gauge."""

    start: ZonedMoment
    end: ZonedMoment
    why: str = ""


class GaugeIn(_In):
    """What is known of one rain gauge; a new calibration is applied to old rain."""

    name: Text = ""
    calibrations: list[CalibrationIn] = Field([], max_length=100)
    heated: bool = False
    maintenance: list[SpellIn] = Field([], max_length=1000)


class RainRulesIn(_In):
    """How the city judges its rain; `city` is in force."""

    name: Text = ""
    thresholds: dict[Text, Finite] = Field(
        {}, examples=[{"spike_mm": 12}], max_length=100
    )
    delay_min: float = Field(3, ge=0, le=60)


class CatchmentIn(_In):
    """A part of the city that drains to one place."""

    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    area_ha: float = Field(gt=0, le=1e6, examples=[12.5])
    coefficient: float = Field(0.5, ge=0, le=1)
    curve_number: float | None = Field(None, ge=1, le=100)
    dry_h: float = Field(6, gt=0, le=1000)
    reservoirs: int = Field(2, ge=1, le=10)
    lag_min: float = Field(10, gt=0, le=10_000)
    garden_m2: float = Field(
        0, ge=0, le=1e9, description="Rain gardens and swales [m²]."
    )
    garden_share: float = Field(0.5, ge=0, le=1)
    garden_depth_m: float = Field(0.25, gt=0, le=100)
    garden_conductivity_m_s: float = Field(5e-6, ge=0, le=1)
    outline: list[tuple[Finite, Finite]] = Field([], max_length=2000)


class WatchIn(_In):
    """A place of a model with the limits of its flood stages (SPA I, II, III)."""

    model: Id
    part: Literal["node", "link"] = "node"
    object: str = Field(examples=["OVERFLOW"])
    what: Literal["depth_m", "inflow_l_s", "flooding_l_s", "flow_l_s"] = "depth_m"
    stages: list[Finite] = Field(min_length=1, max_length=3, examples=[[0.8, 1.2, 1.7]])
    latitude: float | None = Field(None, ge=-90, le=90)
    longitude: float | None = Field(None, ge=-180, le=180)


class AssignmentIn(StrictBody):
    """The calendar of a target; null takes it away."""

    calendar: Id | None


def _room(path: str, kind: type[Any], model: type[BaseModel], word: str) -> None:
    """The calls that every kind of document has."""

    @router.get(
        f"/{path}", name=f"{path}", description=f"All {path}, each with its ETag."
    )
    async def listed(services: S) -> list[dict[str, Any]]:
        found = await asyncio.to_thread(services.registry.all, kind)
        return [_shown(d) | {"etag": tag(d)} for d in found]

    @router.get(f"/{path}/{{name}}", name=word, description=f"One {word}.")
    async def one(name: PathId, services: S, response: Response) -> dict[str, Any]:
        found = await asyncio.to_thread(services.registry.find, kind, name)
        if found is None:
            raise NotFound(f"no {word} {name!r}")
        response.headers["ETag"] = f'"{tag(found)}"'
        return _shown(found)

    @router.get(
        f"/{path}/{{name}}/history", name=f"{word} history",
        description=f"Every version of a {word}, newest first.",
    )  # fmt: skip
    async def versions(name: PathId, services: S) -> list[dict[str, Any]]:
        found = await asyncio.to_thread(services.registry.history, kind, name)
        return [
            {
                "since": iso(v.since),
                "who": v.who,
                "document": v.body and without_secrets(json.loads(v.body)),
            }
            for v in found
        ]

    @router.put(
        f"/{path}/{{name}}", name=f"put {word}", dependencies=ENGINEER,
        description=f"Store a {word}. What would leave a street dark is refused.",
    )  # fmt: skip
    async def put(
        name: PathId, body: model, services: S, who: Who, response: Response,  # type: ignore[valid-type]
        if_match: IfMatch = None, dry_run: DryRun = False,
    ) -> dict[str, Any]:  # fmt: skip
        raw = {"id": name, **body.model_dump(mode="json")}  # type: ignore[attr-defined]
        before = await asyncio.to_thread(services.registry.find, kind, name)
        document = _with_secrets(converted(raw, kind), before)
        await asyncio.to_thread(
            services.desk.save, document, who.name, tag_of(if_match), dry_run=dry_run
        )
        if not dry_run:
            await note(services, who, word, name, before, document)
            await services.control.settle()
        response.headers["ETag"] = f'"{tag(document)}"'
        return _shown(document)

    @router.delete(
        f"/{path}/{{name}}", name=f"delete {word}", status_code=204, dependencies=ENGINEER,
        description=f"Take a {word} away; one that others need stays.",
    )  # fmt: skip
    async def delete(
        name: PathId, services: S, who: Who, if_match: IfMatch = None
    ) -> None:
        before = await asyncio.to_thread(services.registry.find, kind, name)
        await asyncio.to_thread(
            services.desk.drop, kind, name, who.name, tag_of(if_match)
        )
        await note(services, who, f"delete {word}", name, before, None)
        await services.control.settle()


def _shown(document: msgspec.Struct) -> dict[str, Any]:
    """A document as it may be shown."""
    found: dict[str, Any] = without_secrets(msgspec.to_builtins(document))
    return found


def _with_secrets(document: Any, before: msgspec.Struct | None) -> Any:
    """A channel whose address came back as it was shown keeps the one that it has."""
    if isinstance(document, Channel) and isinstance(before, Channel):
        if document.to == masked(before.to):
            return msgspec.structs.replace(document, to=before.to)
        if MASK in document.to:
            raise Invalid(f"the address of channel {document.id} is wanted in full")
    return document


_room("programmes", Programme, ProgrammeIn, "programme")
_room("calendars", Calendar, CalendarIn, "calendar")
_room("groups", Group, GroupIn, "group")
_room("stretches", Stretch, StretchIn, "stretch")
_room("types", LuminaireType, TypeIn, "type")
_room("tariffs", Tariff, TariffIn, "tariff")
_room("quiet", Quiet, QuietIn, "quiet window")
_room("channels", Channel, ChannelIn, "channel")
_room("gauges", GaugeCare, GaugeIn, "gauge")
_room("rain-rules", RainRules, RainRulesIn, "rain rules")
_room("catchments", Catchment, CatchmentIn, "catchment")
_room("watches", Watch, WatchIn, "watch")
_room("design-rain", DesignRain, DesignRainIn, "design rain table")


@router.get("/assignments")
async def assignments(services: S) -> dict[str, str]:
    """Calendar by luminaire, ``stretch:`` and a stretch, cabinet or "*"."""
    return await asyncio.to_thread(services.registry.assignments)


@router.get("/assignments/{target}")
async def assignment(
    target: Target, services: S, response: Response
) -> dict[str, str | None]:
    """The calendar that is assigned to a target itself; its ETag is the calendar's id."""
    given = await asyncio.to_thread(services.registry.assignments)
    response.headers["ETag"] = f'"{given.get(target, "")}"'
    return {"target": target, "calendar": given.get(target)}


@router.put("/assignments/{target}", dependencies=ENGINEER)
async def put_assignment(
    target: Target, body: AssignmentIn, services: S, who: Who,
    if_match: IfMatch = None, dry_run: DryRun = False,
) -> dict[str, str | None]:  # fmt: skip
    """Assign a calendar; the nearest wins: luminaire, stretch, cabinet, "*", the city."""
    given = await asyncio.to_thread(services.registry.assignments)
    await asyncio.to_thread(
        services.desk.assign,
        target,
        body.calendar,
        who.name,
        tag_of(if_match),
        dry_run=dry_run,
    )
    if not dry_run:
        await record(
            services, who, "assign", target, body.calendar or "none",
            before=given.get(target, ""), after=body.calendar or "",
        )  # fmt: skip
        await services.control.settle()
    return {"target": target, "calendar": body.calendar}


def tag_of(if_match: str | None) -> str | None:
    """The tag that an If-Match names; ``*`` and nothing name any."""
    if if_match is None or if_match.strip() == "*":
        return None
    return if_match.strip().removeprefix("W/").strip('"')


async def note(
    services: Services, who: Who, action: str, name: str,
    before: msgspec.Struct | None, after: msgspec.Struct | None,
) -> None:  # fmt: skip
    """Write a change into the audit log, with what was there before."""
    texts = [
        "" if document is None else msgspec.json.encode(document).decode()
        for document in (before, after)
    ]
    detail = getattr(after, "name", "")
    await record(services, who, action, name, detail, before=texts[0], after=texts[1])


def converted(raw: dict[str, Any], kind: type[Any]) -> Any:
    """A document of what came over the API; raises Invalid with what cannot be."""
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from None
