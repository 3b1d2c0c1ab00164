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


def test_possible_tips_of_a_minute():
    assert possible_tips(60, 0.2) == 51
    assert possible_tips(-5, 0.2) == 1
