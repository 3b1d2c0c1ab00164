"""Live rain: judged, corrected, filled, stored; late and changed things judged again."""

import contextlib
import datetime as dt

import numpy as np
import pytest

from duha_backend.drainage.rainfall import FIVE_MS, Mark, newest_day
from duha_backend.errors import StoreDown
from duha_backend.rain.calibration import Calibration
from duha_backend.rain.quality import FLAGS
from duha_backend.rain.series import GaugeCare, RainRules, Spell, spread
from duha_backend.readings import DAY_MS, QUARTER_MS, rows_of
from duha_backend.runoff.catchments import Catchment
from tests.backend.wet_city import GAUGES, MINUTE, T0, wet_city

SHOWER = np.zeros(120)
SHOWER[30:90] = np.tile([0.2, 0.4, 0.2, 0.2, 0.2, 0.0, 0.4, 0.2, 0.2, 0.0], 6)  # 12 mm


@pytest.fixture
async def city(tmp_path):
    async with wet_city(tmp_path) as made:
        yield made


async def judged(city, minutes=120):
    return await city.rainfall.minutes(T0, T0 + minutes * MINUTE)


async def test_what_was_measured_is_what_models_get(city):
    await city.rain(SHOWER)
    await city.until(120)
    rain, quality = await judged(city)
    assert rain == pytest.approx(np.broadcast_to(SHOWER, (4, 120)))
    assert (quality == 1).all()
    assert city.rainfall.done == T0 + 120 * MINUTE


async def test_five_minutes_wait_for_what_comes_late(city):
    await city.rain(SHOWER)
    await city.rainfall.tend(T0 + 7 * MINUTE)
    assert city.rainfall.done == T0
    await city.rainfall.tend(T0 + 8 * MINUTE)
    assert city.rainfall.done == T0 + FIVE_MS


async def test_a_blocked_gauge_is_filled_from_its_neighbours_and_raw_stays(city):
    mm = np.broadcast_to(SHOWER, (4, 120)).copy()
    mm[1] = 0.0
    await city.rain(mm)
    await city.until(120)
    frame = await city.readings.window("rain", GAUGES[1], T0, T0 + 120 * MINUTE)
    late = [row for row in rows_of(frame) if row["ts"] >= T0 + 60 * MINUTE]
    wet = [row for row in late if row["ts"] < T0 + 90 * MINUTE]
    assert all(row["raw_mm"] == 0 for row in late)
    assert all(row["quality"] == "filled" for row in wet)
    assert sum(row["rain_mm"] for row in wet) == pytest.approx(6.0)
    assert all(int(row["flags"]) & 1 << FLAGS.index("blocked") for row in wet)
    assert ("rainGaugeBlocked", GAUGES[1], "blocked") in city.rainfall.standing()


async def test_without_neighbours_missing_stays_missing(city):
    await city.rain(SHOWER, gauges=GAUGES[:2])
    await city.until(120)
    rain, _ = await judged(city)
    assert rain[:2] == pytest.approx(np.broadcast_to(SHOWER, (2, 120)))
    assert rain[2:] == pytest.approx(np.broadcast_to(SHOWER, (2, 120))), (
        "two neighbours fill"
    )
    async with wet_city(city.folder / "lonely") as lonely:
        await lonely.rain(SHOWER, gauges=GAUGES[:1])
        await lonely.until(30)
        await lonely.until(120)
        rain, _ = await judged(lonely)
        assert np.isnan(rain[1:]).all()
        assert {"rainDataMissing"} == {
            code for code, _, _ in lonely.rainfall.standing()
        }


async def test_late_readings_are_judged_again(city):
    await city.rain(SHOWER, gauges=GAUGES[:3])
    await city.until(120)
    before, _ = await judged(city)
    assert before[3].sum() == pytest.approx(12.0), "filled"
    await city.rain(SHOWER * 0.8, gauges=GAUGES[3:])
    city.books.mark([("rain", "late", T0 + k * QUARTER_MS) for k in range(8)])
    await city.until(121)
    after, quality = await judged(city)
    assert after[3].sum() == pytest.approx(9.6)
    assert (quality[3, 35:90] == 1).all()
    assert city.books.marked() == []


