"""Rain between gauges, in events, and beside the city's design rain."""

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_backend.errors import Invalid
from duha_backend.rain.areal import Field
from duha_backend.rain.events import Idf, antecedent, events, running, saturated
from duha_backend.rain.statistics import by_day

GAUGES = np.array([[0.0, 0], [2000, 0], [0, 2000], [3000, 3000]])
POINTS = np.array([[0.0, 0], [1000, 0], [900, 900], [5000, 5000]])
METHODS = ["idw", "thiessen", "kriging"]


@pytest.mark.parametrize("method", METHODS)
def test_on_a_gauge_it_rains_what_the_gauge_says(method):
    found = Field(GAUGES, POINTS, method).at(np.array([5.0, 1, 2, 0]))
    assert found[0] == pytest.approx(5, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_even_rain_is_even_everywhere_and_dry_is_dry(method):
    field = Field(GAUGES, POINTS, method)
    assert field.at(np.full(4, 7.0)) == pytest.approx(7)
    assert (field.at(np.zeros(4)) == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_one_wet_gauge_makes_no_negative_rain(method):
    found = Field(GAUGES, POINTS, method).at(np.array([40.0, 0, 0, 0]))
    assert (found >= 0).all()
    assert found.max() <= 40


@pytest.mark.parametrize("method", METHODS)
def test_a_gauge_without_a_value_is_left_out_and_none_is_none(method):
    field = Field(GAUGES, POINTS, method)
    without = field.at(np.array([np.nan, 1.0, 2, 3]))
    assert not np.isnan(without).any()
    assert without[0] < 3
    assert np.isnan(field.at(np.full(4, np.nan))).all()


def test_kriging_of_two_gauges_in_one_place_falls_back_to_distances():
    twice = np.array([[0.0, 0], [0, 0], [2000, 0]])
    rain = np.array([2.0, 2, 4])
    kriged = Field(twice, POINTS, "kriging").at(rain)
    assert kriged == pytest.approx(Field(twice, POINTS, "idw").at(rain))


def test_half_way_between_two_gauges_it_rains_the_mean():
    two = Field(np.array([[0.0, 0], [2000, 0]]), np.array([[1000.0, 500]]))
    assert two.at(np.array([10.0, 0]))[0] == pytest.approx(5)


def test_events_are_parted_by_dry_hours():
    rain = np.zeros(48 * 12)  # two days of five minutes
    rain[10:20] = 0.5
    rain[20 + 5 * 12 : 24 + 5 * 12] = 1.0  # five hours later
    rain[300] = 3.0
    rain[500] = 0.2
    six, two = events(rain, 5), events(rain, 5, dry_h=2)
    assert [(e.first, e.last) for e in six] == [(10, 83), (300, 300)]
    assert [round(e.depth_mm, 6) for e in two] == [5.0, 4.0, 3.0]
    assert six[0].most_mm == 1.0
    assert events(np.zeros(5), 5) == []


rains = st.lists(
    st.sampled_from([0.0, 0.0, 0.2, 1.4, float("nan")]), min_size=1, max_size=200
)


@given(rains, st.sampled_from([0.5, 1, 6]))
def test_every_drop_is_in_one_event(rain, dry_h):
    found = events(np.array(rain), 5, dry_h, least_mm=0.0)
    assert sum(e.depth_mm for e in found) == pytest.approx(np.nansum(rain))
    assert all(b.first - a.last > dry_h * 12 for a, b in pairwise(found))


@given(rains, st.integers(1, 30))
def test_running_sums_are_sums_and_missing_data_stays_missing(rain, steps):
    found = running(np.array(rain), steps)
    for i, value in enumerate(found):
        window = np.array(rain[max(0, i + 1 - steps) : i + 1])
        assert np.isnan(value) == np.isnan(window).any()
        assert np.isnan(value) or value == pytest.approx(window.sum())


TABLE = """duration_min;2;5;10;100
5;6.0;8.5;10.2;15.9
15;10.1;14.6;17.5;27.0
60;14.8;21.6;26.0;40.2
1440;33.0;45.0;53.0;79.0
"""


def test_a_design_rain_table_is_read_and_asked_both_ways():
    table = Idf.read(TABLE.splitlines())
    assert table.depth_of(15, 10) == pytest.approx(17.5)
    assert table.period_of(15, 17.5) == pytest.approx(10)
    assert 14.6 < table.depth_of(30, 5) < 21.6
    assert table.period_of(30, table.depth_of(30, 30)) == pytest.approx(30)
    assert table.period_of(15, 1.0) == 0.0
    assert table.period_of(15, 100.0) == float("inf")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no rows"),
        ("duration_min;2;5\n5;6;x", "row 2"),
        ("duration_min;2;5\n5;6", "every row"),
        ("duration_min;2;5\n5;8;6", "grows"),
        ("duration_min;2;5\n15;6;8\n5;3;4", "grows"),
    ],
)
def test_a_table_that_is_none_is_refused_by_its_row(text, named):
    with pytest.raises(Invalid, match=named):
        Idf.read(text.splitlines())


def test_days_are_local_days_in_zones_of_half_hours_too():
    midnight = round(
        dt.datetime(2026, 7, 1, tzinfo=ZoneInfo("Asia/Kolkata")).timestamp() * 1000
    )
    times = midnight + 900_000 * np.arange(-4, 4)
    found = by_day(times, np.array([1.0, 1, 1, 1, 0.2, 0.2, 0.2, 0.2]), "Asia/Kolkata")
    assert found == pytest.approx({dt.date(2026, 6, 30): 4.0, dt.date(2026, 7, 1): 0.8})


def test_saturation_after_the_rule_of_flood_plans():
    assert saturated(np.array([6.0] * 10))
    assert not saturated(np.array([90.0, *[1.0] * 10]))
    assert antecedent(np.array([10.0, 0, 0])) == pytest.approx(8.1)
