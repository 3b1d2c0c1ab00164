"""Finds alarms in the city as it is now, and one cause for many symptoms.

Readings are looked at in columns, a second's worth at a time. A dead segment is one alarm
and not eighty: lamps whose whole segment is silent are not raised themselves, nor is
anything in a cabinet that does not report.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from duha_backend.alarms import lamps as detect
from duha_backend.alarms.controllers import clock_error, failed_parts, late
from duha_backend.alarms.kinds import KINDS
from duha_backend.alarms.quiet import Quiet, is_quiet
from duha_backend.alarms.timers import Holds, Timer
from duha_backend.latest import Reading
from duha_backend.lighting.inventory import Asset, LuminaireType
from duha_backend.lighting.roads import Roads
from duha_backend.live import Live
from duha_backend.validate import Array
from duha_contract.lighting import Sun
from duha_contract.messages import Desired

LAMP_CODES = (
    "lampFailure", "lampUnexpectedOn", "dimmingFailure", "lampPowerTooHigh",
    "lampPowerTooLow", "powerFactorTooLow", "supplyVoltageTooHigh",
    "supplyVoltageTooLow", "currentTooHigh", "highTemperature", "controlGearFailure",
    "cyclingFailure",
)  # fmt: skip
SILENT, SEGMENT = "controlGearCommFailure", "segmentFailure"
LEAST_MISSES = 3
"""Answers missed in a row before a luminaire counts as silent."""
SEGMENT_SHARE, SEGMENT_LEAST = 0.8, 3
NO_VOLTAGE_V = 100.0
MOST_LEAKAGE_MA = 100.0
DRY_LEAK_KEPT_S = 7 * 86_400.0
MISSING_S = 900.0
MISSING_EVERY_S = 30.0
CONTROLLERS_EVERY_S = 5.0
NOT_LOOKED_AT = -1
WATCHED = ("luminaire", "meter", "cabinet_io")
ROOTS = ("supplyLoss", "circuitBreakerTripped", "switchingErrorOff")
"""Alarms of a cabinet that explain why its segments are silent."""


Barrier = Callable[[str], contextlib.AbstractContextManager[None]]
"""Makes a context, by its name, out of which no exception comes."""


def no_barrier(_name: str) -> contextlib.AbstractContextManager[None]:
    """No barrier: an exception ends the look."""
    return contextlib.nullcontext()


class News(NamedTuple):
    """An alarm begins, or is over.

    `object` is an asset, or ``cabinet/feeder`` for a segment; `affected` counts the
    luminaires that it explains.
    """

    code: str
    object: str
    cabinet: str
    began: bool
    ts: int
    detail: str = ""
    affected: int = 0


class Engine:
    """Watches the city.

    Parameters
    ----------
    live, roads, sun : Live, Roads, Sun
        What is so, which roads are wet, the nights.
    types : callable
        Gives the types of luminaires by id.
    desired : callable
        Gives the document of each controller.
    quiet : callable
        Gives the quiet windows.
    barrier : callable, optional
        Makes a context, by its name, that keeps an exception of one check from the others.
    """

    def __init__(
        self,
        live: Live,
        roads: Roads,
        sun: Sun,
        types: Callable[[], Mapping[str, LuminaireType]],
        desired: Callable[[], Mapping[str, Desired]],
        quiet: Callable[[], Iterable[Quiet]],
        barrier: Barrier = no_barrier,
    ) -> None:
        self._barrier = barrier
        self._live = live
        self._roads = roads
        self._sun = sun
        self._types = types
        self._desired = desired
        self._quiet = quiet
        self._holds = Holds()
        self._ratings = detect.Ratings([], {})
        self._version = -1
        self._ids: list[str] = []
        self._timers: dict[str, Timer] = {}
        self._leaked_dry: dict[str, float] = {}
        self._without_supply: dict[str, dict[str, str]] = {}
        self._missing_at = 0.0
        self._looked_at = -np.inf
        self._objects: dict[str, str] = {}
        self._gone: list[tuple[str, str]] = []
        live.watch(WATCHED)

    def adopt(self, open_alarms: Iterable[tuple[str, str]]) -> None:
        """Alarms (code, object) that stood before a restart."""
        self._renew()
        rows = self._live.index
        for code, name in open_alarms:
            if name in rows and code in self._timers:
                self._timers[code].raised[rows[name]] = True
            elif code in KINDS:
                self._holds.adopt(code, name)

    def refresh(self) -> None:
        """Types of luminaires may have changed."""
        with self._barrier("alarms: types"):
            self._ratings = detect.Ratings(self._live.luminaires, self._types())

    def tick(self, now: int) -> list[News]:
        """Look at what has come since the last time; what begins and what is over."""
        self._renew()
        t = now / 1000
        news: list[News] = []
        if not self._looked_at <= t < self._looked_at + CONTROLLERS_EVERY_S:
            self._looked_at = t
            with self._barrier("alarms: quiet"):
                self._still = self._where_still(now)
            with self._barrier("alarms: controllers"):
                self._controllers(now)
        with self._barrier("alarms: cabinets"):
            self._others(now)
        with self._barrier("alarms: luminaires"):
            news += self._lamps(t)
        with self._barrier("alarms: segments"):
            self._segments(t)
        with self._barrier("alarms: missing data"):
            news += self._missing(t)
        news += self._turned(now)
        news += self._left(now)
        return news

    # -- what is there ---------------------------------------------------------------

    def _renew(self) -> None:
        """Other assets: what is known of those that stay is kept."""
        if self._version == self._live.version:
            return
        old_ids, old = self._ids, self._timers
        lamps = self._live.luminaires
        self._version = self._live.version
        self._ids = [lamp.id for lamp in lamps]
        n = len(lamps)
        self._timers = {
            c: Timer(KINDS[c], n) for c in (*LAMP_CODES, SILENT, "missingData")
        }
        before = {name: i for i, name in enumerate(old_ids)}
        kept = [(i, before[name]) for i, name in enumerate(self._ids) if name in before]
        gone = [i for name, i in before.items() if name not in self._live.index]
        for code, timer in old.items():
            self._gone += [(code, old_ids[i]) for i in gone if timer.raised[i]]
        if kept:
            to, of = np.array(kept).T
            for code, timer in self._timers.items():
                timer.since[to] = old[code].since[of]
                timer.raised[to] = old[code].raised[of]
        self._misses = np.zeros(n, dtype=np.int64)
        self._cycling = detect.Cycling(n)
        self.refresh()
        self._cabinets, self._of_cabinet = _numbered([lamp.cabinet for lamp in lamps])
        names = [f"{lamp.cabinet}/{lamp.feeder}" for lamp in lamps]
        self._segment_names, self._of_segment = _numbered(names)
        self._networked = np.array([lamp.networked for lamp in lamps], dtype=bool)
        segments = len(self._segment_names)
        lost = ~np.isnan(self._timers[SILENT].since)
        self._lost = np.bincount(self._of_segment, lost, segments).astype(np.int64)
        self._late: Array = np.zeros(segments)
        self._segment_size = np.bincount(self._of_segment, self._networked, segments)
        number = {name: i for i, name in enumerate(self._cabinets)}
        owners = [number[name.split("/")[0]] for name in self._segment_names]
        self._cabinet_of_segment = np.array(owners, dtype=np.int64)
        count = len(self._cabinets)
        self._segments_of_cabinet = np.bincount(
            self._cabinet_of_segment, minlength=count
        )
        # Every one is looked at once: what is not so any more must be noticed to be over.
        self._was_silent = np.full(segments, NOT_LOOKED_AT, dtype=np.int8)
        self._was_whole = np.full(count, NOT_LOOKED_AT, dtype=np.int8)
        self._looked_at = -np.inf
        self._still = np.zeros(n, dtype=bool)
        self._objects = {a.id: a.cabinet or a.id for a in self._live.assets.values()}

    def _cabinet_of(self, name: str) -> str:
        return self._objects.get(name) or name.split("/", maxsplit=1)[0]

    def _where_still(self, now: int) -> Array:
        """Luminaires of which nothing is expected now: quiet, or their cabinet silent."""
        quiet = is_quiet(self._quiet(), self._cabinets, self._sun, now)
        stale = [self._is_stale(name) for name in self._cabinets]
        both = np.array(stale, dtype=bool) | quiet
        return both[self._of_cabinet] if len(both) else np.zeros(0, dtype=bool)

    def _is_stale(self, cabinet: str) -> bool:
        known = self._live.controllers.get(cabinet)
        return known is None or known.stale

    # -- luminaires --------------------------------------------------------------------

    def _lamps(self, t: float) -> list[News]:
        rows = self._live.fresh("luminaire")
        rows = rows[rows < len(self._ids)]
        latest = self._live.latest["luminaire"]
        silent = self._timers[SILENT]
        still = self._still[rows]
        if len(rows):
            when = latest.ts[rows] / 1000
            answered = latest.quality[rows] == 0
            lost = ~np.isnan(silent.since[rows])
            silent.see(rows, ~answered & ~still, when)
            change = (~np.isnan(silent.since[rows])).astype(np.int64) - lost
            np.add.at(self._lost, self._of_segment[rows], change)
            self._misses[rows] = np.where(answered, 0, self._misses[rows] + 1)
            self._electric(rows[answered], when[answered])
        hidden = self._silent_segments()
        held_back = still | (self._misses[rows] < LEAST_MISSES)
        held_back |= hidden[self._of_segment[rows]]
        news = self._say(silent, rows, np.full(len(rows), t), held_back, t)
        if hidden.any():
            covered = hidden[self._of_segment] & silent.raised
            gone = silent.drop(np.flatnonzero(covered))
            news += [self._lamp_news(SILENT, row, False, t) for row in gone.tolist()]
        for code in LAMP_CODES:
            when = latest.ts[rows] / 1000
            news += self._say(self._timers[code], rows, when, None, t)
        return news

    def _electric(self, rows: Array, when: Array) -> None:
        latest = self._live.latest["luminaire"]
        values = {name: column[rows] for name, column in latest.values.items()}
        found = detect.conditions(rows, values, self._ratings)
        found["cyclingFailure"] = self._cycling.see(rows, values["switch_ons"], when)
        for code, holds in found.items():
            self._timers[code].see(rows, holds, when)

    def _say(
        self, timer: Timer, rows: Array, when: Array, held_back: Array | None, t: float
    ) -> list[News]:
        if not len(rows):
            return []
        begun, over = timer.turned(rows, when, held_back)
        code = timer.kind.code
        news = [self._lamp_news(code, row, True, t) for row in begun.tolist()]
        return news + [self._lamp_news(code, row, False, t) for row in over.tolist()]

    def _lamp_news(self, code: str, row: int, began: bool, t: float) -> News:
        lamp = self._live.luminaires[row]
        detail = self._lamp_detail(code, row) if began else ""
        return News(code, lamp.id, lamp.cabinet, began, round(t * 1000), detail, 1)

    def _lamp_detail(self, code: str, row: int) -> str:
        """The figures that an alarm rests on."""
        values = self._live.latest["luminaire"].values
        figures = {
            "lampFailure": ("power_w", "W"), "lampUnexpectedOn": ("power_w", "W"),
            "lampPowerTooHigh": ("power_w", "W"), "lampPowerTooLow": ("power_w", "W"),
            "dimmingFailure": ("level_actual_pct", "%"),
            "supplyVoltageTooHigh": ("voltage_v", "V"),
            "supplyVoltageTooLow": ("voltage_v", "V"),
            "currentTooHigh": ("current_a", "A"), "powerFactorTooLow": ("power_factor", ""),
            "highTemperature": ("driver_temperature_c", "°C"),
        }  # fmt: skip
        if code not in figures:
            return ""
        name, unit = figures[code]
        asked = values["level_commanded_pct"][row]
        said = f"{values[name][row]:g} {unit}".strip()
        return said if np.isnan(asked) else f"{said} at {asked:g} % asked"

    # -- segments and cabinets -----------------------------------------------------------

    def _silent_segments(self) -> Array:
        """Segments nearly all of whose luminaires do not answer."""
        lost = self._lost + self._late
        share = lost / np.maximum(1, self._segment_size)
        return (share >= SEGMENT_SHARE) & (lost >= SEGMENT_LEAST)

    def _segments(self, t: float) -> None:
        """Segments that are silent; where all of a cabinet are, that is one thing."""
        silent = self._silent_segments()
        for number in np.flatnonzero(silent != self._was_silent).tolist():
            size, name = int(self._segment_size[number]), self._segment_names[number]
            detail = f"{size} luminaires do not answer"
            self._holds.see(SEGMENT, name, bool(silent[number]), t, detail, size)
        self._was_silent = silent.astype(np.int8)
        whole = np.bincount(self._cabinet_of_segment, silent, len(self._cabinets))
        all_silent = (whole == self._segments_of_cabinet) & (whole > 1)
        for number in np.flatnonzero(all_silent != self._was_whole).tolist():
            cabinet = self._cabinets[number]
            size = len(self._live.of_cabinet(cabinet))
            detail = f"none of {size} luminaires answers"
            self._holds.see(SEGMENT, cabinet, bool(all_silent[number]), t, detail, size)
        self._was_whole = all_silent.astype(np.int8)

    def _controllers(self, now: int) -> None:
        desired = self._desired()
        for known in self._live.controllers.values():
            if known.id not in self._live.assets:
                continue
            # One that has just come on line has yet to send its first readings.
            told = known.status is not None and not known.status.online
            heard = known.last_batch_ms is not None or told
            affected = len(self._live.of_cabinet(known.id))
            self._holds.see(
                "communicationFailure", known.id, known.stale and heard, now / 1000,
                f"{affected} luminaires without data", affected,
            )  # fmt: skip
            wrong, said = clock_error(known)
            self._holds.see(
                "clockError", known.id, wrong and not known.stale, now / 1000, said
            )
            failed = failed_parts(known)
            self._holds.see("partFailed", known.id, bool(failed), now / 1000, failed)
            wanted = desired.get(known.id)
            behind = late(known, wanted) and heard and not known.stale
            detail = f"revision {wanted.revision}" if wanted else ""
            self._holds.see("programmeNotApplied", known.id, behind, now / 1000, detail)

    def _others(self, now: int) -> None:
        """Meters and the contacts of cabinets."""
        for kind, look in (("meter", self._meter), ("cabinet_io", self._contacts)):
            latest = self._live.latest[kind]
            fresh = set(self._live.fresh(kind).tolist())
            for name, row in latest.index.items():
                reading = latest.reading(name) if row in fresh else None
                asset = self._live.assets.get(name)
                if (
                    reading is not None
                    and asset is not None
                    and reading.quality == "good"
                ):
                    look(asset, reading, now)

    def _meter(self, asset: Asset, reading: Reading, _now: int) -> None:
        t = reading.ts / 1000
        phases = [(p, reading.values.get(f"voltage_l{p}_v")) for p in (1, 2, 3)]
        known = [(p, volts) for p, volts in phases if volts is not None]
        lost = [f"L{p}" for p, volts in known if volts < NO_VOLTAGE_V]
        detail = f"no voltage on {', '.join(lost)}"
        self._supply(asset.cabinet, "meter", bool(lost), t, detail)
        limits = {
            "supplyVoltageTooHigh": (detect.HIGHEST_V, np.inf),
            "supplyVoltageTooLow": (NO_VOLTAGE_V, detect.LOWEST_V),
        }
        for code, (low, high) in limits.items():
            wrong = [f"L{p} {volts:.0f} V" for p, volts in known if low < volts < high]
            self._holds.see(code, asset.cabinet, bool(wrong), t, ", ".join(wrong))

    def _contacts(self, asset: Asset, reading: Reading, now: int) -> None:
        t, values, cabinet = reading.ts / 1000, reading.values, asset.cabinet
        affected = len(self._live.of_cabinet(cabinet))
        asked, on = values.get("contactor_commanded"), values.get("contactor_on")
        flags = {
            "cabinetDoorOpen": values.get("door_open") == 1,
            "circuitBreakerTripped": values.get("breaker_tripped") == 1,
            "localOverride": values.get("local_override") == 1,
            "switchingErrorOn": asked == 0 and on == 1,
            "switchingErrorOff": asked == 1 and on == 0,
        }
        for code, holds in flags.items():
            self._holds.see(code, cabinet, holds, t, "", affected if holds else 0)
        self._supply(
            cabinet, "contact", values.get("supply_ok") == 0, t, "no mains voltage"
        )
        self._leakage(cabinet, values.get("leakage_ma") or 0.0, t, now)

    def _supply(
        self, cabinet: str, source: str, lost: bool, t: float, detail: str
    ) -> None:
        """Supply is lost when the meter says so, or the contact."""
        without = self._without_supply.setdefault(cabinet, {})
        without.pop(source, None)
        if lost:
            without[source] = detail
        detail = ", ".join(without.values())
        affected = len(self._live.of_cabinet(cabinet))
        self._holds.see("supplyLoss", cabinet, bool(without), t, detail, affected)

    def _leakage(self, cabinet: str, leakage_ma: float, t: float, now: int) -> None:
        """Leakage; one that comes only with rain is a joint that lets water in."""
        leaks = leakage_ma > MOST_LEAKAGE_MA
        wet = bool(self._roads.conditions.get(cabinet)) and now / 1000 - t < MISSING_S
        if leaks and not wet:
            self._leaked_dry[cabinet] = t
        lately = t - self._leaked_dry.get(cabinet, -np.inf) < DRY_LEAK_KEPT_S
        detail = f"{leakage_ma:.0f} mA"
        self._holds.see("leakageDetected", cabinet, leaks and lately, t, detail)
        joint = leaks and wet and not lately
        detail = f"{leakage_ma:.0f} mA, only while it is wet: a joint lets water in"
        self._holds.see("leakageInRain", cabinet, joint, t, detail)

    # -- missing data ----------------------------------------------------------------------

    def _missing(self, t: float) -> list[News]:
        """Things that their controller no longer reports although it reports."""
        if t - self._missing_at < MISSING_EVERY_S:
            return []
        self._missing_at = t
        latest = self._live.latest["luminaire"]
        ts = latest.ts[: len(self._ids)] / 1000
        rows = np.arange(len(self._ids))
        late = (ts > 0) & (t - ts > MISSING_S) & self._networked & ~self._still
        unheard = late & np.isnan(self._timers[SILENT].since)
        self._late = np.bincount(self._of_segment, unheard, len(self._segment_names))
        self._segments(t)
        hidden = self._silent_segments()[self._of_segment]
        timer = self._timers["missingData"]
        timer.see(rows, late, np.where(late, ts, t))
        news = self._say(timer, rows, np.full(len(rows), t), hidden | self._still, t)
        for kind in ("meter", "rain_gauge", "rain_detector", "lux", "cabinet_io"):
            for name in self._live.latest[kind].index:
                asset = self._live.assets.get(name)
                if asset is not None:
                    self._missing_thing(kind, asset, t)
        return news

    def _missing_thing(self, kind: str, asset: Asset, t: float) -> None:
        reading = self._live.latest[kind].reading(asset.id)
        if reading is None:
            return
        bad = reading.quality != "good" or t - reading.ts / 1000 > MISSING_S
        lost = bad and not self._is_stale(asset.cabinet)
        self._holds.see("missingData", asset.id, lost, t, reading.quality)

    # -- what begins and what is over --------------------------------------------------------

    def _turned(self, now: int) -> list[News]:
        return [
            News(
                code,
                name,
                self._cabinet_of(name),
                began,
                now,
                held.detail,
                held.affected,
            )
            for code, name, began, held in self._holds.turned(
                now / 1000, self._explained
            )
        ]

    def _left(self, now: int) -> list[News]:
        """Alarms of things that are no longer there are over."""
        left = self._gone + self._holds.without(self._is_there)
        self._gone = []
        return [
            News(c, name, self._cabinet_of(name), began=False, ts=now)
            for c, name in left
        ]

    def _is_there(self, name: str) -> bool:
        return (
            name in self._live.assets
            or name.split("/", maxsplit=1)[0] in self._live.assets
        )

    def _explained(self, code: str, name: str) -> bool:
        """Whether another alarm is the cause of this one."""
        if code == SEGMENT:
            cabinet = name.split("/", maxsplit=1)[0]
            roots = ROOTS if name == cabinet else (*ROOTS, SEGMENT)
            return any(self._holds.holds(root, cabinet) for root in roots)
        if code == "supplyVoltageTooLow":
            return self._holds.holds("supplyLoss", name)
        return False


def _numbered(names: list[str]) -> tuple[list[str], Array]:
    """Distinct names, and the number of each in that list."""
    numbers: dict[str, int] = {}
    of = [numbers.setdefault(name, len(numbers)) for name in names]
    return list(numbers), np.array(of, dtype=np.int64)
