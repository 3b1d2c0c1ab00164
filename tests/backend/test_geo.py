"""Distances on Earth against an outside formula, anywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_backend.geo import distances, positions
from duha_backend.rain.areal import Field


def haversine_m(one, other, radius=6_371_008.8):
    """Great-circle distance on a sphere [m]: within 0.6 % of the ellipsoid."""
    (a, b), (c, d) = np.radians([one, other])
    half = np.sin((c - a) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((d - b) / 2) ** 2
    return 2 * radius * np.arcsin(np.sqrt(half))


places = st.tuples(st.floats(-89, 89), st.floats(-180, 180))


@given(places, st.floats(-0.1, 0.1), st.floats(-0.1, 0.1))
def test_distances_hold_at_any_latitude_and_across_the_180th_meridian(
    place, north, east
):
    other = (place[0] + north, (place[1] + east + 180) % 360 - 180)
    (found,), *_ = distances(positions(*place), positions(*other))
    assert found == pytest.approx(haversine_m(place, other), rel=0.006, abs=1)


@pytest.mark.parametrize(
    ("one", "other", "metres"),
    [  # by Vincenty's formulas on WGS 84
        ((49.7475, 13.3776), (49.7475, 13.4776), 7207.1),
        ((35.6895, 139.6917), (35.7895, 139.6917), 11095.4),
        ((-33.8688, 151.2093), (-33.8688, 151.3093), 9252.7),
    ],
)
def test_distances_are_those_of_the_ellipsoid(one, other, metres):
    assert distances(positions(*one), positions(*other))[0, 0] == pytest.approx(
        metres, abs=0.1
    )


@pytest.mark.parametrize(
    "centre", [(35.69, 139.69), (-33.87, 151.21), (34.05, -118.24), (0, 180)]
)
def test_each_point_takes_the_rain_of_its_nearest_gauge(centre):
    rng = np.random.default_rng(7)
    gauges, points = (
        np.array(centre) + rng.uniform(-0.07, 0.07, (n, 2)) for n in (6, 200)
    )
    field = Field(positions(*gauges.T), positions(*points.T), "thiessen")
    found = field.at(np.arange(6.0))
    apart = [[haversine_m(gauge, point) for gauge in gauges] for point in points]
    nearest = np.argmin(apart, axis=1)
    assert (found == nearest).mean() > 0.99
