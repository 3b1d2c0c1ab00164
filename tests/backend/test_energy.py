"""Energy of nights: counted, calculated, and the gap between both and the meter."""

import asyncio
import atexit
import datetime as dt
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import pytest

from duha_backend.control import Control
from duha_backend.duck import DuckReadings
from duha_backend.energy.indicators import indicators
from duha_backend.energy.paper import report
from duha_backend.energy.settlement import Settlement
from duha_backend.lighting.inventory import Asset, LuminaireType, Stretch
from duha_backend.lighting.nights import grid, levels
from duha_backend.lighting.tariff import Tariff
from duha_backend.live import Live
from duha_backend.readings import QUARTER_MS
from duha_backend.registry import Registry
from duha_backend.validate import Columns, Examined
from duha_contract.clock import Clock
from duha_contract.lighting import Sun
from duha_contract.messages import Batch
from duha_contract.programmes import Calendar, Period, Place, Programme, Step, noons
from duha_sim import physics

PLACE = Place(49.7475, 13.3776, "Europe/Prague")
SUN = Sun(PLACE)
NIGHT = dt.date(2026, 11, 20)
STREET = Programme(
    "p", "P", (Step("sunset", 100, 60), Step("22:00", 50, 600), Step("05:00", 80)),
    (Period(),),
)  # fmt: skip
CALENDAR = Calendar("c", "C", "p")
NIGHTS = Path(tempfile.mkdtemp(prefix="duha-nights-"))
atexit.register(shutil.rmtree, NIGHTS, ignore_errors=True)
RATED = {"LED62": 62.0, "LED38": 38.0}
POLL_S = 300


def kind(name):
    lamp = physics.LampType(RATED[name])
    points = [(x, physics.power(lamp, x / 100)) for x in range(10, 101, 10)]
    return LuminaireType(name, name, RATED[name], 0.5, curve=((0.0, 0.5), *points))


def place(name, kind_, cabinet="", **more):
    return Asset(
        name, kind_, cabinet, more.pop("district", "d"), "s", 49.7475, 13.3776, **more
    )


def assets(lamps=30):
    found = []
    for cabinet in ("R1", "R2"):
        found.append(place(cabinet, "cabinet"))
        found.append(place(f"{cabinet}-E", "meter", cabinet))
        for n in range(lamps):
            more = {"type": "LED62" if n % 3 else "LED38", "district": cabinet}
            found.append(place(f"{cabinet}-L{n}", "luminaire", cabinet, **more))
    return found


class House:
    """A store, a registry and a settlement over a simulated night."""

    def __init__(self, folder, extra=()):
        self.registry = Registry.in_folder(folder)
        self.assets = [*assets(), *extra]
        self.live = Live(self.assets)
        self.path = folder / "readings.duckdb"
        self.readings = DuckReadings(self.path)
        end = noons(PLACE, NIGHT)[1]
        clock = Clock(lambda: end + 3600)
        self.desk = Control(self.registry, self.live, clock, PLACE, self._publish).desk
        for name in RATED:
            self.registry.save(kind(name))
        self.registry.save(STREET)
        self.registry.save(CALENDAR)
        self.registry.assign("*", "c")
        self.energy = Settlement(self.readings, self.registry, self.live, self.desk)
        self.now = round(1000 * (end + 3600))

    def quarter(self, n):
        """When a quarter of the night begins [ms]."""
        return round(noons(PLACE, NIGHT)[0] * 1000) + n * QUARTER_MS

    async def _publish(self, *_):
        pass

    async def close(self):
        await self.readings.close()
        self.registry.close()

    async def live_a_night(self, theft=0.0, misses=()):
        """Poll real lamp physics through a night; R2's meter sees a theft.

        What a night has left in the store is kept for the tests after it.
        """
        kept = NIGHTS / f"{theft}-{'-'.join(misses)}-{len(self.assets)}.duckdb"
        if not kept.exists():
            await self._live_a_night(theft, misses)
            await self.readings.close()
            shutil.copy(self.path, kept)
        else:
            await self.readings.close()
            shutil.copy(kept, self.path)
        self.readings = DuckReadings(self.path)
        self.energy._readings = self.readings

    async def _live_a_night(self, theft, misses):
        times = grid(SUN, NIGHT, 1, POLL_S)
        course = levels({"p": STREET}, CALENDAR, (), (), SUN, times)
        lamps = {
            a.id: physics.Lamp(physics.LampType(RATED[a.type]), energy_wh=5000.0)
            for a in self.live.luminaires
            if a.networked
        }
        meters = {"R1": physics.Meter(), "R2": physics.Meter()}
        stolen = 0.0
        messages = []
        for number, (t, level) in enumerate(
            zip(times.tolist(), course.tolist(), strict=True)
        ):
            rows = []
            for name, lamp in lamps.items():
                lamps[name] = physics.advance_lamp(physics.set_level(lamp, level / 100), POLL_S, 8.0)  # fmt: skip
                if name not in misses or number == 0:
                    rows.append((name, 100 * lamps[name].light, lamps[name].energy_wh))
            for cabinet, meter in meters.items():
                mine = [
                    lamp for name, lamp in lamps.items() if name.startswith(cabinet)
                ]
                meters[cabinet] = physics.advance_meter(
                    meter, (mine[0::3], mine[1::3], mine[2::3]), POLL_S
                )
                if cabinet == "R2":
                    stolen += (
                        theft * sum(map(physics.lamp_power, mine)) * POLL_S / 3.6e6
                    )
            messages.append(
                self._message(number, round(t * 1000), rows, meters, stolen)
            )
        for start in range(0, len(messages), 50):
            await self.readings.write(messages[start : start + 50], self.now)
        for start in range(round(times[0]) * 1000, round(times[-1]) * 1000, QUARTER_MS):
            for what in ("luminaire", "meter"):
                await self.readings.roll(what, "15m", start)

    def _message(self, number, ts, rows, meters, stolen):
        names, level, energy = zip(*rows, strict=True)
        n = len(rows)
        lamps = {
            "device": names, "ts": [ts] * n, "quality": ["good"] * n,
            "level_actual_pct": level, "energy_wh": energy,
        }  # fmt: skip
        shown = {
            "device": ["R1-E", "R2-E"], "ts": [ts] * 2, "quality": ["good"] * 2,
            "energy_kwh": [meters["R1"].energy_kwh, meters["R2"].energy_kwh + stolen],
            "reactive_energy_kvarh": [m.reactive_kvarh for m in meters.values()],
        }  # fmt: skip
        batch = Batch(1, "b", "o", number + 1, "trusted")
        tables = [Columns.of("luminaire", lamps), Columns.of("meter", shown)]
        return Examined("R1", batch, tables)