async def test_a_store_that_fails_for_a_while_distorts_no_history(city):
    city.registry.save(Catchment("C1", "", 49.75, 13.376, area_ha=10, coefficient=0.5, lag_min=10))  # fmt: skip
    await city.rain(SHOWER)
    await city.until(60)
    for kind in ("rain", "catchment"):  # either of the two may be what fails
        with failing(city.readings, kind):
            for _ in range(4):
                with pytest.raises(StoreDown):
                    await city.until(65)
    await city.until(120)
    assert city.rainfall._history[0, -24:] == pytest.approx(
        SHOWER.reshape(-1, 5).sum(axis=1)
    )
    rain, _ = await judged(city)
    assert rain == pytest.approx(np.broadcast_to(SHOWER, (4, 120)))
    await city.rain(np.zeros(240), start=T0 + 120 * MINUTE)
    await city.until(360)
    frame = await city.readings.window("catchment", "C1", T0, T0 + 360 * MINUTE)
    assert frame["runoff_l_s"].sum() * 0.06 == pytest.approx(600, rel=0.01), (
        "12 mm, once"
    )


@contextlib.contextmanager
def failing(readings, kind):
    """A store that takes no rows of a kind, as on a full disk."""
    put = readings.put

    async def full(what, columns):
        if what == kind:
            raise StoreDown("disk full")
        await put(what, columns)

    readings.put = full
    try:
        yield
    finally:
        readings.put = put


async def test_an_import_of_old_rain_does_not_hold_up_what_falls_now(city):
    await city.rain(np.zeros(120))
    await city.until(120)
    past = T0 - 20 * DAY_MS
    await city.rain(np.full(20 * 1440, 0.01), start=past, gauges=GAUGES[:1])
    city.books.mark([("rain", "late", past + k * QUARTER_MS) for k in range(20 * 96)])
    await city.rain(SHOWER, start=T0 + 120 * MINUTE)
    waiting = []
    for minute in range(125, 225, 5):
        await city.until(minute)
        assert city.rainfall.done == T0 + minute * MINUTE, "live rain goes on"
        waiting.append(len(city.books.marked("late")))
    assert np.diff([20 * 96, *waiting]).min() == -96, (
        "a day at a time, the newest first"
    )
    assert waiting[-1] == 0
    rain, _ = await city.rainfall.minutes(past, past + 60 * MINUTE)
    assert rain[0].sum() == pytest.approx(0.6)


def test_late_marks_of_the_newest_day_come_first():
    marks: list[Mark] = [("rain", "late", day * DAY_MS + quarter * QUARTER_MS, "m") for day in (1, 3, 2) for quarter in (5, 4)]  # fmt: skip
    found = newest_day(marks, 3 * DAY_MS + 5 * QUARTER_MS)
    assert [mark[2] for mark in found] == [3 * DAY_MS + 4 * QUARTER_MS]
    assert newest_day(marks, DAY_MS) == []


async def test_a_new_calibration_is_applied_to_old_rain(city):
    await city.rain(SHOWER)
    await city.until(120)
    own = Calibration(dt.date(2026, 6, 1), points=((5, 5.5), (12, 13.2), (60, 66)))
    city.registry.save(GaugeCare("RG-1", calibrations=(own,)))
    for _ in range(50):
        await city.until(121)
        if city.rainfall.behind is None:
            break
    rain, _ = await judged(city)
    assert rain[0].sum() == pytest.approx(12.0 * 1.1)
    assert rain[1].sum() == pytest.approx(12.0)
    frame = await city.readings.window("rain", "RG-1", T0, T0 + 120 * MINUTE)
    assert np.nansum(frame["raw_mm"]) == pytest.approx(12.0), (
        "raw rain is never changed"
    )


