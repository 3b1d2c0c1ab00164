"""A small city under watch: simulated lamps, their readings, and the alarm engine."""

import datetime as dt
import random
import re
from typing import Any

from duha_backend.alarms.engine import Engine, News
from duha_backend.alarms.quiet import Quiet
from duha_backend.lighting.inventory import Asset, LuminaireType
from duha_backend.lighting.nights import grid, levels
from duha_backend.lighting.roads import Roads
from duha_backend.live import Live
from duha_backend.validate import Columns
from duha_contract.lighting import Sun
from duha_contract.messages import Desired, Report, Status
from duha_contract.programmes import Calendar, Effect, Period, Place, Programme, Step
from duha_sim import physics
from tests.conftest import ROOT

_DETAILS = (ROOT / "backend" / "duha_backend" / "page" / "details.js").read_text(
    "utf-8"
)
SENTENCES = [
    re.compile(found.replace("(?<", "(?P<"))
    for found in re.findall(r"(?:\[|(?:PLAIN|DOUBTS) = )/(.+)/[,;]", _DETAILS)
]


def has_words(detail):
    """Whether the page says a detail in the language of who looks."""
    return not detail or any(one.search(detail) for one in SENTENCES)


PLACE = Place(49.7475, 13.3776, "Europe/Prague")
SUN = Sun(PLACE)
RATED_W = 62.0
POINTS = tuple(
    (x, physics.power(physics.LampType(RATED_W), x / 100)) for x in range(10, 101, 5)
)
LED62 = LuminaireType(
    "LED62", "LED 62 W", RATED_W, 0.5, curve=((0.0, 0.5), *POINTS),
    power_factor=((10.0, 0.4), (100.0, 0.9)),
)  # fmt: skip
STREET = Programme(
    "p", "P",
    (Step("sunset", 100, 60), Step("22:00", 50, 600), Step("05:00", 80, 120)),
    (Period(),), (Effect("wet_road"),),
)  # fmt: skip
CALENDAR = Calendar("c", "C", "p")


def place(name: str, kind: str, cabinet: str = "", **more: Any) -> Asset:
    return Asset(name, kind, cabinet, "d", "s", 49.7475, 13.3776, **more)