@pytest.fixture
async def house(tmp_path):
    made = House(tmp_path)
    yield made
    await made.close()


async def test_measured_and_calculated_energy_agree_within_a_percent(house):
    await house.live_a_night()
    house.registry.save(Tariff(cabinet_w=8.0))
    for night in await house.energy.settle(NIGHT):
        assert (night.lamps, night.measured_lamps, night.unknown_lamps) == (30, 30, 0)
        assert night.measured_wh > 10_000
        assert night.calculated_wh == pytest.approx(night.measured_wh, rel=0.01)
        assert night.covered == 1
        hours = 15.2
        assert night.burning_h == pytest.approx(hours, abs=0.3)
        gap = night.gap_wh
        assert abs(gap) < night.uncertainty_wh
        assert night.baseline_wh == pytest.approx((20 * 62 + 10 * 38) * 15.17, rel=0.01)
        assert night.reactive_varh > 0


@pytest.mark.system
async def test_a_theft_of_three_percent_stands_out_and_nothing_else(house):
    house.registry.save(Tariff(cabinet_w=8.0))
    await house.live_a_night(theft=0.03)
    await house.energy.settle(NIGHT)
    found = {row["cabinet"]: row for row in house.energy.book.gaps(NIGHT)}
    assert found["R2"]["stands_out"]
    assert found["R2"]["gap_pct"] == pytest.approx(2.9, abs=0.3)
    assert not found["R1"]["stands_out"]
    assert found["R1"]["uncertainty_pct"] < 2.9


async def test_lamps_without_a_type_or_a_controller_are_on_neither_side(tmp_path):
    extra = [
        place("R1-X1", "luminaire", "R1", type="LED62", networked=False, district="R1"),
        place("R1-X2", "luminaire", "R1", type="", networked=False, district="R1"),
    ]
    house = House(tmp_path, extra)
    await house.live_a_night()
    found = {night.cabinet: night for night in await house.energy.settle(NIGHT)}
    await house.close()
    night, same = found["R1"], found["R2"]
    assert (night.lamps, night.measured_lamps, night.unknown_lamps) == (32, 30, 1)
    assert (night.excluded_lamps, same.excluded_lamps) == (2, 0)
    assert night.lamps_wh == pytest.approx(same.lamps_wh)
    assert night.baseline_wh == pytest.approx(same.baseline_wh)
    assert night.covered == 1
    assert night.unknown_wh == 0
    assert night.excluded_unknown_wh == pytest.approx(62 * 24, rel=0.06)


