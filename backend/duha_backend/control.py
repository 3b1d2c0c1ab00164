"""Commands are state: works out what each controller shall do, and says so once.

Programmes, calendars, assignments, overrides and conditions become one desired
document for each controller. A document gets a new revision only when its content
changes; the controller's report says what it has made of it.
"""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal

import msgspec

from duha_backend.errors import Conflict, Invalid, NotFound
from duha_backend.live import Live
from duha_backend.registry import Asset, Group, Registry, StoredOverride
from duha_backend.wet import WetRoads
from duha_contract.clock import Clock
from duha_contract.lighting import (
    Calendar,
    Decision,
    Override,
    Place,
    Programme,
    Sun,
    check,
    level_at,
)
from duha_contract.messages import Desired

log = logging.getLogger(__name__)

TargetKind = Literal["luminaire", "street", "group", "cabinet", "city"]
OverrideState = Literal["pending", "applied", "diverged", "expired", "cancelled"]

LONGEST_OVERRIDE_MS = 7 * 24 * 3_600_000

Publish = Callable[[str, Desired], Awaitable[None]]


class Control:
    """Decides for every controller of the city.

    Parameters
    ----------
    registry, live, clock : Registry, Live, Clock
        What is wanted, what is, and when.
    place : Place
        Where the city is: its nights and its time zone.
    publish : callable
        Sends a desired document to a controller.
    """

    def __init__(
        self,
        registry: Registry,
        live: Live,
        clock: Clock,
        place: Place,
        publish: Publish,
    ) -> None:
        self._registry = registry
        self._live = live
        self._clock = clock
        self.place = place
        self._publish = publish
        self._roads = WetRoads(live)
        self._desired = registry.desired()
        self._seen = {name: registry.change(name) for name in ("wanted", "desired")}
        self.leading = True
        self._settling = asyncio.Lock()
        self._changed = asyncio.Event()
        self._changed.set()

    @property
    def desired(self) -> dict[str, Desired]:
        """The document of every controller."""
        return self._desired

    def touch(self) -> None:
        """Something in the registry has changed."""
        self._changed.set()

    async def settle(self) -> None:
        """Bring every controller's document up to date and send what is new.

        A process that does not lead only looks at what the leader has made.
        """
        async with self._settling:  # the clock and an operator may both ask for it
            if self.leading:
                await self._settle()
            elif await self._news("desired"):
                self._desired = await asyncio.to_thread(self._registry.desired)

    async def lead(self, held: bool) -> None:
        """Lead, or stop leading; a new leader begins with what the last one has left."""
        if held and not self.leading:
            async with self._settling:
                self._desired = await asyncio.to_thread(self._registry.desired)
                for controller, document in list(self._desired.items()):
                    await self._publish(controller, document)
            self.touch()
        self.leading = held

    async def _news(self, name: str) -> bool:
        """Whether somebody, here or elsewhere, has changed something."""
        number = await asyncio.to_thread(self._registry.change, name)
        news = number != self._seen[name]
        self._seen[name] = number
        return news

    async def _settle(self) -> None:
        if await self._news("wanted"):
            self.touch()
        now = self._clock.now_ms()
        wet_changed = self._roads.weigh(now)
        ended = any(o.end <= now for d in self._desired.values() for o in d.overrides)
        if not (self._changed.is_set() or wet_changed or ended):
            return
        self._changed.clear()
        fresh = await asyncio.to_thread(self._compile, now)
        for controller, desired in fresh.items():
            await asyncio.to_thread(self._registry.save_desired, controller, desired)
            self._desired[controller] = desired
            await self._publish(controller, desired)

    # -- what the operator wants -----------------------------------------------------

    def add_override(
        self, kind: TargetKind, target: str, override: Override
    ) -> StoredOverride:
        """Take an override; it gets its id here.

        Raises
        ------
        Invalid
            Level, end or target cannot be.
        NotFound
            There is no such target.
        """
        now = self._clock.now_ms()
        if not 0 <= override.level <= 100:
            raise Invalid(f"a level is 0 to 100 %, not {override.level}")
        if override.end <= max(now, override.start):
            raise Invalid("an override ends after it begins, and in the future")
        if override.end - now > LONGEST_OVERRIDE_MS:
            raise Invalid("an override lasts 7 days at most; a programme is for ever")
        if not self.members(kind, target):
            raise NotFound(f"no luminaire in {kind} {target!r}")
        name = f"{now:013d}-{secrets.token_hex(3)}"  # newest last by id
        stored = StoredOverride(
            msgspec.structs.replace(override, id=name), kind, target, None
        )
        self._registry.add_override(stored)
        self.touch()
        return stored

    def save_programme(self, programme: Programme) -> None:
        """Take a programme; raises ProgrammeError when it cannot be evaluated."""
        check(programme, self.place)
        self._registry.save(programme)
        self.touch()

    def save_calendar(self, calendar: Calendar) -> None:
        """Take a calendar; raises Conflict when it names a programme that is none."""
        known = {programme.id for programme in self._registry.programmes()}
        for name in (calendar.default, *(rule.programme for rule in calendar.rules)):
            if name not in known:
                raise Conflict(f"calendar {calendar.id}: no programme {name!r}")
        self._registry.save(calendar)
        self.touch()

    def assign(self, target: str, calendar: str | None) -> None:
        """Assign a calendar to a luminaire, a cabinet or "*".

        Raises
        ------
        NotFound
            There is no such calendar or target.
        """
        if calendar is not None and calendar not in {
            known.id for known in self._registry.calendars()
        }:
            raise NotFound(f"no calendar {calendar!r}")
        if target != "*" and target not in self._live.assets:
            raise NotFound(f"no luminaire or cabinet {target!r}")
        self._registry.assign(target, calendar)
        self.touch()

    def save_group(self, group: Group) -> None:
        """Take a group; raises NotFound when a member is no luminaire."""
        for member in group.members:
            if member not in self._live.index:
                raise NotFound(f"group {group.id}: no luminaire {member!r}")
        self._registry.save(group)
        self.touch()

    def members(self, kind: TargetKind, target: str) -> list[Asset]:
        """The luminaires that a target means."""
        if kind == "group":
            groups = {group.id: group.members for group in self._registry.groups()}
            wanted = groups.get(target, ())
            return [a for a in self._live.luminaires if a.id in wanted]
        tests: dict[str, Callable[[Asset], bool]] = {
            "luminaire": lambda asset: asset.id == target,
            "street": lambda asset: asset.street == target,
            "cabinet": lambda asset: asset.cabinet == target,
            "city": lambda _: True,
        }
        return [asset for asset in self._live.luminaires if tests[kind](asset)]

    # -- what is so --------------------------------------------------------------------

    def decision(self, device: str, t: float) -> Decision:
        """Level and reasons of a luminaire at a POSIX time [s], by its document."""
        desired = self._desired.get(self._live.assets[device].cabinet)
        if desired is None:
            return level_at({}, None, (), (), Sun(self.place), t, device)
        return desired.decide(device, t)

    def state_of(self, stored: StoredOverride) -> OverrideState:
        """How far an override has got."""
        if stored.cancelled is not None:
            return "cancelled"
        if stored.override.end <= self._clock.now_ms():
            return "expired"
        targets = self.members(stored.target_kind, stored.target)  # type: ignore[arg-type]
        cabinets = {asset.cabinet for asset in targets}
        if not all(self._carried_out(name, stored.override.id) for name in cabinets):
            return "pending"
        if self.diverged(targets):
            return "diverged"
        return "applied"

    def diverged(self, targets: Iterable[Asset]) -> list[str]:
        """Those of some luminaires that do not do what was asked."""
        reports = {c.id: c.report for c in self._live.controllers.values() if c.report}
        return [
            asset.id
            for asset in targets
            if asset.cabinet in reports and asset.id in reports[asset.cabinet].diverged
        ]

    def _carried_out(self, controller: str, override: str) -> bool:
        """Whether a controller has reported a document that holds the override."""
        desired = self._desired.get(controller)
        known = self._live.controllers.get(controller)
        if desired is None or known is None or known.report is None:
            return False
        inside = any(o.id == override for o in desired.overrides)
        return inside and known.report.hash == desired.hash

    # -- documents -----------------------------------------------------------------------

    def _compile(self, now: int) -> dict[str, Desired]:
        """Documents whose content differs from the one in force."""
        programmes = tuple(self._registry.programmes())
        calendars = tuple(self._registry.calendars())
        assigned = self._registry.assignments()
        standing = [o for o in self._registry.overrides(now) if o.cancelled is None]
        reach = [
            (o.override, {a.id for a in self.members(o.target_kind, o.target)})  # type: ignore[arg-type]
            for o in standing
        ]
        by_cabinet: dict[str, list[Asset]] = {}
        for asset in self._live.luminaires:
            by_cabinet.setdefault(asset.cabinet, []).append(asset)
        fresh: dict[str, Desired] = {}
        for controller, assets in by_cabinet.items():
            calendar_of = {
                a.id: assigned.get(a.id) or assigned.get(a.cabinet) or assigned.get("*")
                for a in assets
            }
            content = Desired(
                v=1, revision=0, hash="", issued=0, place=self.place,
                programmes=programmes, calendars=calendars,
                assignments={d: c for d, c in calendar_of.items() if c is not None},
                overrides=_for_cabinet(reach, [a.id for a in assets]),
                conditions=self._roads.conditions.get(controller, ()),
            )  # fmt: skip
            digest = hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:16]
            before = self._desired.get(controller)
            if before is None or before.hash != digest:
                fresh[controller] = msgspec.structs.replace(
                    content,
                    revision=1 + (before.revision if before else 0),
                    hash=digest,
                    issued=now,
                )
        return fresh


def _for_cabinet(
    reach: list[tuple[Override, set[str]]], devices: list[str]
) -> tuple[Override, ...]:
    """The overrides that touch a cabinet, naming only its own luminaires."""
    mine = []
    for override, targets in reach:
        touched = tuple(d for d in devices if d in targets)
        if len(touched) == len(devices):
            mine.append(override)
        elif touched:
            mine.append(msgspec.structs.replace(override, devices=touched))
    return tuple(sorted(mine, key=lambda o: o.id))
