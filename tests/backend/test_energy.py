"""Energy of nights: counted, calculated, and the gap between both and the meter."""

import asyncio
import atexit
import datetime as dt
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import alembic.command
import alembic.config
import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from duha_backend import tables
from duha_backend.books import Books
from duha_backend.control import Control
from duha_backend.duck import DuckReadings
from duha_backend.energy.book import EnergyBook
from duha_backend.energy.indicators import indicators
from duha_backend.energy.nights import (  # fmt: skip
    City,
    MeterNight,
    darkness,
    meter_nights,
    settled,
)
from duha_backend.energy.paper import report
from duha_backend.energy.quarters import BEFORE, Quarters
from duha_backend.energy.settlement import Settlement
from duha_backend.keeper import Keeper
from duha_backend.lighting.inventory import Asset, LuminaireType, Stretch
from duha_backend.lighting.nights import grid, levels
from duha_backend.lighting.tariff import Tariff
from duha_backend.live import Live
from duha_backend.readings import DAY_MS, QUARTER_MS, Retention
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
            a.id: physics.Lamp(
                physics.LampType(RATED.get(a.type, 50.0)), energy_wh=5000.0
            )
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


def full_night(lamps, silent=()):
    """The readings of luminaires of 100 W lit by 80 % all night; some stop answering at once."""
    begin, end = (round(t * 1000) for t in noons(PLACE, NIGHT))
    read = Quarters.empty([lamp.id for lamp in lamps], begin, end)
    dark = np.concatenate([np.zeros(BEFORE), darkness(SUN, NIGHT)])
    read.level[:] = 80 * dark
    read.counter[:] = 5000 + np.round(np.cumsum(20 * dark), 3)
    read.answers[:] = 15
    for i, lamp in enumerate(lamps):
        if lamp.id in silent or not lamp.networked:
            gone = slice(BEFORE + 1 if lamp.id in silent else 0, None)
            read.level[i, gone] = read.counter[i, gone] = np.nan
            read.answers[i, gone] = 0
    return read


W100 = City({"W100": LuminaireType("W100", "", 100.0, 0.0)}, {})
DARK_H = darkness(SUN, NIGHT).sum() / 4


def test_lamps_without_a_type_or_a_controller_are_on_neither_side():
    known = [place(f"L{n}", "luminaire", "R1", type="W100") for n in range(2)]
    untyped = place("X1", "luminaire", "R1", type="")
    unread = place("X2", "luminaire", "R1", type="W100", networked=False)
    dark = darkness(SUN, NIGHT)
    nights = [
        settled(NIGHT, lamps, full_night(lamps), dark, W100, {}).cabinets[0]
        for lamps in (known, [*known, untyped, unread])
    ]
    alone, night = nights
    assert (night.lamps, night.measured_lamps, night.unknown_lamps) == (4, 3, 0)
    assert (night.excluded_lamps, alone.excluded_lamps) == (2, 0)
    for name in ("lamps_wh", "baseline_wh", "due_h", "covered_h", "unknown_wh"):
        assert getattr(night, name) == getattr(alone, name)
    assert night.excluded_wh == pytest.approx(80 * DARK_H, rel=0.01)
    assert night.excluded_unknown_wh == pytest.approx(100 * 24, rel=0.06)


@pytest.mark.parametrize(("hole", "glitch"), [((), None), ((40, 44), None), ((), 60), ((0, 3), 90)])  # fmt: skip
def test_the_gap_to_the_meter_stands_holes_and_glitches(hole, glitch):
    lamps = [place(f"L{n}", "luminaire", "R1", type="W100") for n in range(10)]
    begin, end = (round(t * 1000) for t in noons(PLACE, NIGHT))
    dark = darkness(SUN, NIGHT)
    active = Quarters.empty(["E"], begin, end)
    active.counter[0] = 3 + np.cumsum(np.concatenate([np.zeros(BEFORE), 0.2 * dark]))
    active.answers[:] = 15
    if hole:
        active.counter[0, BEFORE + hole[0] : BEFORE + hole[1]] = np.nan
        active.answers[0, BEFORE + hole[0] : BEFORE + hole[1]] = 0
    if glitch:
        active.counter[0, BEFORE + glitch] = 0.0
    none = Quarters.empty(["E"], begin, end)
    meters = meter_nights(["E"], ["R1"], active, none, dark, lambda _: 1000.0)
    read = full_night(lamps)
    (night,) = settled(NIGHT, lamps, read, dark, W100, meters).cabinets
    assert night.meter_wh is not None
    assert night.gap_wh is not None
    assert night.meter_wh == pytest.approx(800 * DARK_H, rel=0.01)
    assert abs(night.gap_wh) < night.uncertainty_wh < 0.03 * night.meter_wh


