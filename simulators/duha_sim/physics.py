"""Lamps, meters and gauges as numbers: pure state, advanced by a span of time.

Times are seconds, levels 0 to 1, powers watts.
"""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class LampType:
    """An LED luminaire with its dimming driver.

    Attributes
    ----------
    rated_w, standby_w : float
        Power at full light and when dimmed to nothing [W].
    least : float
        Smallest level that the driver can hold, 0 to 1.
    warm_up_s : float
        Time constant with which light follows the set-point [s].
    inrush_a, inrush_s : float
        Peak current of the driver's input capacitor [A] and its decay [s].
    thermal_k_w, thermal_s : float
        Rise over ambient per watt [K/W] and its time constant [s].
    """

    rated_w: float = 62.0
    standby_w: float = 0.5
    least: float = 0.1
    warm_up_s: float = 1.5
    inrush_a: float = 45.0
    inrush_s: float = 0.0003
    thermal_k_w: float = 0.55
    thermal_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Lamp:
    """State of one luminaire.

    `share` is what of its light is left when some of its LEDs are dark; `stuck` is the
    light (0 to 1) of one whose driver no longer obeys.
    """

    type: LampType = LampType()
    setpoint: float = 0.0
    light: float = 0.0
    energy_wh: float = 0.0
    burning_s: float = 0.0
    temperature_c: float = 8.0
    switch_ons: int = 0
    since_on_s: float = math.inf
    burnt_out: bool = False
    share: float = 1.0
    stuck: float | None = None


def power(kind: LampType, level: float) -> float:
    """Active power [W] of a dimmed LED luminaire at a light level (0 to 1).

    LED efficacy rises a little as the current falls, so that power is slightly less
    than proportional to light; the driver's own loss stays.
    """
    if level <= 0:
        return kind.standby_w
    own = 0.06 * kind.rated_w
    return float(own + (kind.rated_w - own) * level**1.06)


def target_light(lamp: Lamp) -> float:
    """Light (0 to 1) that the driver makes of its set-point."""
    if lamp.burnt_out:
        return 0.0
    wanted = lamp.setpoint if lamp.stuck is None else lamp.stuck
    return max(lamp.type.least, min(1.0, wanted)) if wanted > 0 else 0.0


def advance_lamp(lamp: Lamp, seconds: float, ambient_c: float) -> Lamp:
    """The lamp after a span of time with its present set-point."""
    if seconds <= 0:
        return lamp
    goal = target_light(lamp)
    light = goal + (lamp.light - goal) * math.exp(-seconds / lamp.type.warm_up_s)
    light = 0.0 if light < 0.005 else light
    watts = lamp_power(replace(lamp, light=light))
    warm = ambient_c + lamp.type.thermal_k_w * watts
    decay = math.exp(-seconds / lamp.type.thermal_s)
    return replace(
        lamp,
        light=light,
        energy_wh=lamp.energy_wh + watts * seconds / 3600,
        burning_s=lamp.burning_s + (seconds if light > 0 else 0.0),
        temperature_c=warm + (lamp.temperature_c - warm) * decay,
        since_on_s=lamp.since_on_s + seconds,
    )


def set_level(lamp: Lamp, level: float) -> Lamp:
    """The lamp with another set-point (0 to 1); going from dark to light counts."""
    switched_on = lamp.setpoint <= 0 < level
    return replace(
        lamp,
        setpoint=max(0.0, min(1.0, level)),
        switch_ons=lamp.switch_ons + switched_on,
        since_on_s=0.0 if switched_on else lamp.since_on_s,
    )


def lamp_power(lamp: Lamp) -> float:
    """Active power [W] now; a burnt-out lamp leaves the driver's standby."""
    return power(lamp.type, lamp.light * lamp.share)


def inrush(lamp: Lamp) -> float:
    """Current [A] into the driver's capacitor, on top of the running current."""
    return lamp.type.inrush_a * math.exp(-lamp.since_on_s / lamp.type.inrush_s)


@dataclass(frozen=True, slots=True)
class Meter:
    """State of a cabinet's three-phase meter."""

    energy_kwh: float = 0.0
    reactive_kvarh: float = 0.0
    reactive_var: float = 0.0
    power_w: tuple[float, float, float] = (0.0, 0.0, 0.0)
    current_a: tuple[float, float, float] = (0.0, 0.0, 0.0)
    voltage_v: tuple[float, float, float] = (231.0, 230.4, 229.8)
    frequency_hz: float = 50.0


def advance_meter(
    meter: Meter, phases: tuple[list[Lamp], list[Lamp], list[Lamp]], seconds: float
) -> Meter:
    """The meter after a span of time with these lamps on its phases.

    The cabinet itself takes 8 W on L1. Power factor falls as lamps are dimmed:
    0.97 at full power, towards 0.5 at standby.
    """
    watts, amperes = [], []
    for number, lamps in enumerate(phases):
        own = 8.0 if number == 0 else 0.0
        active = own + sum(lamp_power(lamp) for lamp in lamps)
        rated = own + sum(lamp.type.rated_w for lamp in lamps)
        factor = 0.5 + 0.47 * min(1.0, active / rated) if rated else 1.0
        peak = sum(inrush(lamp) for lamp in lamps)
        watts.append(active)
        amperes.append(active / factor / meter.voltage_v[number] + peak)
    apparent = sum(v * a for v, a in zip(meter.voltage_v, amperes, strict=True))
    reactive = math.sqrt(max(0.0, apparent**2 - sum(watts) ** 2))
    return replace(
        meter,
        energy_kwh=meter.energy_kwh + sum(watts) * seconds / 3.6e6,
        reactive_kvarh=meter.reactive_kvarh + reactive * seconds / 3.6e6,
        reactive_var=reactive,
        power_w=(watts[0], watts[1], watts[2]),
        current_a=(amperes[0], amperes[1], amperes[2]),
    )


@dataclass(frozen=True, slots=True)
class Gauge:
    """State of a tipping-bucket gauge: water in the bucket [mm] and tips since it was built."""

    mm_per_tip: float = 0.2
    water_mm: float = 0.0
    tips: int = 0
    blocked: bool = False


def advance_gauge(gauge: Gauge, fallen_mm: float) -> Gauge:
    """The gauge after some rain [mm]; a blocked funnel holds all of it back."""
    if gauge.blocked or fallen_mm <= 0:
        return gauge
    water = gauge.water_mm + fallen_mm
    tipped = int(water / gauge.mm_per_tip + 1e-9)
    return replace(
        gauge,
        tips=gauge.tips + tipped,
        water_mm=max(0.0, water - tipped * gauge.mm_per_tip),
    )


def counter(gauge: Gauge, modulus: int = 65_536) -> int:
    """What the gauge's register shows: the tips, rolled over."""
    return gauge.tips % modulus
