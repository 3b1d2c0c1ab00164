"""Commands are state: works out what each controller shall do, and says so once.

Programmes, calendars, assignments, overrides and conditions become one desired
document for each controller. A document gets a new revision only when its content
changes; the controller's report says what it has made of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal

from duha_backend.lighting.desk import Desk
from duha_backend.lighting.inventory import Asset
from duha_backend.lighting.roads import Roads
from duha_backend.lighting.wanted import Compiler, Sensed, StoredOverride, Wanted, reach
from duha_backend.live import Live
from duha_backend.registry import Registry
from duha_contract.clock import Clock
from duha_contract.lighting import Condition, Decision, Sun, level_at
from duha_contract.messages import Desired
from duha_contract.programmes import Place

log = logging.getLogger(__name__)

OverrideState = Literal["pending", "applied", "diverged", "expired", "cancelled"]

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
        self.roads = Roads(live)
        self.desk = Desk(registry, live, clock, place, self.roads)
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
        wet_changed = self.roads.weigh(now)
        if wet_changed:
            await asyncio.to_thread(self._log_roads)
        ended = any(o.end <= now for d in self._desired.values() for o in d.overrides)
        ended |= any(c.end <= now for d in self._desired.values() for c in d.conditions)
        if not (self._changed.is_set() or wet_changed or ended):
            return
        self._changed.clear()
        fresh = await asyncio.to_thread(self._compile, now)
        if fresh:
            await asyncio.to_thread(self._registry.save_desired, fresh)
        for controller, desired in fresh.items():
            self._desired[controller] = desired
            await self._publish(controller, desired)

    def _log_roads(self) -> None:
        """Keep which roads were wet, so that a night can be explained later."""
        for gauges, wet in self.roads.standing.items():
            kept = Sensed(
                "wet_road", "gauges", ",".join(gauges), wet.start, wet.end, wet.detail
            )
            self._registry.add_sensed(kept)

    # -- what is so --------------------------------------------------------------------

    def decision(self, device: str, t: float) -> Decision:
        """Level and reasons of a luminaire at a POSIX time [s], by its document."""
        desired = self._desired.get(self._live.assets[device].cabinet)
        if desired is None:
            return level_at({}, None, (), (), Sun(self.place), t, device)
        return desired.decide(device, t)

    def pending(self, stored: StoredOverride, members: Iterable[Asset]) -> list[str]:
        """Cabinets that have not reported an override yet."""
        over = stored.cancelled or stored.override.end <= self._clock.now_ms()
        cabinets = sorted({asset.cabinet for asset in members})
        return [
            name
            for name in cabinets
            if not over and not self._carried_out(name, stored.override.id)
        ]

    def state_of(self, stored: StoredOverride) -> OverrideState:
        """How far an override has got."""
        if stored.cancelled is not None:
            return "cancelled"
        if stored.override.end <= self._clock.now_ms():
            return "expired"
        targets = self.desk.members(stored.target_kind, stored.target)
        cabinets = {asset.cabinet for asset in targets}
        if not all(self._carried_out(name, stored.override.id) for name in cabinets):
            return "pending"
        if self.diverged(targets):
            return "diverged"
        return "applied"

    def diverged(self, targets: Iterable[Asset]) -> list[str]:
        """Those of some luminaires that do not do what was asked."""
        reports = {c.id: c.report for c in self._live.controllers.values() if c.report}
        named = {
            name: frozenset(r.diverged) for name, r in reports.items() if r.diverged
        }
        return [a.id for a in targets if a.id in named.get(a.cabinet, ())]

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
        wanted = self.desk.wanted()
        standing = [o for o in self._registry.overrides(now) if o.cancelled is None]
        compiler = Compiler(self.place, self.roads.drying, self.desk.today())
        return compiler.compiled(
            self.desk.lamps,
            wanted,
            reach(self.desk.lamps, wanted, standing),
            self._conditions(wanted, now),
            self._desired,
            now,
        )

    def _conditions(self, wanted: Wanted, now: int) -> dict[str, tuple[Condition, ...]]:
        """Wet roads, and what was sensed otherwise, by cabinet."""
        found = dict(self.roads.conditions)
        for given in self._registry.sensed(now):
            if given.kind == "wet_road":
                continue
            targets = self.desk.lamps.reached(
                given.target_kind, given.target, wanted.groups
            )
            for cabinet in {asset.cabinet for asset in targets}:
                devices = tuple(a.id for a in targets if a.cabinet == cabinet)
                condition = Condition(
                    given.kind,
                    given.start,
                    given.end,
                    given.detail,
                    devices,
                )
                found[cabinet] = (*found.get(cabinet, ()), condition)
        return found
