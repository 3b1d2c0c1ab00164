"""Commands are state: works out what each controller shall do, and says so once.

Programmes, calendars, assignments, overrides and conditions become one desired
document for each controller. A document gets a new revision only when its content
changes; the controller's report says what it has made of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from duha_backend.errors import Stale
from duha_backend.lighting.board import OverrideBoard
from duha_backend.lighting.desk import Desk
from duha_backend.lighting.roads import Roads
from duha_backend.lighting.wanted import (
    Compiled,
    Compiler,
    Sensed,
    Wanted,
    reach,
    sensed_by,
)
from duha_backend.live import Live
from duha_backend.registry import Registry
from duha_contract.clock import Clock
from duha_contract.lighting import Condition, Decision, Sun, level_at
from duha_contract.messages import Desired
from duha_contract.programmes import Place

log = logging.getLogger(__name__)

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
    lapsed : callable, optional
        Whether the time is over for which this process was told to lead.

    Attributes
    ----------
    problems : dict of str to str
        What could not be done for a cabinet: its document stays as it was, or lacks a part.
    """

    def __init__(
        self,
        registry: Registry,
        live: Live,
        clock: Clock,
        place: Place,
        publish: Publish,
        lapsed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._registry = registry
        self._live = live
        self._clock = clock
        self.place = place
        self._publish = publish
        self.roads = Roads(live)
        self.desk = Desk(registry, live, clock, place, self.roads)
        self.desk.documents = lambda: self._desired
        self._desired: dict[str, Desired] = {}
        self._revisions: dict[str, int] | None = None
        self._seen = {"wanted": -1, "desired": -1}
        self._leads = True
        self._lapsed = lapsed
        self._term = 0
        self._made_at = 0
        self._settling = asyncio.Lock()
        self._changed = asyncio.Event()
        self._changed.set()
        self.problems: dict[str, str] = {}
        self.overrides = OverrideBoard(
            registry, live, self.desk, lambda: self._desired, clock.now_ms
        )

    @property
    def leading(self) -> bool:
        """Whether this process decides now."""
        return self._leads and not self._lapsed()

    @leading.setter
    def leading(self, leads: bool) -> None:
        self._leads = leads

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
            if self._revisions is None:
                await self._load()
            if self.leading:
                await self._settle()
            elif await self._news("desired"):
                self._desired = await asyncio.to_thread(self._registry.desired)

    async def lead(self, held: bool, term: int = 0) -> None:
        """Lead, or stop leading; a new leader begins with what the last one has left."""
        if held and (not self._leads or term != self._term):
            async with self._settling:
                await self._load()
                self._term = term
                self._desired = {
                    name: msgspec.structs.replace(document, term=term)
                    for name, document in self._desired.items()
                }
                self._leads = True
                await self._send_all(self._desired)
            self.touch()
        self._leads = held

    async def _load(self) -> None:
        """Take over the documents that are stored."""
        self._desired = await asyncio.to_thread(self._registry.desired)
        self._revisions = await asyncio.to_thread(self._registry.revisions)

    async def _send_all(self, documents: Mapping[str, Desired]) -> None:
        """Send documents at once: a broker that hangs costs one wait and not one for each."""
        await asyncio.gather(*(self._send(*one) for one in documents.items()))

    async def _send(self, controller: str, document: Desired) -> None:
        """Send a document, while this process leads; the others go on where one cannot."""
        if not self.leading:
            return
        try:
            await self._publish(controller, document)
        except Exception as error:
            log.exception("document of %s", controller)
            self.problems[controller] = f"not sent: {error}"[:300]

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
        await asyncio.to_thread(self.roads.areas)
        wet_changed = self.roads.weigh(now)
        if wet_changed:
            await asyncio.to_thread(self._log_roads)
        if not (self._changed.is_set() or wet_changed or self._has_ended(now)):
            return
        self._changed.clear()
        try:
            await self._make(now)
            self._made_at = now
        except BaseException:
            self._changed.set()  # what is wanted is still to be done
            raise

    def _has_ended(self, now: int) -> bool:
        """Whether something has ended since documents were last made.

        Each end counts once: a document that cannot be made stays as it is, with its ends.
        """
        ends = [o.end for d in self._desired.values() for o in d.overrides]
        ends += [c.end for d in self._desired.values() for c in d.conditions]
        return any(self._made_at < end <= now for end in ends)

    async def _make(self, now: int) -> None:
        """Compile, store and send what is new."""
        made = await asyncio.to_thread(self._compile, now)
        term = self._term
        fresh = {
            name: msgspec.structs.replace(document, term=term)
            for name, document in made.fresh.items()
        }
        if fresh:
            try:
                await asyncio.to_thread(self._registry.save_desired, fresh, term)
            except Stale as error:
                log.warning("control: %s", error)
                self._changed.set()
                return
        self.problems = dict(made.problems)
        there = self._live.assets.keys() | self.desk.lamps.controlled.keys()
        known = self._desired | fresh
        self._desired = {name: known[name] for name in known if name in there}
        await self._send_all(fresh)

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

    # -- documents -----------------------------------------------------------------------

    def _compile(self, now: int) -> Compiled:
        """Documents whose content differs from the one in force."""
        lamps, wanted = self.desk.lamps, self.desk.wanted()
        standing = [o for o in self._registry.overrides(now) if o.cancelled is None]
        compiler = Compiler(self.place, self.roads.drying, self.desk.today())
        return compiler.compiled(
            lamps,
            wanted,
            reach(lamps, wanted, standing),
            self._conditions(wanted, now),
            self._desired,
            now,
            self._revisions or {},
        )

    def _conditions(self, wanted: Wanted, now: int) -> dict[str, tuple[Condition, ...]]:
        """Wet roads, and what was sensed otherwise, by cabinet."""
        sensed = (s for s in self._registry.sensed(now) if s.kind != "wet_road")
        found = dict(self.roads.conditions)
        for cabinet, more in sensed_by(self.desk.lamps, wanted, sensed).items():
            found[cabinet] = (*found.get(cabinet, ()), *more)
        return found