class Town:
    """`cabinets` with two feeders each, a meter, contacts; one gauge for all."""

    def __init__(self, start, cabinets=2, lamps=20, seed=1, poll_s=60.0):
        self.chance = random.Random(seed)
        self.now = dt.datetime.fromisoformat(start).timestamp()
        self.poll_s = poll_s
        self.names = [f"R{n}" for n in range(1, cabinets + 1)]
        assets = [place("SR-01", "rain_gauge", "R1")]
        for cabinet in self.names:
            assets.append(place(cabinet, "cabinet"))
            assets.append(place(f"{cabinet}-E", "meter", cabinet))
            assets.append(place(f"{cabinet}-IO", "cabinet_io", cabinet))
            for n in range(lamps):
                more = {"feeder": f"F{n % 2 + 1}", "type": "LED62" if n % 10 else ""}
                assets.append(
                    place(f"{cabinet}-L{n:02d}", "luminaire", cabinet, **more)
                )
        self.live = Live(assets)
        self.quiet: list[Quiet] = []
        self.desired: dict[str, Desired] = {}
        self.roads = Roads(self.live)
        self.engine = Engine(
            self.live, self.roads, SUN, lambda: {"LED62": LED62},
            lambda: self.desired, lambda: self.quiet,
        )  # fmt: skip
        kind = physics.LampType(RATED_W)
        self.lamps = {a.id: physics.Lamp(kind) for a in self.live.luminaires}
        self.faults: dict[Any, str] = {}
        self.contacts: dict[str, dict[str, float]] = {name: {} for name in self.names}
        self.silent: set[str] = set()
        self.status: dict[str, Any] = dict.fromkeys(self.names, "trusted")
        self.volts = 230.0
        self.wet = False
        self.raised: list[News] = []
        self.cleared: list[News] = []
        self.levels: dict[dt.date, Any] = {}
        for cabinet in self.names:
            self._told(cabinet)

    def _told(self, cabinet, hash_="h1", reported="h1"):
        self.desired[cabinet] = Desired(1, 1, hash_, 0, PLACE)
        self.live.reported(cabinet, [Report(round(self.now * 1000), 1, reported, 0)])

    def wanted(self):
        """Level of every lamp now [%], by the programme."""
        day = SUN.date_of(self.now)
        if day not in self.levels:
            times = grid(SUN, day)
            self.levels = {
                day: (times, levels({"p": STREET}, CALENDAR, (), (), SUN, times))
            }
        times, course = self.levels[day]
        level = course[min(len(course) - 1, int((self.now - times[0]) // 60))]
        return max(level, 100.0) if self.wet and level > 0 else level

    async def run(self, seconds):
        """Live on, poll by poll."""
        end = self.now + seconds
        while self.now < end:
            self.now += self.poll_s
            await self.poll()

    async def poll(self):
        ms = round(self.now * 1000)
        wanted = round(float(self.wanted()))
        for cabinet in self.names:
            if cabinet in self.silent:
                continue
            self.live.told(cabinet, Status(1, True, ms, clock=self.status[cabinet], period_s=self.poll_s))  # fmt: skip
            rows = [
                self._read(a.id, wanted)
                for a in self.live.luminaires
                if a.cabinet == cabinet and self.faults.get(a.id) != "unheard"
            ]
            self.live.take(
                cabinet, [self._table("luminaire", rows), *self._cabinet(cabinet)]
            )
        if "SR-01" not in self.faults and "R1" not in self.silent:
            mm = 0.2 if self.wet else 0.0
            self.live.take("R1", [self._table("rain_gauge", [{"device": "SR-01", "rain_mm": mm}])])  # fmt: skip
        await self.live.tick(ms + 1000)
        self.roads.weigh(ms + 1000)
        for news in self.engine.tick(ms + 1000):
            (self.raised if news.began else self.cleared).append(news)
            assert has_words(news.detail), f"details.js has no words for: {news.detail}"

    def _table(self, kind, rows):
        ms = round(self.now * 1000)
        full = [{"ts": ms, "quality": "good", **row} for row in rows]
        names = {name for row in full for name in row}
        return Columns.of(kind, {n: [row.get(n) for row in full] for n in names})

    def _cabinet(self, cabinet):
        lost = self.faults.get(cabinet) == "supply"
        volts = 0.0 if lost else self.volts
        meter = {f"voltage_l{p}_v": volts for p in (1, 2, 3)}
        contacts = {
            "door_open": 0, "supply_ok": 1, "breaker_tripped": 0, "contactor_commanded": 1,
            "contactor_on": 1, "local_override": 0, "leakage_ma": 8,
        } | self.contacts[cabinet]  # fmt: skip
        return [
            self._table("meter", [{"device": f"{cabinet}-E", **meter}]),
            self._table("cabinet_io", [{"device": f"{cabinet}-IO", **contacts}]),
        ]

    def _read(self, name, wanted):
        asset = self.live.assets[name]
        fault = self.faults.get(name)
        segment = self.faults.get(f"{asset.cabinet}/{asset.feeder}")
        if "dead" in (fault, segment) or self.faults.get(asset.cabinet) == "supply":
            return {"device": name, "quality": "no_answer"}
        if (
            fault is None and self.chance.random() < 0.002
        ):  # a missed answer now and then
            return {"device": name, "quality": "no_answer"}
        lamp = self._lamp(name, wanted, fault)
        noise = self.chance.gauss(1, 0.01)
        share = {"weak": 0.6, "hungry": 1.4}.get(fault or "", 1.0)
        return {
            "device": name,
            "level_commanded_pct": wanted,
            "level_in_effect_pct": wanted,
            "level_actual_pct": 100 * lamp.light,
            "power_w": physics.lamp_power(lamp) * noise * share,
            "burning_h": lamp.burning_s / 3600,
            "driver_temperature_c": 101.0 if fault == "hot" else lamp.temperature_c,
            "voltage_v": {"over": 258.0, "under": 201.0}.get(
                fault or "", self.volts * noise
            ),
            "switch_ons": lamp.switch_ons,
            "lamp_failure": float(lamp.burnt_out),
            "gear_failure": float(fault == "gear"),
            "power_factor": 0.2 if fault == "factor" else 0.5 + 0.47 * lamp.light,
        }

    def _lamp(self, name, wanted, fault):
        lamp = self.lamps[name]
        level = {"day": 100.0, "stuck": 30.0 if wanted else 0.0}.get(
            fault or "", wanted
        )
        if fault == "cycling":
            level = 0.0 if lamp.setpoint and self.chance.random() < 0.5 else wanted
        if lamp.burnt_out != (fault == "burnt"):
            lamp = physics.Lamp(lamp.type, energy_wh=lamp.energy_wh, switch_ons=lamp.switch_ons, burnt_out=fault == "burnt")  # fmt: skip
        lamp = physics.set_level(lamp, level / 100)
        self.lamps[name] = physics.advance_lamp(lamp, self.poll_s, 8.0)
        return self.lamps[name]


def codes(news):
    return [(one.code, one.object) for one in news]


def at(found, code, name):
    """When an alarm was raised first [s]."""
    return next(
        one.ts / 1000 for one in found if (one.code, one.object) == (code, name)
    )
