"""Simulated devices: physics behind the registers of a profile."""

import math
from abc import ABC, abstractmethod
from dataclasses import replace

from duha_contract.clock import Clock
from duha_edge.points import decode, encode
from duha_edge.profiles import Profile
from duha_sim.modbus import ILLEGAL_ADDRESS, ILLEGAL_VALUE, Refusal
from duha_sim.physics import (
    Gauge,
    Lamp,
    Meter,
    advance_gauge,
    advance_lamp,
    advance_meter,
    counter,
    lamp_power,
    set_level,
)
from duha_sim.storm import Weather

AMBIENT_C = 8.0


class _Registers(ABC):
    """Makes the registers of a profile from current values; the rest is refused."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    @abstractmethod
    def values(self) -> dict[str, float]:
        """Quantities now."""

    def read(self, table: str, address: int, count: int) -> list[int]:
        """Registers from the current values; holes within the map read as zero."""
        image = self.image(table)
        last = max(image, default=-1)
        if address + count - 1 > last:
            raise Refusal(ILLEGAL_ADDRESS)
        return [image.get(address + i, 0) for i in range(count)]

    def write(self, address: int, words: list[int]) -> None:
        """Refuse: a device takes no writes unless it says so."""
        del address, words
        raise Refusal(ILLEGAL_ADDRESS)

    def image(self, table: str) -> dict[int, int]:
        """Registers of a table by address."""
        values = self.values()
        image: dict[int, int] = {}
        for point in self.profile.point:
            if point.table == table and point.quantity in values:
                words = encode(point, values[point.quantity])
                for i, word in enumerate(words):  # several bits may share a register
                    image[point.address + i] = image.get(point.address + i, 0) | word
        return image


class ProfileUnit(_Registers):
    """A device of any profile that says what it was given, and takes what may be written.

    It refuses the fences of its profile, and more words at a time than it may be asked.
    """

    def __init__(self, profile: Profile, values: dict[str, float]) -> None:
        super().__init__(profile)
        self._values = dict(values)

    def values(self) -> dict[str, float]:
        """What it was given, or what was written since."""
        return self._values

    def read(self, table: str, address: int, count: int) -> list[int]:
        """Registers, as a device that knows its fences gives them."""
        last = address + count - 1
        if table in {"holding", "input"} and count > self.profile.max_words:
            raise Refusal(ILLEGAL_VALUE)
        for fence in self.profile.fence:
            if fence.table == table and fence.first <= last and fence.last >= address:
                raise Refusal(ILLEGAL_ADDRESS)
        return super().read(table, address, count)

    def write(self, address: int, words: list[int]) -> None:
        """Take a value within the range that the profile allows."""
        point = next((p for p in self.profile.point if p.address == address), None)
        if point is None or point.write is None or len(words) != 1:
            raise Refusal(ILLEGAL_ADDRESS)
        value = decode(point, {address: words[0]})
        if value is None or not point.write.allows(value):
            raise Refusal(ILLEGAL_VALUE)
        self._values[point.quantity] = value


class Gateway:
    """Several placed devices of one profile behind one unit, with its group registers.

    Parameters
    ----------
    profile : Profile
        As it is in its file, before it is placed.
    places : list of dict
        Where the devices are.
    groups : dict
        ``(register, at)`` of each group, `at` as sorted pairs, to the numbers of its
        members in `places`.
    """

    def __init__(
        self,
        profile: Profile,
        places: list[dict[str, int]],
        values: dict[str, float],
        groups: dict[tuple[str, tuple[tuple[str, int], ...]], list[int]] | None = None,
    ) -> None:
        self.units = [ProfileUnit(profile.placed(at), values) for at in places]
        self._groups = {
            profile.group_point(name, dict(at)).address: (
                profile.group_point(name, dict(at)),
                [self.units[number] for number in members],
            )
            for (name, at), members in (groups or {}).items()
        }
        self.asked: list[tuple[str, int, int]] = []

    def read(self, table: str, address: int, count: int) -> list[int]:
        """Registers of all devices; what they share is put together."""
        self.asked.append((table, address, count))
        images = [unit.image(table) for unit in self.units]
        if address + count - 1 > max(max(image, default=-1) for image in images):
            raise Refusal(ILLEGAL_ADDRESS)
        words = [0] * count
        for image in images:
            for i in range(count):
                words[i] |= image.get(address + i, 0)
        return words

    def write(self, address: int, words: list[int]) -> None:
        """Write one device, or all of a group."""
        self.asked.append(("write", address, words[0]))
        if address in self._groups:
            point, members = self._groups[address]
            for unit in members:
                like = unit.profile.point_of(point.quantity)
                unit.write(like.address if like else address, words)
            return
        for unit in self.units:
            if any(p.address == address and p.write for p in unit.profile.point):
                unit.write(address, words)
                return
        raise Refusal(ILLEGAL_ADDRESS)


class Luminaire(_Registers):
    """A lamp and driver that live on the clock."""

    def __init__(self, profile: Profile, clock: Clock, lamp: Lamp) -> None:
        super().__init__(profile)
        self._clock = clock
        self._at = clock.now()
        self._lamp = lamp

    @property
    def lamp(self) -> Lamp:
        """The lamp at this instant."""
        now = self._clock.now()
        self._lamp = advance_lamp(self._lamp, now - self._at, AMBIENT_C)
        self._at = now
        return self._lamp

    def set_trouble(self, trouble: str | None) -> None:
        """Break the lamp in some way, or mend it."""
        lamp = self.lamp
        broken = {
            "burnt_out": trouble == "burnt_out",
            "share": 0.55 if trouble == "weak" else 1.0,
            "stuck": 1.0 if trouble == "day_burner" else None,
        }
        if any(getattr(lamp, name) != value for name, value in broken.items()):
            self._lamp = replace(lamp, **broken)  # type: ignore[arg-type]

    def values(self) -> dict[str, float]:
        """What the driver reports."""
        lamp = self.lamp
        return {
            "level_in_effect_pct": 100 * lamp.setpoint,
            "level_actual_pct": 100 * lamp.light,
            "power_w": lamp_power(lamp),
            "energy_wh": lamp.energy_wh,
            "burning_h": lamp.burning_s / 3600,
            "driver_temperature_c": lamp.temperature_c,
            "voltage_v": 230.4,
            "switch_ons": lamp.switch_ons % 65_536,
            "lamp_failure": lamp.burnt_out,
        }

    def write(self, address: int, words: list[int]) -> None:
        """Take a new set-point [%]; everything else is refused."""
        point = self.profile.point_of("level_in_effect_pct")
        if point is None or address != point.address or len(words) != 1:
            raise Refusal(ILLEGAL_ADDRESS)
        if words[0] > 100:
            raise Refusal(ILLEGAL_VALUE)
        self._lamp = set_level(self.lamp, words[0] / 100)


class MeterUnit(_Registers):
    """A meter over the lamps of its cabinet, dealt to three phases."""

    def __init__(self, profile: Profile, clock: Clock, lamps: list[Luminaire]) -> None:
        super().__init__(profile)
        self._clock = clock
        self._at = clock.now()
        self._lamps = lamps
        self._meter = Meter()

    def values(self) -> dict[str, float]:
        """What the meter shows."""
        now = self._clock.now()
        first, second, third = (
            [unit.lamp for unit in self._lamps[phase::3]] for phase in range(3)
        )
        meter = advance_meter(self._meter, (first, second, third), now - self._at)
        self._meter, self._at = meter, now
        values: dict[str, float] = {
            "power_w": sum(meter.power_w),
            "frequency_hz": meter.frequency_hz,
            "energy_kwh": meter.energy_kwh,
            "energy_export_kwh": 0.0,  # lamps give nothing back
            "reactive_power_var": meter.reactive_var,
            "reactive_energy_kvarh": meter.reactive_kvarh,
            "power_factor": sum(meter.power_w)
            / max(1e-9, math.hypot(sum(meter.power_w), meter.reactive_var)),
        }
        for phase in range(3):
            values[f"voltage_l{phase + 1}_v"] = meter.voltage_v[phase]
            values[f"current_l{phase + 1}_a"] = meter.current_a[phase]
            values[f"power_l{phase + 1}_w"] = meter.power_w[phase]
        return values


class GaugeUnit(_Registers):
    """A tipping-bucket gauge under the weather."""

    STEP_S = 20.0

    def __init__(
        self, profile: Profile, clock: Clock, weather: Weather, place: tuple[float, float],
        tips: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(profile)
        self._clock = clock
        self._at = clock.now()
        self._weather = weather
        self._place = place
        self._gauge = Gauge(tips=tips)

    def set_blocked(self, blocked: bool) -> None:
        """Block or clear the funnel."""
        self.values()
        gauge = self._gauge
        self._gauge = Gauge(gauge.mm_per_tip, gauge.water_mm, gauge.tips, blocked)

    def values(self) -> dict[str, float]:
        """The counter, after all rain that has fallen until now."""
        now = self._clock.now()
        while self._at < now:
            span = min(self.STEP_S, now - self._at)
            rate = self._weather.intensity(self._at + span / 2, *self._place)
            self._gauge = advance_gauge(self._gauge, rate * span / 3600)
            self._at += span
        return {"counter_raw": counter(self._gauge)}
