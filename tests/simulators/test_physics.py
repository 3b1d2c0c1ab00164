import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_sim.physics import (
    Gauge,
    Lamp,
    LampType,
    Meter,
    advance_gauge,
    advance_lamp,
    advance_meter,
    counter,
    inrush,
    lamp_power,
    power,
    set_level,
)

levels = st.floats(0, 1)


@given(levels, levels)
def test_more_light_takes_more_power(a, b):
    kind = LampType()
    low, high = sorted((a, b))
    assert power(kind, low) <= power(kind, high) <= kind.rated_w + 1e-9


def test_power_at_the_ends_of_the_curve():
    kind = LampType(rated_w=62)
    assert power(kind, 1) == pytest.approx(62)
    assert power(kind, 0) == kind.standby_w
    assert 0.3 < power(kind, 0.4) / 62 < 0.5


def test_light_follows_the_setpoint_with_the_warm_up():
    lamp = advance_lamp(set_level(Lamp(), 1.0), 1.5, 8)
    assert lamp.light == pytest.approx(1 - 2.718281828**-1, abs=1e-6)
    assert advance_lamp(lamp, 60, 8).light == pytest.approx(1, abs=1e-6)


def test_an_hour_at_full_light_in_energy_hours_and_heat():
    lamp = advance_lamp(set_level(Lamp(), 1.0), 30, 8)
    after = advance_lamp(lamp, 3600, 8)
    assert after.energy_wh - lamp.energy_wh == pytest.approx(62, rel=1e-3)
    assert after.burning_s - lamp.burning_s == 3600
    assert 30 < after.temperature_c < 8 + 0.55 * 62


def test_below_its_least_level_a_driver_holds_it():
    assert advance_lamp(set_level(Lamp(), 0.02), 60, 8).light == pytest.approx(0.1)


def test_switching_on_counts_and_rushes():
    lamp = set_level(Lamp(), 0.5)
    assert lamp.switch_ons == 1
    assert inrush(lamp) == lamp.type.inrush_a
    assert inrush(advance_lamp(lamp, 0.1, 8)) < 1e-6
    assert set_level(lamp, 0.9).switch_ons == 1
    assert set_level(set_level(lamp, 0), 1).switch_ons == 2


def test_a_burnt_out_lamp_is_dark_and_takes_standby():
    lamp = advance_lamp(set_level(Lamp(burnt_out=True), 1.0), 60, 8)
    assert lamp.light == 0
    assert lamp_power(lamp) == lamp.type.standby_w
    assert lamp.burning_s == 0


def test_a_meter_adds_its_lamps_up_by_phase():
    lit = advance_lamp(set_level(Lamp(), 1.0), 60, 8)
    meter = advance_meter(Meter(), ([lit] * 2, [lit], []), 3600)
    assert meter.power_w == pytest.approx((132, 62, 0), rel=1e-3)
    assert 0 < meter.reactive_var < sum(meter.power_w)
    assert meter.energy_kwh == pytest.approx(0.194, rel=1e-3)
    assert meter.current_a[1] == pytest.approx(62 / 0.97 / 230.4, rel=1e-2)


@given(st.lists(st.floats(0, 5), max_size=80))
def test_a_gauge_loses_no_water(falls):
    gauge = Gauge()
    for mm in falls:
        gauge = advance_gauge(gauge, mm)
    assert gauge.tips * 0.2 + gauge.water_mm == pytest.approx(sum(falls), abs=1e-6)
    assert -1e-9 <= gauge.water_mm < 0.2 + 1e-9


def test_a_counter_rolls_over_and_a_blocked_funnel_does_not_tip():
    assert counter(Gauge(tips=65_536 + 5)) == 5
    assert advance_gauge(Gauge(blocked=True), 10).tips == 0
