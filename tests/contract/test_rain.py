import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_contract.rain import increment, possible_tips

MODULUS = 65_536


@given(
    st.integers(0, MODULUS - 1),
    st.lists(st.integers(0, 300), min_size=1, max_size=50),
)
def test_rollover_loses_no_tip_and_invents_none(start, falls):
    """However the counter stands and rolls over, the increments add up to the rain."""
    shown, found = start, 0
    for tips in falls:
        after = (shown + tips) % MODULUS
        found += increment(shown, after, modulus=MODULUS, most=300).tips
        shown = after
    assert found == sum(falls)


@given(st.integers(301, 60_000), st.integers(0, 200))
def test_a_reset_counts_what_fell_since(before, since):
    found = increment(before, min(since, before - 1), modulus=MODULUS, most=300)
    if (min(since, before - 1) - before) % MODULUS > 300:
        assert found == (min(since, before - 1), "reset")


def test_the_first_reading_is_no_rain():
    assert increment(None, 41_000, modulus=MODULUS, most=10) == (0, "first")


def test_a_replaced_gauge_rains_nothing():
    assert increment(100, 40_000, modulus=MODULUS, most=10) == (0, "reset")


@given(
    st.one_of(st.none(), st.integers(0, MODULUS - 1)),
    st.integers(0, MODULUS - 1),
    st.integers(0, 70_000),
)
def test_an_increment_is_never_negative_nor_impossible(before, now, most):
    assert 0 <= increment(before, now, modulus=MODULUS, most=most).tips <= max(most, 0)


@pytest.mark.parametrize(
    ("seconds", "mm"),
    [
        pytest.param(60, 38, id="Barot 1970"),
        pytest.param(480, 126, id="Fuessen 1920"),
        pytest.param(900, 198, id="Plumb Point 1916"),
        pytest.param(3600, 401, id="Shangdi 1975"),
        pytest.param(86_400, 1825, id="Foc-Foc 1966"),
    ],
)
def test_every_fall_on_record_is_possible_and_its_double_is_not(seconds, mm):
    assert mm / 0.2 <= possible_tips(seconds, 0.2) < 2 * mm / 0.2


def test_a_clock_put_back_leaves_one_tip_possible():
    assert possible_tips(-5, 0.2) == 1
