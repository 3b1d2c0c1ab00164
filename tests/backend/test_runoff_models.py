"""Simple runoff models against published and derived figures."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_backend.runoff.models import (
    Bucket,
    discharge,
    effective_rain,
    nash,
    nash_peak,
    rational,
    scs_runoff,
)

INCH = 25.4


def one(value):
    return np.array([float(value)])


def test_the_rational_method():
    """36 mm/h on a hectare that keeps nothing: 100 L/s, as EPA SWMM has it."""
    assert rational(one(1), one(36), one(1))[0] == pytest.approx(100)
    assert rational(one(0.5), one(1), one(2))[0] == pytest.approx(2.7778, abs=1e-4)


@pytest.mark.parametrize(
    ("rain_in", "number", "runoff_in"),
    [(6, 70, 2.81), (6, 75, 3.28), (5, 80, 2.89), (4, 70, 1.33), (1.5, 75, 0.165), (0.6, 75, 0)],
)  # fmt: skip
def test_curve_numbers_of_technical_release_55(rain_in, number, runoff_in):
    found = scs_runoff(one(rain_in * INCH), one(number))[0] / INCH
    assert found == pytest.approx(runoff_in, abs=0.005)


def test_a_cascade_of_three_reservoirs():
    """60 mm/h for five minutes, K = 15 min: 5.40 mm/h in minute 32, nothing is lost."""
    rain = np.zeros((600, 1))
    rain[:5] = 60
    out, _ = nash(rain, 3, one(900), 60)
    assert out.argmax() + 1 == pytest.approx(32, abs=1)
    assert out.max() == pytest.approx(5.4018, rel=0.005)
    assert out.sum() * 60 / 3600 == pytest.approx(5.0, rel=1e-3)


@pytest.mark.parametrize("lag_s", [1e-9, 10.0, 60.0, 300.0, 3600.0])
@pytest.mark.parametrize("reservoirs", [1, 2, 3, 10])
def test_a_cascade_is_exact_however_short_its_reservoirs_are(reservoirs, lag_s):
    """Even rain of five minutes: P(n, t/K) - P(n, (t - T)/K), P by Erlang's sum."""

    def filled(t):
        x = min(max(0.0, t) / lag_s, 700.0)
        terms = (x**m / math.factorial(m) for m in range(reservoirs))
        return 1 - math.exp(-x) * sum(terms)

    rain = np.zeros((240, 1))
    rain[:5] = 60
    out, _ = nash(rain, reservoirs, one(lag_s), 60)
    ends = 60.0 * np.arange(1, 241)
    exact = [60 * (filled(t) - filled(t - 300)) for t in ends]
    assert np.abs(out[:, 0] - exact).max() < 1e-9


def test_the_unit_hydrograph_of_nash():
    t, height = nash_peak(3, 900)
    assert t == 1800
    assert height == pytest.approx(3.00745e-4, rel=1e-5)


def test_a_linear_reservoir_goes_on_from_its_state():
    rain = np.random.default_rng(1).random((50, 4)) * 20
    lag = np.array([300.0, 900, 1800, 60])
    whole, _ = nash(rain, 2, lag, 60)
    first, state = nash(rain[:20], 2, lag, 60)
    second, _ = nash(rain[20:], 2, lag, 60, state)
    assert np.allclose(np.vstack([first, second]), whole)


def test_effective_rain_is_what_the_storm_leaves_by_its_curve_number():
    rain = np.full((60, 1), 6 * INCH)  # six inches in an hour
    found = effective_rain(rain, one(75), 60)
    assert found.sum() / 60 == pytest.approx(3.28 * INCH, abs=0.1)
    assert (found >= 0).all()
    assert (found <= rain + 1e-9).all()
    assert discharge(found, one(1)).shape == (60, 1)


def test_a_swale_empties_in_the_time_of_the_norms_example():
    """9.76 m³, 16 m² and 5e-6 m/s: 67.8 h."""
    swale = Bucket(one(16), one(1), one(5e-6))
    swale.depth = one(9.76 / 16)
    assert swale.emptying_h()[0] == pytest.approx(67.8, abs=0.05)
    hours = 0.0
    while swale.depth[0] > 1e-9:
        swale.step(one(0), one(0), 360)
        hours += 0.1
    assert hours == pytest.approx(67.8, abs=0.2)


flows = st.lists(
    st.tuples(st.floats(0, 50), st.floats(0, 120)), min_size=1, max_size=60
)


@given(flows)
def test_a_bucket_loses_no_water(steps):
    garden = Bucket(one(40), one(0.3), one(1e-5), throttle_l_s=0.5, porosity=0.4)
    came = 0.0
    for inflow, rain in steps:
        spilled = garden.step(one(inflow), one(rain), 60)
        came += inflow / 1000 * 60 + rain / 3.6e6 * 40 * 60
        assert spilled[0] >= 0
        assert 0 <= garden.depth[0] <= 0.3 + 1e-12
    gone = garden.infiltrated_m3 + garden.throttled_m3 + garden.spilled_m3
    assert gone[0] + garden.volume_m3()[0] == pytest.approx(came, abs=1e-9)


@given(st.lists(st.floats(0, 100), min_size=5, max_size=50), st.integers(1, 5))
def test_a_cascade_gives_no_more_than_it_got_and_never_less_than_nothing(
    rain, reservoirs
):
    series = np.array([*rain, *[0.0] * 4000])[:, None]
    out, _ = nash(series, reservoirs, one(600), 60)
    assert (out >= 0).all()
    assert out.max() <= max(rain) + 1e-9
    assert out.sum() == pytest.approx(sum(rain), rel=1e-6, abs=1e-6)
