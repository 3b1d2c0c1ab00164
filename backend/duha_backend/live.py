"""The city as it is now, in memory: one byte of state a luminaire, and its figures.

The page draws from bytes and diffs: 0 to 100 is the light that a luminaire gives [%],
above that is why nobody knows, or what is wrong.

Readings are shown as they come, before they are stored: while the store is away, the city
is still seen.

Everything here is changed on the event loop only. What is read in threads hangs on `City`,
which is built whole and then swapped in; whoever needs several parts of it takes `city`
once.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from duha_backend.city import City
from duha_backend.fallen import Fallen
from duha_backend.latest import Latest
from duha_backend.lighting.inventory import Asset
from duha_backend.readings import DAY_MS, Frame, length
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
RAIN_KEPT_MS = DAY_MS
MOST_UNREGISTERED = 1000
"""Controllers that nobody has registered, of which anything is kept."""
FORGOTTEN_MS = DAY_MS
"""How long an unregistered controller or device is remembered after its last message."""
SWEEP_MS = 600_000


@dataclass
class Controller:
    """What is known of a controller.

    Attributes
    ----------
    last_batch_ms : int or None
        Time of its newest reading, by its own clock: the age of its data.
    heard : bool
        Whether a batch has come since the last tick.
    heard_ms : float or None
        When the last batch came, by the time that ticks are given: whether it is there.
    clock_skew_s : float or None
        How far its clock is ahead of the backend's, as its last live status showed [s].
    diverged : dict of str to int
        Since when [ms] each luminaire has not done what was asked.
    """

    id: str
    status: Status | None = None
    period_s: float = 10.0
    last_batch_ms: int | None = None
    heard: bool = False
    heard_ms: float | None = None
    clock_skew_s: float | None = None
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


class Live:
    """State of every asset; fed by ingest or from the broker, read by API and control.

    Parameters
    ----------
    assets : iterable of Asset
        Order of luminaires here is the order of the state bytes.
    """

    def __init__(self, assets: Iterable[Asset]) -> None:
        self.controllers: dict[str, Controller] = {}
        self.rain: dict[str, Fallen] = {}
        self.unregistered: dict[str, Controller] = {}
        self.city = City.of((), {kind: Latest(kind) for kind in KINDS}, UNKNOWN)
        self.tick_now = Tick(0, 0, [], [], {})
        self.version = 0
        self._ticked = asyncio.Event()
        self._swept_ms = float("-inf")
        self._fresh: dict[str, list[Array]] = {}
        self.set_assets(assets)

    @property
    def assets(self) -> Mapping[str, Asset]:
        """Assets of the city by id."""
        return self.city.assets

    @property
    def luminaires(self) -> list[Asset]:
        """Luminaires in the order of the state bytes."""
        return self.city.luminaires

    @property
    def owners(self) -> Mapping[str, str]:
        """Cabinet of each asset that has one."""
        return self.city.owners

    @property
    def index(self) -> Mapping[str, int]:
        """Row of each luminaire."""
        return self.city.index

    @property
    def state(self) -> Array:
        """One byte for each luminaire."""
        return self.city.state

    @property
    def latest(self) -> dict[str, Latest]:
        """The last readings by kind."""
        return self.city.latest

    def set_assets(self, assets: Iterable[Asset]) -> None:
        """Take the assets of the city, anew; what is known of them stays known."""
        city = City.of(assets, self.city.latest, UNKNOWN)
        gauges = [a.id for a in city.assets.values() if a.kind == "rain_gauge"]
        known = self.controllers | self.unregistered
        self.controllers = {
            name: known.get(name) or Controller(name)
            for name in sorted(city.registered)
        }
        self.unregistered = {
            name: controller
            for name, controller in known.items()
            if name not in city.registered
        }
        self.rain = {gauge: self.rain.get(gauge) or Fallen() for gauge in gauges}
        self.city = city
        self._changed: set[int] = set()
        self.watch(list(self._fresh))  # rows of before mean other luminaires
        for controller in self.controllers.values():
            self._spread(controller)
        self._judge(np.arange(len(city.luminaires)))
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
        return self.city.of_cabinet.get(name, ())

    def lamps(self) -> bytes:
        """All luminaires as JSON in columns, in the order of the state bytes.

        What many have in common is written once: ``names``, and ``of`` which lamp has
        which of them.
        """
        lamps = self.luminaires
        columns: dict[str, Any] = {
            "id": [lamp.id for lamp in lamps],
            "longitude": [lamp.longitude for lamp in lamps],
            "latitude": [lamp.latitude for lamp in lamps],
        }
        for name in ("cabinet", "street", "district", "pole", "asset_id"):
            codes: dict[str, int] = {}
            of = [codes.setdefault(getattr(lamp, name), len(codes)) for lamp in lamps]  # fmt: skip
            columns[name] = {"names": list(codes), "of": of}
        return msgspec.json.encode(columns)

    def devices(self, kind: str, cabinet: str) -> list[Asset]:
        """Devices of a kind that hang on a cabinet."""
        city = self.city
        if kind == "luminaire":
            return [city.luminaires[i] for i in city.of_cabinet.get(cabinet, ())]
        return [a for a in city.others.get(cabinet, ()) if a.kind == kind]

    def controller(self, name: str) -> Controller | None:
        """The controller of that name, known from now on.

        None for one that nobody has registered, when too many such are known.
        """
        known = self.controllers.get(name) or self.unregistered.get(name)
        if known is None and len(self.unregistered) < MOST_UNREGISTERED:
            known = self.unregistered[name] = Controller(name)
        return known

    def restore(self, kind: str, frame: Frame) -> None:
        """Take the last readings from the store after a start."""
        if not length(frame):
            return
        self._judge(self.latest[kind].take(frame), kind)
        newest: dict[str, int] = {}
        for name, ts in zip(frame["controller"], frame["ts"].tolist(), strict=True):
            newest[name] = max(newest.get(name, 0), ts)
        for name, ts in newest.items():
            controller = self.controller(name)
            if controller is not None:
                controller.last_batch_ms = max(controller.last_batch_ms or 0, ts)

    def mostly_known(self) -> bool:
        """Whether nearly every luminaire has been read."""
        known = self.latest["luminaire"].ts[: len(self.luminaires)] > 0
        return bool(known.mean() > 0.99) if len(known) else True

    def restore_rain(self, frame: Frame) -> None:
        """Take the rain of the last day from the store after a start."""
        if length(frame):
            self._rained(frame)

    def take(self, controller: str, tables: Iterable[Columns]) -> None:
        """Take accepted readings; older ones than those known change nothing."""
        known = self.controller(controller)
        if known is None:
            return
        known.heard = True
        for table in tables:
            rows = self.latest[table.kind].take(table.values, controller)
            self._judge(rows, table.kind)
            if table.kind in self._fresh:
                self._fresh[table.kind].append(rows)
            newest = int(table.values["ts"].max())
            known.last_batch_ms = max(known.last_batch_ms or 0, newest)
            if table.kind == "rain_gauge" and "rain_mm" in table.values:
                self._rained(table.values)

    def reported(self, controller: str, reports: Iterable[Report]) -> None:
        """Take what a controller has made of its desired document."""
        known = self.controller(controller)
        if known is None:
            return
        for report in reports:
            if known.report is None or report.ts >= known.report.ts:
                known.report = report
                known.diverged = {
                    name: known.diverged.get(name, report.ts)
                    for name in report.diverged
                }
                self._spread(known)

    def told(
        self, controller: str, status: Status, received_ms: int | None = None
    ) -> None:
        """Take the status of a controller.

        `received_ms` is when it came, where it was sent just now: one that the broker has
        kept says nothing about the clock.
        """
        known = self.controller(controller)
        if known is None:
            return
        known.status = status
        if status.period_s > 0:  # the last will of a controller does not know it
            known.period_s = status.period_s
        if received_ms is not None and status.online and status.ts > 0:
            known.clock_skew_s = (status.ts - received_ms) / 1000

    def diverged_since(self, device: str) -> int | None:
        """Since when [ms] a luminaire has not done what was asked; None: it does."""
        asset = self.assets.get(device)
        known = self.controllers.get(asset.cabinet) if asset else None
        return known.diverged.get(device) if known else None

    def rain_since(self, gauge: str, since_ms: int) -> float:
        """Depth [mm] that a gauge has measured since a time."""
        fallen = self.rain.get(gauge)
        return fallen.since(since_ms) if fallen is not None else 0.0

    def age_ms(self, gauge: str, now_ms: int) -> int | None:
        """Age of the last reading of a rain gauge; None when there was none."""
        reading = self.latest["rain_gauge"].reading(gauge)
        return None if reading is None else now_ms - reading.ts

    async def tick(
        self, now_ms: int, overrides: int = 0, *, elapsed_ms: float | None = None
    ) -> None:
        """Close a tick: find what has gone stale, and wake whoever waits.

        Parameters
        ----------
        now_ms : int
            Time of the city [ms].
        elapsed_ms : float, optional
            A time that never jumps [ms], by which controllers are there or not; `now_ms`
            by default.
        overrides : int, optional
            A number that grows when an override has got further.
        """
        elapsed = float(now_ms) if elapsed_ms is None else elapsed_ms
        for controller in (*self.controllers.values(), *self.unregistered.values()):
            stale = _is_stale(controller, now_ms, elapsed)
            if stale != controller.stale:
                controller.stale = stale
                self._spread(controller)
        for fallen in self.rain.values():
            fallen.forget(now_ms - RAIN_KEPT_MS)
        if not self._swept_ms <= elapsed < self._swept_ms + SWEEP_MS:
            self._swept_ms = elapsed
            self._sweep(now_ms, elapsed)
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

    def _sweep(self, now_ms: int, elapsed_ms: float) -> None:
        """Forget what nobody has registered and nobody has heard of for long."""
        self.unregistered = {
            name: known
            for name, known in self.unregistered.items()
            if known.heard_ms is None or elapsed_ms - known.heard_ms < FORGOTTEN_MS
        }
        before = now_ms - FORGOTTEN_MS
        for kind, latest in self.latest.items():
            rows = [latest.index[name] for name in latest.strangers]
            if not rows or latest.ts[rows].min() >= before:
                continue
            first = self.index if kind == "luminaire" else ()
            self.latest[kind] = latest.renewed(self.assets, first, before)
            if kind in self._fresh:  # other devices have moved to other rows
                self._fresh[kind] = [np.arange(len(self.latest[kind].index))]

    def figures(self, now_ms: int) -> dict[str, Any]:
        """The headline figures."""
        state = self.state
        known = state[state <= 100]
        hour = now_ms - 3_600_000
        rain = [self.rain_since(gauge, hour) for gauge in self.rain]
        return {
            "luminaires": len(state),
            "lit": int((known > 0).sum()),
            "faults": int((state >= STALE).sum()),
            "mean_level": float(known.mean()) if len(known) else 0.0,
            "power_kw": self._power_w() / 1000,
            "rain_1h_mm": max(rain, default=0.0),
            "controllers": len(self.controllers),
            "unregistered": len(self.unregistered),
            "stale": sorted(c.id for c in self.controllers.values() if c.stale),
        }

    def describe(self, device: str) -> str:
        """State of a luminaire in a word: lit, off, or what is wrong."""
        city = self.city
        state = int(city.state[city.index[device]])
        return NAMES.get(state) or ("lit" if state else "off")

    def _power_w(self) -> float:
        """What the registered meters of the city show together [W]."""
        meters = self.latest["meter"]
        power = meters.values["power_w"].copy()
        power[[meters.index[name] for name in meters.strangers]] = 0.0
        return float(np.nansum(power))

    def _rained(self, frame: Frame) -> None:
        """Take rain of registered gauges, in one frame or of several."""
        devices = frame["device"]
        for gauge in set(devices.tolist()) & self.rain.keys():
            mine = devices == gauge
            self.rain[gauge].add(frame["ts"][mine], frame["rain_mm"][mine])

    def _spread(self, controller: Controller) -> None:
        """Bring what is known of a controller to its luminaires."""
        city = self.city
        mine = city.of_cabinet.get(controller.id)
        if not mine:
            return
        rows = np.array(mine)
        city.stale[rows] = controller.stale
        named = set(controller.report.diverged) if controller.report else set()
        city.diverged[rows] = [city.luminaires[i].id in named for i in mine]
        self._judge(rows)

    def _judge(self, rows: Array, kind: str = "luminaire") -> None:
        """Work out the state bytes of some luminaires."""
        city = self.city
        rows = rows[rows < len(city.luminaires)]  # the others nobody has registered
        if kind != "luminaire" or not len(rows):
            return
        lamps = city.latest["luminaire"]
        level = np.rint(np.nan_to_num(lamps.values["level_actual_pct"][rows]))
        found = level.astype(np.uint8)
        # What matters most comes last and stands.
        found[city.diverged[rows]] = DIVERGED
        found[lamps.values["lamp_failure"][rows] > 0] = FAILURE
        found[lamps.quality[rows] != 0] = NO_ANSWER
        found[city.stale[rows]] = STALE
        found[lamps.ts[rows] == 0] = UNKNOWN
        found[city.silent[rows]] = NOT_NETWORKED
        changed = rows[found != city.state[rows]]
        city.state[rows] = found
        self._changed.update(changed.tolist())


def _is_stale(controller: Controller, now_ms: int, elapsed_ms: float) -> bool:
    """Whether no batch has come for longer than there should ever be.

    A clock of its own that is slow makes no controller stale. What is known from the store
    after a start counts by the age of the data.
    """
    if controller.heard:
        controller.heard, controller.heard_ms = False, elapsed_ms
    if controller.heard_ms is None:
        if controller.last_batch_ms is None:
            return True
        controller.heard_ms = elapsed_ms - max(0, now_ms - controller.last_batch_ms)
    limit = STALE_PERIODS * controller.period_s * 1000
    return elapsed_ms - controller.heard_ms > limit
