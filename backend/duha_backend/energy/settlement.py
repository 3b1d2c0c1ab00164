"""Settles the energy of nights that are over: from the store into the book."""

import asyncio
import datetime as dt
import logging

import numpy as np

from duha_backend.energy.book import EnergyBook
from duha_backend.energy.nights import CabinetNight, Quarters, counted, settled
from duha_backend.errors import StoreDown
from duha_backend.lighting.days import dated
from duha_backend.lighting.desk import Desk
from duha_backend.lighting.inventory import Asset, LuminaireType
from duha_backend.lighting.nights import grid, levels
from duha_backend.lighting.tariff import Tariff
from duha_backend.lighting.wanted import Wanted
from duha_backend.live import Live
from duha_backend.readings import QUARTER_MS, Readings
from duha_backend.registry import Registry
from duha_backend.validate import Array
from duha_contract.programmes import noons

log = logging.getLogger(__name__)

AFTER_MS = 30 * 60_000
"""A night is settled so long after its noon: the last quarter must be worked out."""
AGAIN_NIGHTS = 3
"""Nights that are settled anew with each new one: data may come late."""
BACK_NIGHTS = 14
BEFORE_MS = 6 * 3_600_000
"""How far before the night the standing of a counter is looked for."""


class Settlement:
    """Settles nights, the last ones anew.

    Parameters
    ----------
    readings, registry, live, desk : Readings, Registry, Live, Desk
        What was read, and what was wanted.
    """

    def __init__(
        self, readings: Readings, registry: Registry, live: Live, desk: Desk
    ) -> None:
        self._readings = readings
        self._registry = registry
        self._live = live
        self._desk = desk
        self.book = EnergyBook(registry.engine)
        self._done: dt.date | None = None

    async def tend(self, now: int) -> None:
        """Settle what is due at a time [ms]."""
        last = self._desk.sun.date_of((now - AFTER_MS) / 1000) - dt.timedelta(days=1)
        if self._done == last or not self._live.luminaires:
            return
        first = last - dt.timedelta(days=BACK_NIGHTS - 1)
        there = await asyncio.to_thread(self.book.settled, first)
        again = last - dt.timedelta(days=AGAIN_NIGHTS - 1)
        try:
            for n in range(BACK_NIGHTS):
                night = first + dt.timedelta(days=n)
                if night not in there or night >= again:
                    await self.settle(night)
        except StoreDown as error:
            log.warning("energy: %s", error)
            return
        self._done = last

    async def settle(self, night: dt.date) -> list[CabinetNight]:
        """Settle one night; one without any reading is left out."""
        begin, end = (round(t * 1000) for t in noons(self._desk.place, night))
        lamps = self._live.luminaires
        read: Quarters | None = None
        some = False
        async for frame in self._readings.quarters("luminaire", begin - BEFORE_MS, end):
            if read is None:  # as large as the city: only for a night that was read
                names = [lamp.id for lamp in lamps]
                read = await asyncio.to_thread(Quarters.empty, names, begin, end)
            await asyncio.to_thread(
                read.take, frame, "energy_wh", "level_actual_pct", "level_in_effect_pct"
            )
            some = some or bool((frame["ts"] >= begin).any())
        if read is None or not some:
            return []
        meters = await self._meters(begin, end)
        types = {kind.id: kind for kind in self._registry.all(LuminaireType)}
        tariff = self._registry.find(Tariff, "energy") or Tariff()
        dark = self._desk.sun.night(night)
        hours = (dark.sunrise - dark.sunset) / 3600 if dark else 24.0
        told = await asyncio.to_thread(
            self._told, lamps, night, end, read.level.shape[1]
        )
        found = await asyncio.to_thread(
            settled, night, lamps, read, told, types, tariff.baseline_w, hours, meters,
            tariff.cabinet_w,
        )  # fmt: skip
        await asyncio.to_thread(self.book.settle, found, tariff)
        log.info("energy of the night of %s: %d cabinets", night, len(found))
        return found

    async def _meters(
        self, begin: int, end: int
    ) -> dict[str, tuple[float, float | None]]:
        """What the meters of each cabinet have counted [Wh], [varh]."""
        assets = [a for a in self._live.assets.values() if a.kind == "meter"]
        names = [asset.id for asset in assets]
        active = Quarters.empty(names, begin, end)
        reactive = Quarters.empty(names, begin, end)
        async for frame in self._readings.quarters("meter", begin - BEFORE_MS, end):
            active.take(frame, "energy_kwh")
            reactive.take(frame, "reactive_energy_kvarh")
        kwh, kvarh = counted(active.counter), counted(reactive.counter)
        found: dict[str, tuple[float, float | None]] = {}
        for asset, used, var in zip(assets, kwh.tolist(), kvarh.tolist(), strict=True):
            if not np.isnan(used):
                before = found.get(asset.cabinet, (0.0, None))
                more = None if np.isnan(var) else (before[1] or 0.0) + 1000 * var
                found[asset.cabinet] = (before[0] + 1000 * used, more)
        return found

    def _told(
        self, lamps: list[Asset], night: dt.date, end: int, quarters: int
    ) -> Array:
        """What each luminaire was told, as means of quarters [%]."""
        wanted = self._desk.wanted_at(end)
        courses: dict[tuple[str | None, float], Array] = {}
        found = np.empty((len(lamps), quarters))
        for i, lamp in enumerate(lamps):
            key = (wanted.calendar_of(lamp), wanted.normal_of(lamp))
            if key not in courses:
                courses[key] = self._course(wanted, *key, night)
            found[i] = courses[key]
        return found

    def _course(
        self, wanted: Wanted, name: str | None, normal: float, night: dt.date
    ) -> Array:
        sun = self._desk.sun
        calendar = wanted.calendars.get(name) if name else None
        calendar = dated(calendar, night) if calendar else None
        times = grid(sun, night)
        found = levels(wanted.programmes, calendar, (), (), sun, times, None, normal)
        means: Array = found.reshape(-1, QUARTER_MS // 60_000).mean(axis=1)
        return means
