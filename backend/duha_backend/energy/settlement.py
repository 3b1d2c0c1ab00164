"""Settles the energy of nights that are over: from the store into the book.

Each quarter of an hour that is rolled up leaves a mark; a night that is over is settled
for its marks, however late they come. A night of which nothing was read is written down
as unknown as soon as nights before it are in the book.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from duha_backend.energy.book import EnergyBook
from duha_backend.energy.nights import (  # fmt: skip
    CabinetNight,
    City,
    MeterNight,
    darkness,
    meter_nights,
    settled,
)
from duha_backend.energy.quarters import BEFORE, Quarters
from duha_backend.errors import StoreDown
from duha_backend.lighting.desk import Desk
from duha_backend.lighting.inventory import LuminaireType
from duha_backend.lighting.tariff import Tariff
from duha_backend.live import Live
from duha_backend.readings import QUARTER_MS, Readings
from duha_backend.registry import Registry
from duha_backend.validate import Array
from duha_contract.programmes import noons
from duha_runtime.supervision import Supervisor, describe

log = logging.getLogger(__name__)

AFTER_MS = 30 * 60_000
"""A night is settled so long after its noon: the last quarter must be worked out."""
AGAIN_MS = 15 * 60_000
"""Least time between two settlements of a night: an outbox of a week comes in many parts."""
BACK_NIGHTS = 14
"""Nights before the last one that are looked for when the book is empty."""
MOST_A_TEND = 2
"""Nights that are settled in one go; the others come with the next."""
MOST_UNREAD = 400
"""Nights without a reading that are written down after a long pause."""
MOST_ATTEMPTS = 3
"""Attempts after which a night that fails is set aside until it is marked again."""
BEFORE_MS = BEFORE * QUARTER_MS

_AWAY = (StoreDown, InterfaceError, OperationalError, PoolTimeout)
Marks = dict[dt.date, list[tuple[int, str]]]


class Aside(NamedTuple):
    """Why a night is set aside, and the marks that it had then."""

    error: str
    marks: list[tuple[int, str]]


class Settlement:
    """Settles nights as their readings come in.

    Parameters
    ----------
    readings, registry, live, desk : Readings, Registry, Live, Desk
        What was read, and of which city.
    supervisor : Supervisor, optional
        Where nights and cabinets that cannot be settled are counted.

    Attributes
    ----------
    aside : dict of date to Aside
        Nights that failed `MOST_ATTEMPTS` times, and why.
    """

    def __init__(
        self,
        readings: Readings,
        registry: Registry,
        live: Live,
        desk: Desk,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._readings = readings
        self._registry = registry
        self._live = live
        self._desk = desk
        self.supervisor = supervisor or Supervisor()
        self.book = EnergyBook(registry.engine)
        self.aside: dict[dt.date, Aside] = {}
        self._attempts: dict[dt.date, int] = {}
        self._away: dict[dt.date, int] = {}
        self._settled: dict[dt.date, int] = {}
        self._looked: dt.date | None = None
        self._waiting: set[dt.date] = set()

    def rolled(self, kind: str, start: int) -> None:
        """Mark the night of a quarter of an hour [ms] that has new readings."""
        if kind in ("luminaire", "meter"):
            self.book.mark(start)

    async def tend(self, now: int) -> None:
        """Settle what is due at a time [ms]: a few nights in one go, those that were read first."""
        try:
            await self._tend(now)
        except (StoreDown, SQLAlchemyError) as error:
            log.warning("energy: %s", describe(error))

    async def _tend(self, now: int) -> None:
        last = self._desk.sun.date_of((now - AFTER_MS) / 1000) - dt.timedelta(days=1)
        marks = await asyncio.to_thread(self._marks, last)
        if not self._live.luminaires:
            await asyncio.to_thread(self.book.unmark, [m for x in marks.values() for m in x])  # fmt: skip
            return
        if self._looked != last:
            self._waiting |= await asyncio.to_thread(self._unsettled, last)
            self._looked = last
        self._reconsider(marks)
        due = [n for n in {*marks, *self._waiting} if self._is_due(n, now)]
        due.sort(key=lambda n: (self._away.get(n, 0), n not in marks, -n.toordinal()))
        for night in due[:MOST_A_TEND]:
            if await self._try(night, marks.get(night, [])):
                self._settled[night] = now
                self._waiting.discard(night)
                await asyncio.to_thread(self.book.unmark, marks.get(night, ()))
        self._forget(now)

    def _marks(self, last: dt.date) -> Marks:
        """The marks of nights up to the last one that is over."""
        found: Marks = {}
        for start, mark in self.book.marked():
            night = self._desk.sun.date_of(start / 1000)
            if night <= last:
                found.setdefault(night, []).append((start, mark))
        return found

    def _unsettled(self, last: dt.date) -> set[dt.date]:
        """Nights that no mark brings: before the first start, and without a reading."""
        there = self.book.settled(last - dt.timedelta(days=MOST_UNREAD))
        back = (last - min(there)).days if there else BACK_NIGHTS
        return {last - dt.timedelta(days=n) for n in range(back)} - there

    def _is_due(self, night: dt.date, now: int) -> bool:
        if self._attempts.get(night, 0) >= MOST_ATTEMPTS:
            return False
        before = self._settled.get(night)
        return before is None or not 0 <= now - before < AGAIN_MS

    def _forget(self, now: int) -> None:
        """Keep of settlements only what `_is_due` asks for."""
        self._settled = {n: t for n, t in self._settled.items() if now - t < AGAIN_MS}

    def _reconsider(self, marks: Marks) -> None:
        """Try nights again that were set aside, where new readings have come."""
        for night, then in list(self.aside.items()):
            if then.marks != marks.get(night, []):
                del self.aside[night]
                self._attempts.pop(night, None)

    async def _try(self, night: dt.date, marks: list[tuple[int, str]]) -> bool:
        """Settle a night; one that fails for itself does not stop the others.

        Raises
        ------
        StoreDown, SQLAlchemyError
            A database is away or full: no fault of the night, which comes again, after
            the others.
        """
        part = f"energy {night}"
        try:
            await self.settle(night)
        except _AWAY:
            self._away[night] = self._away.get(night, 0) + 1
            raise
        except Exception as error:  # noqa: BLE001 - a barrier for each night
            self._attempts[night] = self._attempts.get(night, 0) + 1
            if self._attempts[night] >= MOST_ATTEMPTS:
                self.aside[night] = Aside(describe(error), marks)
                self._waiting.discard(night)
            self.supervisor.failed(part, error)
            return False
        for counts in (self._attempts, self._away, self.aside):
            counts.pop(night, None)
        self.supervisor.succeeded(part)
        return True

    async def settle(self, night: dt.date) -> list[CabinetNight]:
        """Settle one night.

        One without any reading is left out, unless nights before it are in the book: then
        it is unknown. One that was settled before its readings expired stays as it is.
        """
        begin, end = (round(t * 1000) for t in noons(self._desk.place, night))
        read, some = await self._read(begin, end)
        if not some and not await asyncio.to_thread(self._unread, night):
            return []
        lamps = list(self._live.luminaires)
        if read is None:
            names = [lamp.id for lamp in lamps]
            read = await asyncio.to_thread(Quarters.empty, names, begin, end)
        tariff, city = await asyncio.to_thread(self._city, end)
        dark = darkness(self._desk.sun, night)
        meters = await self._meters(begin, end, dark, city)
        found = await asyncio.to_thread(settled, night, lamps, read, dark, city, meters)
        self._tell(night, found.failures, (cabinet.cabinet for cabinet in found.cabinets))  # fmt: skip
        await asyncio.to_thread(
            self.book.settle, found.cabinets, tariff, found.stretches
        )
        log.info("energy of the night of %s: %d cabinets", night, len(found.cabinets))
        return found.cabinets

    def _unread(self, night: dt.date) -> bool:
        """Whether a night without any reading is to be written down as unknown."""
        oldest = self.book.oldest()
        there = self.book.settled(night)
        return oldest is not None and oldest < night and night not in there

    async def _read(self, begin: int, end: int) -> tuple[Quarters | None, bool]:
        """The quarters of all luminaires, and whether any lies in the night."""
        read: Quarters | None = None
        some = False
        async for frame in self._readings.quarters("luminaire", begin - BEFORE_MS, end):
            if read is None:  # as large as the city: only for a night that was read
                names = [lamp.id for lamp in self._live.luminaires]
                read = await asyncio.to_thread(Quarters.empty, names, begin, end)
            await asyncio.to_thread(
                read.take, frame, "energy_wh", "level_actual_pct", "level_in_effect_pct"
            )
            some = some or bool((frame["ts"] >= begin).any())
        return read, some

    def _city(self, end: int) -> tuple[Tariff, City]:
        """The tariff of the time of a night that ends then [ms], the types of now."""
        types = {kind.id: kind for kind in self._registry.all(LuminaireType)}
        then = {tariff.id: tariff for tariff in self._registry.all_at(Tariff, end)}
        tariff = then.get("energy") or self._registry.find(Tariff, "energy") or Tariff()
        return tariff, City(types, tariff.baseline_w, tariff.cabinet_w)

    async def _meters(
        self, begin: int, end: int, dark: Array, city: City
    ) -> dict[str, MeterNight]:
        """What the meters of each cabinet have counted."""
        assets = [a for a in self._live.assets.values() if a.kind == "meter"]
        names = [asset.id for asset in assets]
        active = Quarters.empty(names, begin, end)
        reactive = Quarters.empty(names, begin, end)
        async for frame in self._readings.quarters("meter", begin - BEFORE_MS, end):
            await asyncio.to_thread(active.take, frame, "energy_kwh")
            await asyncio.to_thread(reactive.take, frame, "reactive_energy_kvarh")
        load: dict[str, float] = {}
        for lamp in self._live.luminaires:
            kind = city.kind_of(lamp)
            load[lamp.cabinet] = load.get(lamp.cabinet, city.own_w) + (
                kind.rated_w if kind else 0.0
            )
        return await asyncio.to_thread(
            meter_nights, names, [a.cabinet for a in assets], active, reactive, dark,
            lambda cabinet: load.get(cabinet, 0.0),
        )  # fmt: skip

    def _tell(
        self, night: dt.date, failures: dict[str, Exception], cabinets: Iterable[str]
    ) -> None:
        """Count the cabinets that could not be judged."""
        for cabinet in cabinets:
            part = f"energy of {cabinet}"
            error = failures.get(cabinet)
            if error is None:
                self.supervisor.succeeded(part)
            else:
                log.warning("energy of %s in the night of %s: %r", cabinet, night, error)  # fmt: skip
                self.supervisor.failed(part, error)
