"""The city as it is now, in memory: one byte of state a luminaire, and its figures.

The page draws from bytes and diffs: 0 to 100 is the light that a luminaire gives [%],
above that is why nobody knows, or what is wrong.
"""

import asyncio
import datetime as dt
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from duha_backend.registry import Asset
from duha_backend.validate import Columns
from duha_contract.messages import Report, Status

UNKNOWN, STALE, NO_ANSWER, DIVERGED, FAILURE = 101, 110, 111, 130, 140
NAMES = {
    UNKNOWN: "unknown",
    STALE: "stale",
    NO_ANSWER: "no_answer",
    DIVERGED: "diverged",
    FAILURE: "lamp_failure",
}
STALE_PERIODS = 1.65
"""So that two poll cycles after a controller has died its cabinet is shown as stale."""
RAIN_KEPT_MS = 24 * 3600 * 1000


@dataclass
class Controller:
    """What is known of a controller."""

    id: str
    status: Status | None = None
    period_s: float = 10.0
    last_batch_ms: int | None = None
    report: Report | None = None
    stale: bool = True


@dataclass
class Tick:
    """One event for the pages: what has changed since the tick before."""

    seq: int
    now: int
    indexes: list[int]
    states: list[int]
    figures: dict[str, Any]


@dataclass
class Reading:
    """The last reading of a device."""

    ts: int
    quality: str
    values: dict[str, Any] = field(default_factory=dict)


