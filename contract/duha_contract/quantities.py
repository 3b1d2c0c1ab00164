"""The data dictionary: what each kind of device measures, in which unit and range.

A value outside its range is impossible, not merely unlikely: it is quarantined.
Names carry their unit, so that a table of readings explains itself. What controllers
measure and send is in `KINDS`; what the backend works out of it is in `DERIVED`.
"""

from dataclasses import dataclass
from typing import Literal

OverTime = Literal["mean", "last", "sum", "max"]
OverDevices = Literal["mean", "sum"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One column of readings.

    Attributes
    ----------
    name : str
        Column name, with its unit.
    unit : str
        Unit for people; empty for counts and flags.
    low, high : float
        Smallest and largest possible value [unit].
    resolution : float
        Step that is worth keeping [unit].
    over_time : {"mean", "last", "sum", "max"}
        What many readings of a device become in a longer step: counters their last
        value, falls their sum, faults the worst.
    over_devices : {"mean", "sum"}
        What the devices of a cabinet or a city become together.
    """

    name: str
    unit: str
    low: float
    high: float
    resolution: float
    title: str
    over_time: OverTime = "mean"
    over_devices: OverDevices = "mean"


_LAST = frozenset(
    (
        "energy_wh", "burning_h", "switch_ons", "energy_kwh", "energy_export_kwh",
        "reactive_energy_kvarh", "counter_raw", "level_commanded_pct", "status_code",
        "power_on_level_pct", "system_failure_level_pct",
    )
)  # fmt: skip
_SUM = frozenset(("counts", "rain_mm", "interval_s"))
_WORST = frozenset(
    (
        "lamp_failure", "gear_failure", "precipitation", "snow", "door_open",
        "breaker_tripped", "local_override", "leakage_ma",
    )
)  # fmt: skip
_ADD_UP = frozenset(("power_w", "energy_wh", "switch_ons", "reactive_power_var"))


def _q(
    name: str, unit: str, low: float, high: float, resolution: float, title: str
) -> Quantity:
    over_time: OverTime = "mean"
    if name in _LAST:
        over_time = "last"
    elif name in _SUM:
        over_time = "sum"
    elif name in _WORST:
        over_time = "max"
    adds = name in _ADD_UP or name.startswith(("energy", "power_l", "current"))
    together: OverDevices = "sum" if adds or name.endswith("_failure") else "mean"
    return Quantity(name, unit, low, high, resolution, title, over_time, together)


_LUMINAIRE = (
    _q("level_commanded_pct", "%", 0, 100, 1, "Level that the controller asks for"),
    _q("level_in_effect_pct", "%", 0, 100, 1, "Set-point read back from the driver"),
    _q("level_actual_pct", "%", 0, 100, 1, "Light output that the driver reports"),
    _q("power_w", "W", 0, 2000, 0.1, "Active power"),
    _q("energy_wh", "Wh", 0, 4.3e9, 1, "Active energy since installation"),
    _q("burning_h", "h", 0, 500_000, 0.1, "Burning hours"),
    _q("driver_temperature_c", "°C", -50, 150, 0.1, "Driver temperature"),
    _q("voltage_v", "V", 0, 500, 0.1, "Supply voltage"),
    _q("switch_ons", "", 0, 4.3e9, 1, "Times switched on"),
    _q("lamp_failure", "", 0, 1, 1, "Lamp failure reported by the driver"),
    _q("gear_failure", "", 0, 1, 1, "Failure of the driver itself, or none found"),
    _q("power_on_level_pct", "%", 0, 100, 1, "Level that the driver takes with power"),
    _q("system_failure_level_pct", "%", 0, 100, 1, "Level without a gateway"),
    _q("power_factor", "", -1, 1, 0.01, "Power factor"),
    _q("current_a", "A", 0, 50, 0.001, "Current"),
)
_METER = (
    *(_q(f"voltage_l{p}_v", "V", 0, 500, 0.1, f"Voltage L{p}-N") for p in (1, 2, 3)),
    *(_q(f"current_l{p}_a", "A", 0, 1000, 0.01, f"Current L{p}") for p in (1, 2, 3)),
    *(
        _q(f"power_l{p}_w", "W", -2.5e5, 2.5e5, 1, f"Active power L{p}")
        for p in (1, 2, 3)
    ),
    _q("power_w", "W", -7.5e5, 7.5e5, 1, "Active power"),
    _q("frequency_hz", "Hz", 40, 70, 0.01, "Frequency"),
    _q("energy_kwh", "kWh", 0, 1e9, 0.01, "Imported active energy"),
    _q("energy_export_kwh", "kWh", 0, 1e9, 0.01, "Exported active energy"),
    _q("reactive_power_var", "var", -7.5e5, 7.5e5, 1, "Reactive power"),
    _q("reactive_energy_kvarh", "kvarh", 0, 1e9, 0.01, "Imported reactive energy"),
    _q("power_factor", "", -1, 1, 0.001, "Power factor"),
)
_RAIN_GAUGE = (
    _q("counter_raw", "", 0, 9e15, 1, "Counter as read, before any arithmetic"),
    _q("counts", "", 0, 9e15, 1, "Counts since the last reading"),
    _q("rain_mm", "mm", 0, 500, 0.01, "Rain since the last reading"),
    _q("interval_s", "s", 0, 4e8, 1, "Time since the last reading"),
    _q("intensity_mm_h", "mm/h", 0, 1000, 0.01, "Intensity as the gauge gives it"),
    _q("temperature_c", "°C", -50, 100, 0.1, "Temperature in the gauge"),
    _q("heating_pct", "%", 0, 100, 1, "Heating power"),
    _q("status_code", "", 0, 65_535, 1, "Status word of the gauge"),
)
_RAIN_DETECTOR = (
    _q("precipitation", "", 0, 1, 1, "It rains or snows"),
    _q("snow", "", 0, 1, 1, "What falls is snow"),
    _q("trusted", "", 0, 1, 1, "The detector trusts its own reading"),
    _q("dry_surface_pct", "%", 0, 100, 1, "Dry part of the surface"),
    _q("temperature_c", "°C", -50, 100, 0.1, "Ambient temperature"),
    _q("heater_c", "°C", -50, 150, 0.1, "Heater temperature"),
)
_CABINET_IO = (
    _q("door_open", "", 0, 1, 1, "The door is open"),
    _q("supply_ok", "", 0, 1, 1, "There is mains voltage"),
    _q("breaker_tripped", "", 0, 1, 1, "A circuit breaker has tripped"),
    _q("contactor_commanded", "", 0, 1, 1, "The contactor shall be on"),
    _q("contactor_on", "", 0, 1, 1, "The contactor is on"),
    _q("local_override", "", 0, 1, 1, "Somebody has switched by hand on the spot"),
    _q("leakage_ma", "mA", 0, 30_000, 1, "Earth leakage current"),
)
_LUX = (_q("illuminance_lx", "lx", 0, 250_000, 0.1, "Illuminance"),)

KINDS: dict[str, tuple[Quantity, ...]] = {
    "luminaire": _LUMINAIRE,
    "meter": _METER,
    "rain_gauge": _RAIN_GAUGE,
    "rain_detector": _RAIN_DETECTOR,
    "lux": _LUX,
    "cabinet_io": _CABINET_IO,
}

_RAIN = (
    _q("raw_mm", "mm", 0, 500, 0.01, "Rain of the minute as the gauge has counted it"),
    _q("rain_mm", "mm", 0, 500, 0.001, "Rain of the minute, corrected or filled"),
    _q("quality_index", "", 0, 1, 0.01, "How far the minute can be believed"),
    _q("flags", "", 0, 65_535, 1, "Reasons against it, as bits"),
    _q("temperature_c", "°C", -50, 100, 0.1, "Temperature in the gauge"),
)
_CATCHMENT = (
    _q("rain_mm", "mm", 0, 500, 0.001, "Rain of the minute over the catchment"),
    _q("runoff_l_s", "L/s", 0, 1e7, 0.01, "Runoff, by the model that is always on"),
)
_MODEL = (
    _q("rain_mm", "mm", 0, 1000, 0.001, "Rain that the model took since the last row"),
    _q("runoff_l_s", "L/s", 0, 1e7, 0.01, "Runoff of all its subcatchments"),
    _q("outflow_l_s", "L/s", -1e7, 1e7, 0.01, "What leaves it at its outfalls"),
    _q(
        "flooding_l_s", "L/s", 0, 1e7, 0.01, "What leaves its manholes onto the streets"
    ),
    _q("stored_m3", "m³", 0, 1e9, 0.01, "Water within it"),
)
_NODE = (
    _q("depth_m", "m", 0, 1000, 0.001, "Depth of water"),
    _q("inflow_l_s", "L/s", -1e7, 1e7, 0.01, "Total inflow"),
    _q("flooding_l_s", "L/s", 0, 1e7, 0.01, "Overflow onto the street"),
)
_CONDUIT = (
    _q("flow_l_s", "L/s", -1e7, 1e7, 0.01, "Flow"),
    _q("depth_m", "m", 0, 1000, 0.001, "Depth of water"),
    _q("filling", "", 0, 1, 0.001, "Share of its full depth"),
)
_LID = (
    _q("inflow_mm", "mm", 0, 1e7, 0.01, "Came so far, over its own area"),
    _q("infiltrated_mm", "mm", 0, 1e7, 0.01, "Soaked into the ground so far"),
    _q("evaporated_mm", "mm", 0, 1e7, 0.01, "Evaporated so far"),
    _q("spilled_mm", "mm", 0, 1e7, 0.01, "Left over its rim so far"),
    _q("drained_mm", "mm", 0, 1e7, 0.01, "Left through its drain so far"),
    _q("stored_mm", "mm", 0, 1e7, 0.01, "Water in it now"),
)

DERIVED: dict[str, tuple[Quantity, ...]] = {
    "rain": _RAIN,
    "catchment": _CATCHMENT,
    "model": _MODEL,
    "node": _NODE,
    "conduit": _CONDUIT,
    "lid": _LID,
}
STORED = KINDS | DERIVED
BY_NAME: dict[str, dict[str, Quantity]] = {
    kind: {quantity.name: quantity for quantity in quantities}
    for kind, quantities in STORED.items()
}
