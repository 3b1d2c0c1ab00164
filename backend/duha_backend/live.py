"""The city as it is now, in memory: one byte of state a luminaire, and its figures.

The page draws from bytes and diffs: 0 to 100 is the light that a luminaire gives [%],
above that is why nobody knows, or what is wrong.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from duha_backend.lighting.inventory import Asset
from duha_backend.readings import Frame, length
from duha_backend.validate import Array, Columns
from duha_contract.messages import Report, Status
from duha_contract.quantities import KINDS

UNKNOWN, NOT_NETWORKED, STALE, NO_ANSWER, DIVERGED, FAILURE = (
    101,
    102,
    110,
    111,
    130,
    140,
)
NAMES = {
    UNKNOWN: "unknown",
    NOT_NETWORKED: "not_networked",
    STALE: "stale",
    NO_ANSWER: "no_answer",
    DIVERGED: "diverged",
    FAILURE: "lamp_failure",
}
STALE_PERIODS = 1.65
"""So that two poll cycles after a controller has died its cabinet is shown as stale."""
MOST_STRANGERS = 100_000
"""Devices of a kind that nobody has registered, of which the last reading is kept."""
RAIN_KEPT_MS = 24 * 3600 * 1000


@dataclass
class Controller:
    """What is known of a controller; `diverged` since when [ms], by luminaire."""

    id: str
    status: Status | None = None
    period_s: float = 10.0
    last_batch_ms: int | None = None
    report: Report | None = None
    stale: bool = True
    diverged: dict[str, int] = field(default_factory=dict)


@dataclass
class Tick:
    """One event for the pages: what has changed since the tick before."""

    seq: int
    now: int
    indexes: list[int]
    states: list[int]
    figures: dict[str, Any]
    assets: int = 0
    overrides: int = 0

    @cached_property
    def event(self) -> bytes:
        """Its server-sent event, JSON in columns: made once for all who listen."""
        body = {
            "seq": self.seq,
            "now": self.now,
            "assets": self.assets,
            "overrides": self.overrides,
            "i": self.indexes,
            "s": self.states,
            "figures": self.figures,
        }
        data = msgspec.json.encode(body)
        return b"id: %d\nevent: tick\ndata: %s\n\n" % (self.seq, data)


@dataclass
class Reading:
    """The last reading of a device; what was not read that time is what it last was."""

    ts: int
    quality: str
    values: dict[str, float | None] = field(default_factory=dict)


QUALITIES = ("good", "no_answer", "invalid")
_CODES = {name: code for code, name in enumerate(QUALITIES)}


class Latest:
    """The last reading of every device of a kind, in columns.

    Attributes
    ----------
    index : dict of str to int
        Row of each device.
    ts : (n,) int64
        When it was read [ms]; 0 for never.
    quality : (n,) uint8
        Place in `QUALITIES`.
    values : dict of str to (n,) float64
        Each quantity; NaN where there never was a value.
    """

    def __init__(self, kind: str, devices: Iterable[str] = ()) -> None:
        self.index = {device: i for i, device in enumerate(devices)}
        n = self._registered = len(self.index)
        self.ts = np.zeros(n, dtype=np.int64)
        self.quality = np.zeros(n, dtype=np.uint8)
        self.values = {q.name: np.full(n, np.nan) for q in KINDS[kind]}
        self._encoded = (-1, b"")

    def take(self, frame: Frame) -> Array:
        """Take readings; older ones than those known change nothing. The rows changed."""
        frame = self._without_strangers(frame)
        rows = self._rows(frame["device"].tolist())
        newer = frame["ts"] >= self.ts[rows]
        if not newer.all():
            frame = {name: column[newer] for name, column in frame.items()}
            rows = rows[newer]
        if len(set(rows.tolist())) < len(rows):  # of several, the last in time stands
            order = np.argsort(frame["ts"], kind="stable")
            frame = {name: column[order] for name, column in frame.items()}
            rows = rows[order]
        self.ts[rows] = frame["ts"]
        self.quality[rows] = [_CODES[quality] for quality in frame["quality"].tolist()]
        for name, column in self.values.items():
            if name in frame:
                known = ~np.isnan(frame[name])
                column[rows[known]] = frame[name][known]
        return rows

    def _without_strangers(self, frame: Frame) -> Frame:
        """Readings without those of devices that are too many to be somebody's."""
        devices = frame["device"].tolist()
        fresh = list(dict.fromkeys(d for d in devices if d not in self.index))
        room = max(0, MOST_STRANGERS - (len(self.index) - self._registered))
        if len(fresh) <= room:
            return frame
        refused = set(fresh[room:])
        kept = np.array([device not in refused for device in devices], dtype=bool)
        return {name: column[kept] for name, column in frame.items()}

    def adopt(self, other: "Latest") -> None:
        """Take over what another knows of the devices of this one."""
        mine = [(i, other.index[d]) for d, i in self.index.items() if d in other.index]
        if not mine:
            return
        to, of = np.array(mine).T
        self.ts[to], self.quality[to] = other.ts[of], other.quality[of]
        for name, column in self.values.items():
            column[to] = other.values[name][of]

    def reading(self, device: str) -> Reading | None:
        """The last reading of a device."""
        i = self.index.get(device)
        if i is None or not self.ts[i]:
            return None
        values = {
            name: None if np.isnan(column[i]) else float(column[i])
            for name, column in self.values.items()
        }
        return Reading(int(self.ts[i]), QUALITIES[self.quality[i]], values)

    def encode(
        self, names: Sequence[str], devices: Sequence[str] | None = None
    ) -> bytes:
        """Times, qualities and some quantities of all or some devices, JSON in columns."""
        if devices is not None:
            return self._encode_some(names, devices)
        n = len(self.ts)
        if self._encoded[0] != n:  # names of 200,000 devices are written out once
            self._encoded = (n, msgspec.json.encode(list(self.index)[:n]))
        columns: dict[str, Any] = {
            "device": msgspec.Raw(self._encoded[1]),
            "ts": self.ts.tolist(),
            "quality": self.quality.tolist(),
        }
        for name in names:
            columns[name] = self.values[name].tolist()  # NaN is written as null
        return msgspec.json.encode({"qualities": QUALITIES, "columns": columns})

    def _encode_some(self, names: Sequence[str], devices: Sequence[str]) -> bytes:
        rows = np.array([self.index[device] for device in devices], dtype=np.int64)
        columns = {
            "device": list(devices),
            "ts": self.ts[rows].tolist(),
            "quality": self.quality[rows].tolist(),
        } | {name: self.values[name][rows].tolist() for name in names}
        return msgspec.json.encode({"qualities": QUALITIES, "columns": columns})

    def _rows(self, devices: list[str]) -> Array:
        """Rows of devices; those never seen get one."""
        fresh = [device for device in devices if device not in self.index]
        if fresh:
            for device in fresh:
                self.index.setdefault(device, len(self.index))
            self._grow(len(self.index))
        index = self.index
        return np.fromiter((index[d] for d in devices), np.int64, len(devices))

    def _grow(self, n: int) -> None:
        more = n - len(self.ts)
        self.ts = np.append(self.ts, np.zeros(more, dtype=np.int64))
        self.quality = np.append(self.quality, np.zeros(more, dtype=np.uint8))
        for name, column in self.values.items():
            self.values[name] = np.append(column, np.full(more, np.nan))


