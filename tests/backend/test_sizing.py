"""Sizing after Czech practice, with the figures reckoned by hand."""

import numpy as np
import pytest

from duha_backend.errors import Invalid
from duha_backend.rain.events import Idf
from duha_backend.runoff.sizing import Surface, coefficient, size, throttle_l_s

TABLE = Idf(
    np.array([5, 15, 30, 60, 120, 360, 1440]),
    np.array([5, 10]),
    np.array(
        [
            [8.5, 10.2],
            [14.6, 17.5],
            [18.0, 21.6],
            [21.6, 26],
            [25, 30],
            [32, 38],
            [45, 53],
        ]
    ),
)
ROOF = (Surface("roof", 250.0, 0.9),)


def test_a_swale_by_hand():
    """250 m² of roof, 16 m² of soil with 5e-6 m/s: 4e-5 m³/s leave it.

    6 h: 32 mm x (225 + 16) m² = 7.712 m³, less 0.864 m³ gone; 24 h: 10.845 less 3.456.
    """
    found = size(ROOF, TABLE, 5, infiltrating_m2=16, conductivity_m_s=5e-6)
    assert found.reduced_m2 == 225
    assert found.outflow_l_s == pytest.approx(0.04)
    by_duration = {trial.duration_min: trial.volume_m3 for trial in found.trials}
    assert by_duration[360] == pytest.approx(6.848, abs=1e-3)
    assert by_duration[1440] == pytest.approx(7.389, abs=1e-3)
    assert (found.volume_m3, found.duration_min) == (by_duration[1440], 1440)
    assert found.emptying_h == pytest.approx(7.389 / 4e-5 / 3600, rel=1e-3)
    assert any("too short" in text for text in found.warnings)


def test_the_emptying_time_of_the_norms_example():
    """9.76 m³ through 16 m² of 5e-6 m/s takes 67.8 h."""
    assert pytest.approx(67.8, abs=0.05) == 9.76 / (16 * 5e-6 / 2) / 3600
    slow = size(ROOF, TABLE, 10, infiltrating_m2=10, conductivity_m_s=2e-6)
    assert any("72 h is allowed" in text for text in slow.warnings)


def test_a_return_period_beyond_the_table_is_refused():
    for period in (1, 100):
        with pytest.raises(Invalid, match=f"from 5 to 10 a, not {period}"):
            size(ROOF, TABLE, period, infiltrating_m2=16, conductivity_m_s=5e-6)


def test_an_impermeable_roof_sheds_all_rain():
    assert coefficient("roof", 3) == 1.0


def test_a_throttled_tank():
    """A hectare of roofs: 3 L/s may leave; an hour brings 21.6 mm."""
    hectare = (Surface("roofs", 10_000.0, 0.9),)
    assert throttle_l_s(10_000) == 3.0
    assert throttle_l_s(250) == 0.5
    found = size(hectare, TABLE, 5, outflow_l_s=3.0)
    hour = next(t for t in found.trials if t.duration_min == 60)
    assert hour.volume_m3 == pytest.approx(194.4 - 10.8)
    assert not any("permitted" in text for text in found.warnings)
    assert any(
        "permitted" in t for t in size(hectare, TABLE, 5, outflow_l_s=4).warnings
    )


def test_tight_soil_needs_a_throttle():
    tight = size(ROOF, TABLE, 5, infiltrating_m2=50, conductivity_m_s=5e-7)
    assert any("add a throttle" in text for text in tight.warnings)
    both = size(ROOF, TABLE, 5, 50, 5e-7, outflow_l_s=0.5)
    assert not any("add a throttle" in text for text in both.warnings)
    assert both.volume_m3 < tight.volume_m3


def test_coefficients_by_surface_and_slope():
    assert [coefficient("asphalt", slope) for slope in (0.5, 3, 8)] == [0.7, 0.8, 0.9]
    with pytest.raises(Invalid, match="grass"):
        coefficient("grass", 1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"infiltrating_m2": -1}, "not negative"),
        ({"surfaces": ()}, "something drains"),
        ({"surfaces": (Surface("roof", 10, 1.5),)}, "roof"),
        ({"infiltrating_m2": 0, "outflow_l_s": 0}, "nothing leaves"),
    ],
)
def test_a_device_that_cannot_be_is_refused(change, named):
    usual = {"surfaces": ROOF, "table": TABLE, "period_a": 5, "infiltrating_m2": 16, "conductivity_m_s": 1e-5}  # fmt: skip
    with pytest.raises(Invalid, match=named):
        size(**(usual | change))