def test_a_meter_that_was_read_for_half_a_night_tells_no_gap():
    lamps = [place("L", "luminaire", "R1", type="W100")]
    dark = darkness(SUN, NIGHT)
    meters = {"R1": MeterNight(500.0, None, 0.5, 12.0)}
    read = full_night(lamps)
    (night,) = settled(NIGHT, lamps, read, dark, W100, meters).cabinets
    assert (night.meter_wh, night.gap_wh, night.meter_covered) == (None, None, 0.5)


def test_a_lamp_that_stops_answering_is_unknown_and_not_saved():
    lamps = [place(f"L{n}", "luminaire", "R1", type="W100") for n in range(10)]
    read = full_night(lamps, silent=("L3",))
    (night,) = settled(NIGHT, lamps, read, darkness(SUN, NIGHT), W100, {}).cabinets
    assert night.covered == pytest.approx(0.9)
    assert night.baseline_wh == pytest.approx(900 * DARK_H)
    assert night.lamps_wh == pytest.approx(720 * DARK_H, rel=0.01)
    assert night.unknown_baseline_wh == pytest.approx(100 * DARK_H)
    assert night.unknown_wh == pytest.approx(100 * 24, rel=0.06)


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


async def test_what_comes_weeks_late_settles_its_night(house):
    """An outbox of weeks, or a backend that was off: whatever is rolled up is settled."""
    books, weeks = Books(house.registry.engine), 22 * DAY_MS
    clock = Clock(lambda: (house.now + weeks) / 1000)
    keeper = Keeper(house.readings, books, Retention(), clock, house.energy.rolled)
    await house.energy.tend(house.now + weeks)
    assert house.energy.book.settled(NIGHT) == set()
    await house.live_a_night()
    keeper._store = house.readings
    quarters = [house.quarter(n) for n in range(0, 96, 12)]
    books.mark([(kind, "15m", start) for kind in ("luminaire", "meter") for start in quarters])  # fmt: skip
    await keeper.tend()
    assert len(house.energy.book.marked()) == 8
    await house.energy.tend(house.now + weeks)
    assert NIGHT in house.energy.book.settled(NIGHT)
    assert house.energy.book.marked() == []
    (line,) = house.energy.book.report(NIGHT, NIGHT + dt.timedelta(days=1))
    assert line.covered == 1
    assert not line.partial


async def test_nights_of_which_nothing_was_read_are_unknown_and_in_every_sum(house):
    await house.live_a_night()
    await house.energy.tend(house.now)
    for _ in range(10):  # a few nights in one go
        await house.energy.tend(house.now + 5 * DAY_MS)
    assert len(house.energy.book.settled(NIGHT)) == 6
    one, *rest = house.energy.book.report(NIGHT, NIGHT + dt.timedelta(days=6), "night")
    for night in rest:
        assert (night.covered, night.partial, night.saved_kwh) == (0, True, 0)
        assert night.unknown_high_kwh == pytest.approx(3.24 * 24, rel=0.06)
    (year,) = house.energy.book.report(NIGHT, NIGHT + dt.timedelta(days=6), "year")
    assert year.saved_kwh == one.saved_kwh
    assert year.covered == pytest.approx(1 / 6, abs=0.01)
    assert year.partial


async def test_a_settled_night_outlives_its_readings(house):
    await house.live_a_night()
    await house.energy.settle(NIGHT)
    await house.energy.settle(NIGHT + dt.timedelta(days=1))
    span = (NIGHT, NIGHT + dt.timedelta(days=2))
    before = house.energy.book.report(*span, "night")
    await house.readings.expire(Retention(0, 0, 0), house.now + 10 * DAY_MS)
    for n in range(2):
        assert await house.energy.settle(NIGHT + dt.timedelta(days=n)) == []
    assert house.energy.book.report(*span, "night") == before
    assert [line.covered for line in before] == [1, 0]


