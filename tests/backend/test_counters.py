"""Counters of energy: what they count, whatever a register shows in between."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_backend.energy.counters import (  # fmt: skip
    METER_MODULI,
    METER_UNITS,
    NONE,
    resolution,
    spans,
)

nan = np.nan
MOST = 25.0
"""What the lamps of these tests can draw in a quarter of an hour [Wh]."""
COUNTING = [1000.0 + 15 * n for n in range(30)]


def told(readings, most=MOST, **more):
    """Spans as (start, end, energy)."""
    found = spans(np.array([readings], dtype=float), np.array([most]), **more)
    ends = np.flatnonzero(found.start[0] != NONE)
    return [(int(found.start[0, k]), int(k), float(found.energy[0, k])) for k in ends]


def total(readings, **more):
    return sum(energy for *_, energy in told(readings, **more))


def known(readings):
    return spans(np.array([readings], dtype=float), np.array([MOST])).known[0]


@pytest.mark.parametrize("shown", [0.0, 65_535.0, 4_294_967_295.0, 123_456.7, 1300.0])
@pytest.mark.parametrize("where", [0, 1, 14, 28, 29])
def test_a_single_glitch_is_no_energy(shown, where):
    readings = COUNTING.copy()
    readings[where] = shown
    inside = 0 < where < 29
    assert total(readings) == 15 * (29 if inside else 28)
    assert known(readings).sum() == (29 if inside else 28)


def test_a_zero_that_is_the_last_reading_of_a_quarter_adds_nothing():
    day = [123_456.7, 0.0, 123_456.9]
    assert total(day, most=2.0, units=METER_UNITS, moduli=METER_MODULI) == pytest.approx(0.2)  # fmt: skip


def test_zeros_for_an_hour_are_bridged():
    readings = COUNTING[:10] + [0.0] * 4 + COUNTING[14:]
    assert total(readings) == 15 * 29
    assert known(readings)[1:].all()


def test_a_reset_loses_at_most_what_lies_between():
    after = [15.0 * n for n in range(20)]
    assert told(COUNTING[:10] + after)[-1] == (28, 29, 15.0)
    assert total(COUNTING[:10] + after) == 15 * (9 + 19)
    assert known(COUNTING[:10] + after).sum() == 28


def test_another_drivers_counter_is_no_energy():
    assert total(COUNTING[:10] + [x + 80_000 for x in COUNTING[:20]]) == 15 * (9 + 19)


@pytest.mark.parametrize("modulus", [2.0**16, 2.0**32, 2.0**32 * 10])
def test_a_wrap_loses_nothing(modulus):
    readings = [(modulus - 200 + 15 * n) % modulus for n in range(30)]
    unit = 10 if modulus > 2**32 else 1
    readings = [x // unit * unit for x in readings]
    assert total(readings) == pytest.approx(15 * 29, abs=unit)
    assert known(readings)[1:].all()


def test_a_meter_of_six_digits_wraps():
    readings = [999_999.6, 999_999.8, 0.0, 0.2]
    found = total(readings, most=2.0, units=METER_UNITS, moduli=METER_MODULI)
    assert found == pytest.approx(0.6)


def test_holes_are_bridged_and_a_counter_that_may_have_begun_again_is_not():
    assert told([1000, nan, nan, 1030]) == [(0, 3, 30.0)]
    assert told([10, nan, nan, 40]) == []  # from zero again, perhaps
    assert told([nan, 50, nan]) == []


def test_a_leap_beyond_what_can_be_drawn_is_no_energy():
    assert told([1000, 1015, 1115, 1130]) == [
        (0, 1, 15.0)
    ]  # nothing confirms it for long
    assert total(COUNTING[:5] + [x + 100 for x in COUNTING[5:19]]) == 15 * (4 + 13)


def test_a_counter_that_stood_still_and_catches_up_is_counted_once():
    readings = [1000.0, 1015.0] + [1015.0] * 8 + [1150.0, 1165.0]
    assert total(readings) == 165
    assert (1, 10, 135.0) in told(readings)


def test_coarse_counters_are_read_by_their_own_step():
    assert resolution(np.array([[1000.0, 1100.0], [7.0, 1000.0], [0.0, nan]])).tolist() == [100, 1, 1]  # fmt: skip
    readings = [7300.0] * 6 + [7400.0] * 6 + [7500.0] * 6
    assert total(readings) == 200


steps = st.lists(st.floats(0, MOST), min_size=30, max_size=60)


@given(steps, st.data())
def test_what_is_counted_is_what_was_drawn_in_the_quarters_that_are_known(drawn, data):
    """Whatever single readings show, and wherever readings are missing."""
    true = 5000 + np.concatenate([[0], np.cumsum(drawn)])
    shown = true.copy()
    places = st.integers(0, len(true) - 1)
    for at in data.draw(st.sets(places, max_size=3)):
        shown[at] = data.draw(st.sampled_from([0.0, nan, 65_535.0, 4.2e9, 1e6]))
    found = spans(shown[None], np.array([MOST]))
    drawn_known = np.concatenate([[0], drawn])[found.known[0]].sum()
    assert found.energy.sum() == pytest.approx(drawn_known, abs=2)
    assert found.known[0].sum() >= len(drawn) - 6


@given(steps, st.data())
def test_no_more_is_counted_than_can_be_drawn(drawn, data):
    """Whatever a register shows."""
    values = st.one_of(st.just(nan), st.floats(0, 5e9), st.floats(0, 100))
    shown = np.array(data.draw(st.lists(values, min_size=2, max_size=40)))
    found = spans(shown[None], np.array([MOST]))
    unit = resolution(shown[None])[0]
    spans_told = (found.start != NONE).sum()
    assert (
        found.energy.sum()
        <= MOST * (found.known.sum() + spans_told) + unit * spans_told
    )
    assert (found.energy >= 0).all()