async def test_new_thresholds_are_applied_to_old_rain(city):
    mm = np.broadcast_to(SHOWER, (4, 120)).copy()
    mm[2] *= 0.75
    await city.rain(mm)
    await city.until(120)
    assert (await judged(city))[1].min() == 1
    city.registry.save(RainRules("city", thresholds={"part": 0.95}))
    for _ in range(50):
        await city.until(121)
        if city.rainfall.behind is None:
            break
    assert (await judged(city))[1][2].min() < 0.5


async def test_a_restart_goes_on_where_it_was(city):
    await city.rain(SHOWER)
    await city.until(60)
    again = city.new_rainfall()
    await city.until(120, again)
    assert again.done == T0 + 120 * MINUTE
    rain, _ = await again.minutes(T0, T0 + 120 * MINUTE)
    assert rain[0].sum() == pytest.approx(12.0)


async def test_work_on_a_gauge_counts_tips_and_does_not_believe_them(city):
    await city.rain(np.zeros(120), gauges=GAUGES[:3])
    await city.rain(np.full(120, 1.0), gauges=GAUGES[3:])
    start = dt.datetime.fromtimestamp(T0 / 1000, dt.UTC)
    spell = Spell(start, start + dt.timedelta(hours=2), "calibration with a jug")
    city.registry.save(GaugeCare("RG-4", maintenance=(spell,)))
    await city.until(120)
    rain, quality = await judged(city)
    assert rain[3].sum() == 0
    assert (quality[3] == 0).all()


async def test_frost_leaves_heated_gauges_alone(city):
    city.registry.save(GaugeCare("RG-1", heated=True))
    await city.rain(SHOWER, temperature=-4.0)
    await city.until(120)
    rain, quality = await judged(city)
    assert rain[0].sum() == pytest.approx(12.0)
    assert (quality[1:] == 0).all()
    assert np.isnan(rain[1:]).all()


async def test_catchments_run_off(city):
    city.registry.save(
        Catchment(
            "C1", "Lochotín", 49.75, 13.376, area_ha=10, coefficient=0.5, lag_min=10
        )
    )
    await city.rain(np.concatenate((SHOWER, np.zeros(240))))
    await city.until(360)
    frame = await city.readings.window("catchment", "C1", T0, T0 + 360 * MINUTE)
    ran_m3 = frame["runoff_l_s"].sum() * 60 / 1000
    assert frame["rain_mm"].sum() == pytest.approx(12.0)
    assert ran_m3 == pytest.approx(12.0 / 1000 * 100_000 * 0.5, rel=0.01)
    assert (
        T0 + 30 * MINUTE < frame["ts"][frame["runoff_l_s"].argmax()] <= T0 + 91 * MINUTE
    )


def test_readings_are_spread_over_the_minutes_that_they_cover():
    ts = np.array([T0 + 90_000, T0 + 150_000, T0 + 30 * MINUTE])
    found = spread(ts, np.array([0.3, 0.2, 5.0]), np.array([90.0, 60.0, np.nan]), T0, 4)
    assert found[:2] == pytest.approx([0.2, 0.1 + 0.1])
    assert found[2] == pytest.approx(0.1)
    assert np.isnan(found[3]), "a reading after long silence says not when it rained"


def test_gardens_of_a_catchment_hold_its_runoff_back():
    from duha_backend.runoff.catchments import Tier1

    plain = Catchment("C1", "", 49.7, 13.4, area_ha=1, coefficient=0.5)
    green = Catchment("C2", "", 49.7, 13.4, area_ha=1, coefficient=0.5, garden_m2=250)
    rain = np.zeros((600, 2))
    rain[10:40] = 0.5
    model = Tier1([plain, green])
    ran = model.step(rain).sum(axis=0) * 60 / 1000
    assert ran[0] == pytest.approx(15 / 1000 * 10_000 * 0.5, rel=0.01)
    assert ran[1] == pytest.approx(ran[0] / 2, rel=0.02), "half of it drains to gardens"
    held = model.gardens
    left = held.infiltrated_m3 + held.spilled_m3 + held.volume_m3()
    assert left[0] == pytest.approx(ran[0] / 2, rel=0.01)