class Live:
    """State of every asset; fed by ingest, read by API and control.

    Parameters
    ----------
    assets : iterable of Asset
        Order of luminaires here is the order of the state bytes.
    """

    def __init__(self, assets: Iterable[Asset]) -> None:
        self.assets = {asset.id: asset for asset in assets}
        self.luminaires = [a for a in self.assets.values() if a.kind == "luminaire"]
        self.index = {a.id: i for i, a in enumerate(self.luminaires)}
        self.owners = {a.id: a.cabinet for a in self.assets.values() if a.cabinet}
        self.state = bytearray([UNKNOWN]) * len(self.luminaires)
        self.latest: dict[str, Reading] = {}
        self.controllers: dict[str, Controller] = {
            a.id: Controller(a.id) for a in self.assets.values() if a.kind == "cabinet"
        }
        self.rain: dict[str, deque[tuple[int, float]]] = {
            a.id: deque() for a in self.assets.values() if a.kind == "rain_gauge"
        }
        self.tick_now = Tick(0, 0, [], [], {})
        self._changed: set[int] = set()
        self._of_cabinet: dict[str, list[int]] = {}
        for i, asset in enumerate(self.luminaires):
            self._of_cabinet.setdefault(asset.cabinet, []).append(i)
        self._ticked = asyncio.Condition()

    def controller(self, name: str) -> Controller:
        """The controller of that name, known from now on."""
        return self.controllers.setdefault(name, Controller(name))

    def restore(self, kind: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take the last readings from the store after a start."""
        for row in rows:
            values = {k: v for k, v in row.items() if k not in _LEAD}
            ts = ms_of(row["ts"])
            self._put(kind, row["device"], Reading(ts, row["quality"], values))
            controller = self.controller(row["controller"])
            controller.last_batch_ms = max(controller.last_batch_ms or 0, ts)

    def restore_rain(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take the rain of the last day from the store after a start."""
        for row in rows:
            fallen = self.rain.setdefault(row["device"], deque())
            fallen.append((ms_of(row["ts"]), row["rain_mm"]))

    def take(self, controller: str, tables: Iterable[Columns]) -> None:
        """Take accepted readings; older ones than those known change nothing."""
        newest = self.controller(controller).last_batch_ms or 0
        for table in tables:
            names = [name for name in table.values if name not in _LEAD]
            columns = [table.values[name] for name in names]
            lead = (table.values[name] for name in ("device", "ts", "quality"))
            for (device, ts, quality), *row in zip(
                zip(*lead, strict=True), *columns, strict=True
            ):
                values = dict(zip(names, row, strict=True))
                self._put(table.kind, device, Reading(ts, quality, values))
                if table.kind == "rain_gauge" and values.get("rain_mm"):
                    self._rained(device, ts, values["rain_mm"])
                newest = max(newest, ts)
        self.controllers[controller].last_batch_ms = newest or None

    def reported(self, controller: str, reports: Iterable[Report]) -> None:
        """Take what a controller has made of its desired document."""
        known = self.controller(controller)
        for report in reports:
            if known.report is None or report.ts >= known.report.ts:
                known.report = report
        for i in self._of_cabinet.get(controller, ()):
            self._judge(i)

    def told(self, controller: str, status: Status) -> None:
        """Take the status of a controller."""
        known = self.controller(controller)
        known.status = status
        if status.period_s > 0:  # the last will of a controller does not know it
            known.period_s = status.period_s

    def rain_since(self, gauge: str, since_ms: int) -> float:
        """Depth [mm] that a gauge has measured since a time."""
        return sum(mm for ts, mm in self.rain.get(gauge, ()) if ts >= since_ms)

    def age_ms(self, device: str, now_ms: int) -> int | None:
        """Age of the last good reading of a device; None when there was none."""
        reading = self.latest.get(device)
        return None if reading is None else now_ms - reading.ts

    async def tick(self, now_ms: int) -> None:
        """Close a tick: find what has gone stale, and wake whoever waits."""
        for controller in self.controllers.values():
            stale = self._is_stale(controller, now_ms)
            if stale != controller.stale:
                controller.stale = stale
                for i in self._of_cabinet.get(controller.id, ()):
                    self._judge(i)
        for fallen in self.rain.values():
            while fallen and fallen[0][0] < now_ms - RAIN_KEPT_MS:
                fallen.popleft()
        indexes = sorted(self._changed)
        self._changed.clear()
        async with self._ticked:
            self.tick_now = Tick(
                self.tick_now.seq + 1,
                now_ms,
                indexes,
                [self.state[i] for i in indexes],
                self.figures(now_ms),
            )
            self._ticked.notify_all()

    async def next_tick(self, seen: int) -> Tick:
        """The tick of now, as soon as it is newer than the one that was seen."""
        async with self._ticked:
            await self._ticked.wait_for(lambda: self.tick_now.seq > seen)
            return self.tick_now

    def figures(self, now_ms: int) -> dict[str, Any]:
        """The headline figures."""
        faults = sum(s > UNKNOWN for s in self.state)
        known = [s for s in self.state if s <= 100]
        hour = now_ms - 3_600_000
        rain = [self.rain_since(gauge, hour) for gauge in self.rain]
        return {
            "luminaires": len(self.state),
            "lit": sum(s > 0 for s in known),
            "faults": faults,
            "mean_level": sum(known) / len(known) if known else 0.0,
            "power_kw": self._power_w() / 1000,
            "rain_1h_mm": max(rain, default=0.0),
            "controllers": len(self.controllers),
            "stale": sorted(c.id for c in self.controllers.values() if c.stale),
        }

    def describe(self, device: str) -> str:
        """State of a luminaire in a word: lit, off, or what is wrong."""
        state = self.state[self.index[device]]
        return NAMES.get(state) or ("lit" if state else "off")

    def _power_w(self) -> float:
        """What the meters show; lamps stand in where a cabinet has none."""
        meters = [a.id for a in self.assets.values() if a.kind == "meter"]
        shown = [
            self.latest[m].values.get("power_w") for m in meters if m in self.latest
        ]
        return float(sum(value for value in shown if value is not None))

    def _rained(self, gauge: str, ts: int, mm: float) -> None:
        fallen = self.rain.setdefault(gauge, deque())
        if (ts, mm) not in fallen:  # a batch may come twice
            fallen.append((ts, mm))

    def _put(self, kind: str, device: str, reading: Reading) -> None:
        before = self.latest.get(device)
        if before is not None and before.ts > reading.ts:
            return
        if before is not None:  # what was not read this time is what it last was
            reading.values = before.values | {
                k: v for k, v in reading.values.items() if v is not None
            }
        self.latest[device] = reading
        if kind == "luminaire" and device in self.index:
            self._judge(self.index[device])

    def _judge(self, i: int) -> None:
        """Work out the state byte of a luminaire."""
        asset = self.luminaires[i]
        controller = self.controllers.get(asset.cabinet)
        stale = controller is None or controller.stale
        report = controller.report if controller else None
        diverged = report is not None and asset.id in report.diverged
        state = _state_of(self.latest.get(asset.id), stale=stale, diverged=diverged)
        if state != self.state[i]:
            self.state[i] = state
            self._changed.add(i)

    @staticmethod
    def _is_stale(controller: Controller, now_ms: int) -> bool:
        """Whether the last data is older than it should ever be."""
        if controller.last_batch_ms is None:
            return True
        limit = STALE_PERIODS * controller.period_s * 1000
        return now_ms - controller.last_batch_ms > limit


_LEAD = frozenset(("device", "ts", "quality", "controller"))


def _state_of(reading: Reading | None, *, stale: bool, diverged: bool) -> int:
    if reading is None:
        return UNKNOWN
    if stale:
        return STALE
    if reading.quality != "good":
        return NO_ANSWER
    values = reading.values
    if values.get("lamp_failure"):
        return FAILURE
    if diverged:
        return DIVERGED
    return round(values.get("level_actual_pct") or 0)


def ms_of(moment: dt.datetime) -> int:
    """POSIX time [ms] of a UTC time without a zone."""
    return round(moment.replace(tzinfo=dt.UTC).timestamp() * 1000)


def encode_tick(tick: Tick) -> str:
    """A tick as JSON columns."""
    return msgspec.json.encode(
        {
            "seq": tick.seq,
            "now": tick.now,
            "i": tick.indexes,
            "s": tick.states,
            "figures": tick.figures,
        }
    ).decode()
