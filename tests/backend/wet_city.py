"""A city of three gauges with its stores, for tests of rain and runoff; time is given."""

import contextlib

import numpy as np

from duha_backend.books import Books
from duha_backend.drainage.rainfall import Rainfall
from duha_backend.drainage.runs import Runs
from duha_backend.duck import DuckReadings
from duha_backend.lighting.inventory import Asset
from duha_backend.live import Live
from duha_backend.registry import Registry
from duha_backend.validate import Columns, Examined
from duha_contract.messages import Batch

T0 = 1_782_864_000_000  # 2026-07-01T00:00Z
MINUTE = 60_000
GAUGES = ("RG-1", "RG-2", "RG-3", "RG-4")
PLACES = ((49.747, 13.37), (49.751, 13.382), (49.742, 13.386), (49.755, 13.372))


class WetCity:
    """Stores, rain and runs of a small city."""

    def __init__(self, folder, readings=None):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.registry = Registry.in_folder(folder)
        assets = [
            Asset(name, "rain_gauge", "R1", "", "", *place)
            for name, place in zip(GAUGES, PLACES, strict=True)
        ]
        self.registry.put_assets(
            [Asset("R1", "cabinet", "", "", "", *PLACES[0]), *assets]
        )
        self.readings = readings or DuckReadings(folder / "readings.duckdb")
        self.books = Books(self.registry.engine)
        self.live = Live(self.registry.assets())
        self.runs = Runs(self.registry.engine)
        self.rainfall = self.new_rainfall()
        self.now = T0

    def new_rainfall(self):
        return Rainfall(self.readings, self.registry, self.live, self.books)

    async def rain(self, mm, start=T0, gauges=GAUGES, temperature=15.0):
        """Store readings of minutes; `mm` is (minutes,) for all, or (gauges, minutes)."""
        await store_rain(self.readings, mm, start, gauges, temperature)

    async def until(self, minutes, rainfall=None):
        """Let time go on to so many minutes after the start, and rain be judged."""
        self.now = T0 + minutes * MINUTE
        await (rainfall or self.rainfall).tend(self.now + 3 * MINUTE)

    async def close(self):
        self.registry.close()
        await self.readings.close()


async def store_rain(readings, mm, start, gauges, temperature=15.0):
    """Write readings of minutes straight into a store."""
    mm = np.atleast_2d(np.asarray(mm, dtype=float))
    mm = np.broadcast_to(mm, (len(gauges), mm.shape[1]))
    messages = []
    for gauge, row in zip(gauges, mm, strict=True):
        n = len(row)
        columns = {
            "device": [gauge] * n,
            "ts": (start + (np.arange(n) + 1) * MINUTE).tolist(),
            "quality": ["good"] * n,
            "rain_mm": row.tolist(),
            "interval_s": [60.0] * n,
            "temperature_c": [temperature] * n,
        }
        batch = Batch(1, "boot", f"{gauge}-{start}-{n}", 1, "trusted")
        messages.append(Examined("R1", batch, [Columns.of("rain_gauge", columns)]))
    await readings.write(messages, start)


@contextlib.asynccontextmanager
async def wet_city(folder):
    city = WetCity(folder)
    try:
        yield city
    finally:
        await city.close()