async def test_a_night_that_fails_is_set_aside_and_the_others_are_settled(
    house, monkeypatch
):
    await house.live_a_night()
    settle = house.energy.settle
    failing = NIGHT - dt.timedelta(days=1)

    async def fails(night):
        if night == failing:
            raise ValueError("no such night")
        return await settle(night)

    monkeypatch.setattr(house.energy, "settle", fails)
    house.energy.rolled("luminaire", house.quarter(-10))
    for _ in range(5):
        await house.energy.tend(house.now)
    assert house.energy.book.settled(NIGHT) == {NIGHT}
    assert list(house.energy.aside) == [failing]
    assert house.energy.supervisor.failures == {f"energy {failing}": 3}
    house.energy.rolled("luminaire", house.quarter(-9))  # something new has come
    monkeypatch.undo()
    await house.energy.tend(house.now)
    assert house.energy.aside == {}
    assert house.energy.supervisor.failing == []


async def test_a_full_disk_only_puts_a_night_off(house, monkeypatch):
    await house.live_a_night()

    def full(*_):
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    monkeypatch.setattr(house.energy.book, "settle", full)
    for _ in range(5):
        await house.energy.tend(house.now)
    assert house.energy.book.settled(NIGHT) == set()
    assert house.energy.aside == {}
    monkeypatch.undo()
    for _ in range(8):
        await house.energy.tend(house.now)
    assert house.energy.book.settled(NIGHT) == {NIGHT}


async def test_a_cabinet_that_cannot_be_judged_is_unknown_and_stops_no_other(
    tmp_path, monkeypatch
):
    extra = [place("R3", "cabinet"), place("R3-L1", "luminaire", "R3", type="odd")]
    house = House(tmp_path, extra)
    await house.live_a_night()
    odd = LuminaireType("odd", "odd", 50.0, 0.5, clo=((0.0, 90.0), (float("nan"),)))  # type: ignore[arg-type]
    kinds = {kind.id: kind for kind in house.registry.all(LuminaireType)} | {"odd": odd}  # fmt: skip
    city = City(kinds, {})
    monkeypatch.setattr(house.energy, "_city", lambda _: (Tariff(), city))
    found = {night.cabinet: night for night in await house.energy.settle(NIGHT)}
    await house.close()
    assert found["R1"].covered == found["R2"].covered == 1
    assert (found["R3"].covered, found["R3"].baseline_wh) == (0, 0)
    assert found["R3"].unknown_wh == pytest.approx(50 * 24, rel=0.06)
    assert list(house.energy.supervisor.failures) == ["energy of R3"]


async def test_coverage_of_nights_settled_by_an_older_version_is_unknown(house):
    await house.live_a_night()
    await house.energy.settle(NIGHT)
    with house.registry.engine.begin() as db:
        db.execute(sa.text("UPDATE energy SET due_h = NULL, covered_h = NULL, unknown_wh = NULL, unknown_baseline_wh = NULL, saved_uncertainty_wh = NULL, excluded_lamps = NULL, excluded_wh = NULL, excluded_unknown_wh = NULL, meter_covered = NULL"))  # fmt: skip
    span = (NIGHT, NIGHT + dt.timedelta(days=1))
    (line,) = house.energy.book.report(*span)
    assert line.covered is None
    assert line.partial
    assert line.unknown_high_kwh is None
    assert house.energy.book.gaps(NIGHT)[0]["covered"] is None
    assert report("Plzeň", *span, [line], []).startswith(b"%PDF")