class Live:
    """State of every asset; fed by ingest or from the broker, read by API and control.

    Parameters
    ----------
    assets : iterable of Asset
        Order of luminaires here is the order of the state bytes.
    """

    def __init__(self, assets: Iterable[Asset]) -> None:
        self.controllers: dict[str, Controller] = {}
        self.rain: dict[str, deque[tuple[int, float]]] = {}
        self.latest = {kind: Latest(kind) for kind in KINDS}
        self.tick_now = Tick(0, 0, [], [], {})
        self.version = 0
        self._ticked = asyncio.Event()
        self._fresh: dict[str, list[Array]] = {}
        self.set_assets(assets)

    def set_assets(self, assets: Iterable[Asset]) -> None:
        """Take the assets of the city, anew; what is known of them stays known."""
        self.assets = {asset.id: asset for asset in assets}
        self.luminaires = [a for a in self.assets.values() if a.kind == "luminaire"]
        self.owners = {a.id: a.cabinet for a in self.assets.values() if a.cabinet}
        known = self.latest["luminaire"]
        lamps = self.latest["luminaire"] = Latest(
            "luminaire", [a.id for a in self.luminaires]
        )
        self.index = dict(lamps.index)
        lamps.adopt(known)
        for asset in self.assets.values():
            if asset.kind == "cabinet":
                self.controller(asset.id)
            elif asset.kind == "rain_gauge":
                self.rain.setdefault(asset.id, deque())
        self._of_cabinet: dict[str, list[int]] = {}
        for i, asset in enumerate(self.luminaires):
            self._of_cabinet.setdefault(asset.cabinet, []).append(i)
        self._others: dict[str, list[Asset]] = {}
        for asset in self.assets.values():
            if asset.kind != "luminaire" and asset.cabinet:
                self._others.setdefault(asset.cabinet, []).append(asset)
        n = len(self.luminaires)
        self._stale = np.ones(n, dtype=bool)
        self._diverged = np.zeros(n, dtype=bool)
        self._silent = np.array([not a.networked for a in self.luminaires], dtype=bool)
        self.state = np.full(n, UNKNOWN, dtype=np.uint8)
        self._changed: set[int] = set()
        self.watch(list(self._fresh))  # rows of before mean other luminaires
        for controller in self.controllers.values():
            self._spread(controller)
        self._judge(np.arange(n))
        self.version += 1

    def watch(self, kinds: Iterable[str]) -> None:
        """Keep from now on which rows of some kinds have changed, for `fresh`.

        Whoever watches asks for every kind again and again; no kind: nobody watches.
        """
        self._fresh = {kind: [] for kind in kinds}

    def fresh(self, kind: str) -> Array:
        """Rows of `latest[kind]` that have changed since this was last asked."""
        if not self._fresh.get(kind):
            return np.zeros(0, dtype=np.int64)
        found = np.unique(np.concatenate(self._fresh[kind]))
        self._fresh[kind] = []
        return found

    def of_cabinet(self, name: str) -> Sequence[int]:
        """Rows of the luminaires of a cabinet."""
        return self._of_cabinet.get(name, ())

    def lamps(self) -> bytes:
        """All luminaires as JSON in columns, in the order of the state bytes.

        What many have in common is written once: ``names``, and ``of`` which lamp has
        which of them.
        """
        columns: dict[str, Any] = {
            "id": [lamp.id for lamp in self.luminaires],
            "longitude": [lamp.longitude for lamp in self.luminaires],
            "latitude": [lamp.latitude for lamp in self.luminaires],
        }
        for name in ("cabinet", "street", "district", "pole", "asset_id"):
            codes: dict[str, int] = {}
            of = [codes.setdefault(getattr(lamp, name), len(codes)) for lamp in self.luminaires]  # fmt: skip
            columns[name] = {"names": list(codes), "of": of}
        return msgspec.json.encode(columns)

    def devices(self, kind: str, cabinet: str) -> list[Asset]:
        """Devices of a kind that hang on a cabinet."""
        if kind == "luminaire":
            return [self.luminaires[i] for i in self.of_cabinet(cabinet)]
        return [a for a in self._others.get(cabinet, ()) if a.kind == kind]

    def controller(self, name: str) -> Controller:
        """The controller of that name, known from now on."""
        return self.controllers.setdefault(name, Controller(name))

    def restore(self, kind: str, frame: Frame) -> None:
        """Take the last readings from the store after a start."""
        if not length(frame):
            return
        self._judge(self.latest[kind].take(frame), kind)
        for name, ts in zip(frame["controller"], frame["ts"].tolist(), strict=True):
            controller = self.controller(name)
            controller.last_batch_ms = max(controller.last_batch_ms or 0, ts)

    def mostly_known(self) -> bool:
        """Whether nearly every luminaire has been read."""
        known = self.latest["luminaire"].ts[: len(self.luminaires)] > 0
        return bool(known.mean() > 0.99) if len(known) else True

    def restore_rain(self, frame: Frame) -> None:
        """Take the rain of the last day from the store after a start."""
        for row in zip(frame["device"], frame["ts"].tolist(), frame["rain_mm"].tolist(), strict=True):  # fmt: skip
            self._rained(*row)

    def take(self, controller: str, tables: Iterable[Columns]) -> None:
        """Take accepted readings; older ones than those known change nothing."""
        known = self.controller(controller)
        for table in tables:
            rows = self.latest[table.kind].take(table.values)
            self._judge(rows, table.kind)
            if table.kind in self._fresh:
                self._fresh[table.kind].append(rows)
            times = table.values["ts"]
            known.last_batch_ms = max(known.last_batch_ms or 0, int(times.max()))
            if table.kind == "rain_gauge" and "rain_mm" in table.values:
                depths = table.values["rain_mm"]
                for i in np.flatnonzero(depths > 0):
                    device = table.values["device"][i]
                    self._rained(device, int(times[i]), float(depths[i]))

    def reported(self, controller: str, reports: Iterable[Report]) -> None:
        """Take what a controller has made of its desired document."""
        known = self.controller(controller)
        for report in reports:
            if known.report is None or report.ts >= known.report.ts:
                known.report = report
                known.diverged = {
                    name: known.diverged.get(name, report.ts)
                    for name in report.diverged
                }
                self._spread(known)

    def told(self, controller: str, status: Status) -> None:
        """Take the status of a controller."""
        known = self.controller(controller)
        known.status = status
        if status.period_s > 0:  # the last will of a controller does not know it
            known.period_s = status.period_s

    def diverged_since(self, device: str) -> int | None:
        """Since when [ms] a luminaire has not done what was asked; None: it does."""
        asset = self.assets.get(device)
        known = self.controllers.get(asset.cabinet) if asset else None
        return known.diverged.get(device) if known else None

    def rain_since(self, gauge: str, since_ms: int) -> float:
        """Depth [mm] that a gauge has measured since a time."""
        return sum(mm for ts, mm in self.rain.get(gauge, ()) if ts >= since_ms)

    def age_ms(self, gauge: str, now_ms: int) -> int | None:
        """Age of the last reading of a rain gauge; None when there was none."""
        reading = self.latest["rain_gauge"].reading(gauge)
        return None if reading is None else now_ms - reading.ts

    async def tick(self, now_ms: int, overrides: int = 0) -> None:
        """Close a tick: find what has gone stale, and wake whoever waits.

        `overrides` is a number that grows when an override has got further.
        """
        for controller in self.controllers.values():
            stale = self._is_stale(controller, now_ms)
            if stale != controller.stale:
                controller.stale = stale
                self._spread(controller)
        for fallen in self.rain.values():
            while fallen and fallen[0][0] < now_ms - RAIN_KEPT_MS:
                fallen.popleft()
        indexes = sorted(self._changed)
        self._changed.clear()
        self.tick_now = Tick(
            self.tick_now.seq + 1,
            now_ms,
            indexes,
            self.state[indexes].tolist(),
            self.figures(now_ms),
            self.version,
            overrides,
        )
        ticked, self._ticked = self._ticked, asyncio.Event()
        ticked.set()

    async def next_tick(self, seen: int) -> Tick:
        """The tick of now, as soon as it is newer than the one that was seen."""
        while self.tick_now.seq <= seen:
            await self._ticked.wait()
        return self.tick_now

    def figures(self, now_ms: int) -> dict[str, Any]:
        """The headline figures."""
        known = self.state[self.state <= 100]
        hour = now_ms - 3_600_000
        rain = [self.rain_since(gauge, hour) for gauge in self.rain]
        return {
            "luminaires": len(self.state),
            "lit": int((known > 0).sum()),
            "faults": int((self.state >= STALE).sum()),
            "mean_level": float(known.mean()) if len(known) else 0.0,
            "power_kw": self._power_w() / 1000,
            "rain_1h_mm": max(rain, default=0.0),
            "controllers": len(self.controllers),
            "stale": sorted(c.id for c in self.controllers.values() if c.stale),
        }

    def describe(self, device: str) -> str:
        """State of a luminaire in a word: lit, off, or what is wrong."""
        state = int(self.state[self.index[device]])
        return NAMES.get(state) or ("lit" if state else "off")

    def _power_w(self) -> float:
        """What the meters of the city show together [W]."""
        return float(np.nansum(self.latest["meter"].values["power_w"]))

    def _rained(self, gauge: str, ts: int, mm: float) -> None:
        fallen = self.rain.setdefault(gauge, deque())
        if (ts, mm) not in fallen:  # a batch may come twice
            fallen.append((ts, mm))

    def _spread(self, controller: Controller) -> None:
        """Bring what is known of a controller to its luminaires."""
        mine = self._of_cabinet.get(controller.id)
        if not mine:
            return
        rows = np.array(mine)
        self._stale[rows] = controller.stale
        named = set(controller.report.diverged) if controller.report else set()
        self._diverged[rows] = [self.luminaires[i].id in named for i in mine]
        self._judge(rows)

    def _judge(self, rows: Array, kind: str = "luminaire") -> None:
        """Work out the state bytes of some luminaires."""
        rows = rows[rows < len(self.luminaires)]  # the others nobody has registered
        if kind != "luminaire" or not len(rows):
            return
        lamps = self.latest["luminaire"]
        level = np.rint(np.nan_to_num(lamps.values["level_actual_pct"][rows]))
        found = level.astype(np.uint8)
        # What matters most comes last and stands.
        found[self._diverged[rows]] = DIVERGED
        found[lamps.values["lamp_failure"][rows] > 0] = FAILURE
        found[lamps.quality[rows] != 0] = NO_ANSWER
        found[self._stale[rows]] = STALE
        found[lamps.ts[rows] == 0] = UNKNOWN
        found[self._silent[rows]] = NOT_NETWORKED
        changed = rows[found != self.state[rows]]
        self.state[rows] = found
        self._changed.update(changed.tolist())

    @staticmethod
    def _is_stale(controller: Controller, now_ms: int) -> bool:
        """Whether the last data is older than it should ever be."""
        if controller.last_batch_ms is None:
            return True
        limit = STALE_PERIODS * controller.period_s * 1000
        return now_ms - controller.last_batch_ms > limit
