import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_contract.roads import Drying, Road, advance, dry_at, evaporation, state

USUAL = Drying()


def rained(*falls):
    """A road after falls of (time [s], depth [mm])."""
    road = Road(0.0)
    for t, mm in falls:
        road = advance(road, USUAL, t, mm)
    return road


def test_one_tip_of_a_usual_gauge_wets_the_road():
    assert rained((10, 0.2)).wet
    assert rained((10, 0.1)).wet
    assert not rained((10, 0.05)).wet


def test_a_road_goes_from_dry_through_wet_to_dry():
    road = rained((0, 0.05))
    assert state(Road(0.0), USUAL, 0) == "dry"
    assert state(road, USUAL, 1) == "wetting"
    road = advance(road, USUAL, 60, 0.2)
    assert state(road, USUAL, 120) == "wet"
    assert state(road, USUAL, 1500) == "drying"
    assert state(road, USUAL, dry_at(road, USUAL) + 1) == "dry"


def test_what_falls_in_the_cold_is_snow():
    assert state(advance(Road(0.0), USUAL, 5, 0.4, -3.0), USUAL, 6) == "snow"


def test_between_the_thresholds_the_state_stays_as_it_is():
    between = (USUAL.wet_mm + USUAL.dry_mm) / 2
    for wet in (True, False):
        assert advance(Road(0.0, between, wet), USUAL, 1).wet is wet


def test_a_road_is_held_wet_after_the_last_tip_whatever_the_film_says():
    fast = Drying(traffic_mm_h=100)
    road = advance(Road(0.0), fast, 10, 0.2)
    assert advance(road, fast, 10 + fast.hold_s - 1).wet
    assert not advance(road, fast, 10 + fast.hold_s + 1).wet


def test_evaporation_is_penmans_term_plus_the_tyres():
    """0.35 mm/day/mmHg x (1 + 0.54 x 1.5) x 20 % of 9.21 mmHg at 10 °C, and 0.2 mm/h."""
    by_hand = 0.35 * (1 + 0.54 * 1.5) * 0.2 * 9.21 / 24 + 0.2
    assert evaporation(USUAL, 10.0) == pytest.approx(by_hand, rel=2e-3)
    assert evaporation(USUAL, -5.0) < 0.05  # nobody's tyres carry ice away


falls = st.lists(
    st.tuples(st.floats(1, 3600), st.floats(0, 5)), min_size=1, max_size=30
)


@given(falls)
def test_a_road_holds_no_more_than_its_film_and_dries_when_it_says(spells):
    road, t = Road(0.0), 0.0
    for seconds, mm in spells:
        t += seconds
        before = road
        road = advance(road, USUAL, t, mm)
        assert 0 <= road.film_mm <= USUAL.film_mm
        assert mm > 0 or road.film_mm <= before.film_mm
    if road.wet:
        end = dry_at(road, USUAL)
        assert advance(road, USUAL, end - 1).wet
        assert not advance(road, USUAL, end + 1).wet