async def test_an_old_registry_keeps_its_nights(tmp_path):
    url = f"sqlite:///{tmp_path}/registry.db"
    engine = sa.create_engine(url)
    config = alembic.config.Config()
    folder = Path(tables.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    with engine.begin() as db:
        config.attributes["connection"] = db
        alembic.command.upgrade(config, "0005")
        columns = {c["name"]: c for c in sa.inspect(db).get_columns("energy")}
        row = {n: 1.0 if isinstance(c["type"], sa.Float) else "x" for n, c in columns.items()}  # fmt: skip
        row |= {"night": "2026-11-20", "lamps": 3, "measured_lamps": 3, "unknown_lamps": 0}  # fmt: skip
        names = ", ".join(row)
        db.execute(sa.text(f"INSERT INTO energy ({names}) VALUES ({', '.join(':' + n for n in row)})"), row)  # fmt: skip
    engine.dispose()
    registry = Registry(url)
    (line,) = EnergyBook(registry.engine).report(NIGHT, NIGHT + dt.timedelta(days=1))
    registry.close()
    assert (line.lamps, line.kwh, line.covered, line.partial) == (3, 0.001, None, True)


@pytest.mark.parametrize(("date", "hours"), [
    (dt.date(2026, 6, 20), 0.0), (dt.date(2026, 12, 20), 24.0),
])  # fmt: skip
def test_light_is_due_in_polar_nights_and_never_on_polar_days(date, hours):
    tromso = Sun(Place(69.65, 18.96, "Europe/Oslo"))
    assert darkness(tromso, date).sum() / 4 == hours


@pytest.mark.parametrize(("date", "quarters"), [
    (dt.date(2026, 3, 28), 92), (dt.date(2026, 10, 24), 100), (NIGHT, 96),
])  # fmt: skip
def test_light_is_due_from_sunset_to_sunrise_in_nights_of_any_length(date, quarters):
    dark = darkness(SUN, date)
    night = SUN.night(date)
    assert night is not None
    assert len(dark) == quarters
    assert dark.sum() * 900 == pytest.approx(night.sunrise - night.sunset)


async def test_the_energy_of_a_stretch_is_of_its_own_lamps(tmp_path):
    """Two stretches of one cabinet: 2 x 100 W and 2 x 20 W, lit all night, 1000 m² each."""
    lamps = [
        place(f"L{n}", "luminaire", "R1", type=kind_, stretch=stretch)
        for n, (kind_, stretch) in enumerate([("W100", "a"), ("W100", "a"), ("W20", "b"), ("W20", "b")])
    ]  # fmt: skip
    types = {f"W{w}": LuminaireType(f"W{w}", "", float(w), 0.0) for w in (100, 20)}
    begin, end = (round(t * 1000) for t in noons(PLACE, NIGHT))
    read = Quarters.empty([lamp.id for lamp in lamps], begin, end)
    dark = darkness(SUN, NIGHT)
    read.level[:, BEFORE:] = 100 * dark
    read.answers[:] = 15
    found = settled(NIGHT, lamps, read, dark, City(types, {}), {})
    per_m2 = {one.stretch: one.lamps_wh / 1000 for one in found.stretches}
    hours = dark.sum() / 4
    assert per_m2["a"] == pytest.approx(0.2 * hours, rel=0.01)
    assert per_m2["b"] == pytest.approx(0.04 * hours, rel=0.01)


@pytest.mark.parametrize("quarters", [2, 36, 96])
def test_a_night_read_in_part_saves_only_what_was_read(quarters):
    """A 100 W lamp at full light all night saves nothing, however little of it is read."""
    lamp = place("L1", "luminaire", "R1", type="W100")
    types = {"W100": LuminaireType("W100", "", 100.0, 0.0)}
    begin, end = (round(t * 1000) for t in noons(PLACE, NIGHT))
    read = Quarters.empty(["L1"], begin, end)
    dark = darkness(SUN, NIGHT)
    first = BEFORE + 20
    here = slice(BEFORE, None) if quarters == 96 else slice(first, first + quarters)
    read.level[0, here] = np.concatenate([np.zeros(BEFORE), 100 * dark])[here]
    read.counter[0, here] = (5000 + np.cumsum(np.concatenate([np.zeros(BEFORE), 25 * dark])))[here]  # fmt: skip
    read.answers[0, here] = 15
    (night,) = settled(NIGHT, [lamp], read, dark, City(types, {}), {}).cabinets
    saved = night.baseline_wh - night.lamps_wh
    assert abs(saved) <= night.saved_uncertainty_wh < 65 + 0.06 * night.lamps_wh
    assert night.covered == pytest.approx(min(1, quarters / (dark.sum() or 1)), abs=0.03)  # fmt: skip


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