async def test_a_lamp_that_stops_answering_is_unknown_and_not_saved(tmp_path):
    house = House(tmp_path)
    await house.live_a_night(misses={"R1-L1"})
    found = {night.cabinet: night for night in await house.energy.settle(NIGHT)}
    await house.close()
    night, same = found["R1"], found["R2"]
    assert night.covered == pytest.approx(29 / 30, abs=0.01)
    assert night.baseline_wh == pytest.approx(same.baseline_wh - 62 * 15.17, rel=0.01)
    assert night.unknown_baseline_wh == pytest.approx(62 * 15.17, rel=0.01)
    assert night.unknown_wh == pytest.approx(62 * 24, rel=0.06)
    assert night.lamps_wh == pytest.approx(same.lamps_wh * (1 - 62 / 1620), rel=0.02)


async def test_marked_nights_are_settled_once_and_late_readings_settle_them_again(
    house,
):
    await house.live_a_night()
    await house.energy.tend(house.now)
    assert house.energy.book.settled(NIGHT) == {NIGHT}
    span = (NIGHT, NIGHT + dt.timedelta(days=1))
    (before,) = house.energy.book.report(*span)
    house.registry.save(Tariff(price_per_kwh=5.0, co2_kg_per_kwh=0.4, source="x"))
    await house.energy.tend(house.now + 24 * 3_600_000)  # nothing has come
    assert house.energy.book.report(*span) == [before]
    house.energy.rolled("luminaire", house.quarter(10))
    await house.energy.tend(house.now + 9 * 24 * 3_600_000)
    (after,) = house.energy.book.report(*span)
    assert before.cost is None
    assert after.cost == pytest.approx(5 * after.kwh, rel=1e-3)
    assert after.saved_co2_kg == pytest.approx(0.4 * after.saved_kwh, rel=1e-3)
    assert house.energy.book.marked() == []


async def test_nights_without_a_reading_cost_nothing(tmp_path):
    """A new city of any size settles its past nights without an array for each of them."""
    many = [place(f"R1-M{n}", "luminaire", "R1") for n in range(20_000)]
    house = House(tmp_path, many)
    try:
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        await house.energy.tend(house.now)
        most = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
        await house.close()
    assert house.energy.book.settled(NIGHT) == set()
    assert most < 5_000_000, f"{most / 1e6:.1f} MB"  # an array of a night has 15 MB


async def test_reports_add_up_by_month_year_and_district(house):
    await house.live_a_night()
    await house.energy.settle(NIGHT)
    book = house.energy.book
    span = (NIGHT, NIGHT + dt.timedelta(days=1))
    (city,) = book.report(*span, "year")
    districts = book.report(*span, "night", "district")
    assert (city.period, city.lamps, city.nights) == ("2026", 60, 1)
    assert [line.part for line in districts] == ["R1", "R2"]
    assert sum(line.kwh for line in districts) == pytest.approx(city.kwh, abs=0.01)
    assert city.saved_kwh == pytest.approx(city.baseline_kwh - city.kwh, abs=0.01)
    assert book.report(*span, "month", "cabinet", "R2") == [
        districts[1]._replace(period="2026-11")
    ]
    (terms,) = book.terms(*span)
    assert "undimmed from sunset to sunrise" in terms["baseline"]


async def test_the_report_on_paper_is_a_pdf_in_both_languages(house):
    await house.live_a_night()
    await house.energy.settle(NIGHT)
    span = (NIGHT, NIGHT + dt.timedelta(days=1))
    lines = house.energy.book.report(*span, "night", "district")
    terms = house.energy.book.terms(*span)
    for language in ("cs", "en"):
        made = await asyncio.to_thread(report, "Plzeň", *span, lines, terms, language)
        assert made.startswith(b"%PDF")
        assert len(made) > 10_000
    assert report("Plzeň", *span, [], []).startswith(b"%PDF")


def test_indicators_of_en_13201_5():
    """50 lamps of 62 W on 1500 m x 8 m of class P3: 3100 W / (7.5 lx x 12,000 m²)."""
    street = Stretch("s", "S", "P3", length_m=1500, width_m=8)
    found = indicators(street, 50 * 62.0, 50 * 62.0 * 4000)
    assert found.density_w_lx_m2 == pytest.approx(0.03444, abs=1e-5)
    assert found.annual_wh_m2 == pytest.approx(1033.3, abs=0.1)
    assert not found.converted
    road = indicators(Stretch("s", "S", "M4", length_m=1500, width_m=8), 3100, 0)
    assert road.illuminance_lx == pytest.approx(0.75 / 0.07)
    assert road.converted
    assert indicators(Stretch("s", "S"), 3100, 0).density_w_lx_m2 is None
