"""Rain of others' gauges, from a file or an address: a fallback, off unless it is asked for.

A gauge of others is an asset of kind ``rain_gauge`` whose number (`asset_id`) is that of the
station; so it takes part in everything, with the weight that its distance gives it.
"""

import asyncio
import datetime as dt
import http.client
import logging
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from duha_backend.books import Bin, Books
from duha_backend.errors import Invalid
from duha_backend.live import Live
from duha_backend.rain.chmi import STEP_S, TenMinutes, read
from duha_backend.readings import LATE, QUARTER_MS, Readings
from duha_backend.validate import Columns, Examined
from duha_contract.messages import Batch
from duha_contract.quantities import BY_NAME
from duha_runtime.supervision import describe

log = logging.getLogger(__name__)

EVERY_S = 300.0
TIMEOUT_S = 30.0
MOST_BYTES = 50_000_000
OLDEST_S, AHEAD_S = 31 * 86_400.0, 60.0
"""Times of values that are taken, before and after now [s]."""


class External:
    """Takes rain of others' gauges.

    Parameters
    ----------
    sources : sequence of str
        Paths or http addresses; ``{date}`` stands for the day (UTC) as 20261124.
    """

    def __init__(
        self, sources: Sequence[str], readings: Readings, live: Live, books: Books
    ) -> None:
        self._sources = sources
        self._readings = readings
        self._live = live
        self._books = books
        self._newest: dict[str, float] = {}
        self.problems: dict[str, str] = {}

    async def take(self, now_ms: int) -> int:
        """Read every source once; how many new values there were."""
        count = 0
        day = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC).strftime("%Y%m%d")
        for source in self._sources:
            try:
                raw = await asyncio.to_thread(fetch, source.replace("{date}", day))
                found = await asyncio.to_thread(read, raw)
                count += await self._store(plausible(found, now_ms / 1000))
                self.problems.pop(source, None)
            except Exception as error:  # noqa: BLE001 - a source of others never ends rain
                self._failed(source, describe(error))
        return count

    def _failed(self, source: str, problem: str) -> None:
        if self.problems.get(source) != problem:
            log.warning("rain of others: %s: %s", source, problem)
        self.problems[source] = problem

    async def _store(self, values: Sequence[TenMinutes]) -> int:
        gauges = {
            asset.asset_id: asset
            for asset in self._live.assets.values()
            if asset.kind == "rain_gauge" and asset.asset_id
        }
        fresh: dict[str, list[TenMinutes]] = {}
        for value in sorted(values, key=lambda one: one.t):
            if value.station in gauges and value.t > self._newest.get(value.station, 0):
                fresh.setdefault(value.station, []).append(value)
        for station, mine in fresh.items():
            asset = gauges[station]
            last = round(mine[-1].t)
            batch = Batch(1, "external", f"external-{asset.id}-{last}", 1, "trusted")
            columns: dict[str, list[Any]] = {
                "device": [asset.id] * len(mine),
                "ts": [round(one.t * 1000) for one in mine],
                "quality": ["good"] * len(mine),
                "rain_mm": [one.mm for one in mine],
                "interval_s": [STEP_S] * len(mine),
            }
            table = Columns.of("rain_gauge", columns)
            owner = asset.cabinet or "external"
            await self._readings.write([Examined(owner, batch, [table])], last * 1000)
            bins = {round(one.t * 1000) // QUARTER_MS * QUARTER_MS for one in mine}
            marks: list[Bin] = [("rain", LATE, start) for start in bins]
            await asyncio.to_thread(self._books.mark, marks)
            self._newest[station] = mine[-1].t
        return sum(len(mine) for mine in fresh.values())


def plausible(values: Sequence[TenMinutes], now: float) -> list[TenMinutes]:
    """Values that a gauge could have measured lately; others would hide what follows.

    Parameters
    ----------
    values : sequence of TenMinutes
        As the source gives them.
    now : float
        POSIX time [s].
    """
    high = BY_NAME["rain_gauge"]["rain_mm"].high
    return [
        one
        for one in values
        if now - OLDEST_S <= one.t <= now + AHEAD_S and 0 <= one.mm <= high
    ]


def fetch(source: str) -> bytes:
    """Read a file or an http address.

    Raises
    ------
    Invalid
        It cannot be read, is too large, or takes too long.
    """
    try:
        if source.startswith(("http://", "https://")):
            with urllib.request.urlopen(source, timeout=TIMEOUT_S) as answer:  # noqa: S310
                raw = _whole(answer)
        else:
            with Path(source).open("rb") as file:
                raw = file.read(MOST_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Invalid(f"cannot be read: {error}") from None
    if len(raw) > MOST_BYTES:
        raise Invalid(f"is larger than {MOST_BYTES // 1_000_000} MB")
    return raw


def _whole(answer: Any) -> bytes:
    """Body of an answer; a server that sends a byte now and then does not hold us."""
    until, parts, size = time.monotonic() + 4 * TIMEOUT_S, [], 0
    while size <= MOST_BYTES and (part := answer.read1(65_536)):
        if time.monotonic() > until:
            raise Invalid(f"does not end within {4 * TIMEOUT_S:.0f} s")
        parts.append(part)
        size += len(part)
    return b"".join(parts)
