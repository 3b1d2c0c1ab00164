"""Stretches with their lighting classes, types of luminaires, groups. Pure.

Vocabulary: EN 13201-2 (classes), TALQ 2.7.1 (lamp and luminaire types, groups).
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from duha_backend.errors import Invalid
from duha_backend.validate import Array

MAINTAINED: dict[str, float] = {
    "M1": 2.0, "M2": 1.5, "M3": 1.0, "M4": 0.75, "M5": 0.5, "M6": 0.3,
    "C0": 50.0, "C1": 30.0, "C2": 20.0, "C3": 15.0, "C4": 10.0, "C5": 7.5,
    "P1": 15.0, "P2": 10.0, "P3": 7.5, "P4": 5.0, "P5": 3.0, "P6": 2.0,
}  # fmt: skip
"""EN 13201-2:2015: maintained average luminance [cd/m²] of M, illuminance [lx] of C, P."""

LONGEST_M = 100_000.0
MOST_W = 100_000.0
"""Limits of what can be: a figure beyond is a slip, and sums over a city stay finite."""
_FIELDS = ("district", "street", "cabinet", "feeder", "type", "stretch", "phase")


class Asset(NamedTuple):
    """Something of the city's that has a place.

    Attributes
    ----------
    id, asset_id : str
        Its address here, and its number in the city's own books.
    stretch, type : str
        Ids of a `Stretch` and a `LuminaireType`.
    feeder, phase, pole : str
        Where it hangs: feeder or segment, phase ``L1`` to ``L3``, pole.
    floor : float or None
        Least level [%] in the dark, whatever the class of its stretch.
    """

    id: str
    kind: str
    cabinet: str
    district: str
    street: str
    latitude: float
    longitude: float
    feeder: str = ""
    type: str = ""
    networked: bool = True
    stretch: str = ""
    pole: str = ""
    phase: str = ""
    asset_id: str = ""
    floor: float | None = None


class Stretch(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of a street that is lit alike.

    Attributes
    ----------
    normal : str
        Its lighting class, the highest of any hour; empty where nobody has set one.
    adaptive : tuple of str
        Classes that it may be dimmed to, all of one letter with `normal`.
    levels : dict of str to float
        Level [%] at which a class is met here, by measurement or design; a class without
        one is met in proportion of its maintained value to that of `normal`.
    length_m, width_m : float
        What is lit [m], for the indicators of EN 13201-5; 0 is unknown.
    """

    id: str
    name: str
    normal: str = ""
    adaptive: tuple[str, ...] = ()
    levels: dict[str, float] = {}
    length_m: float = 0.0
    width_m: float = 0.0

    def level_of(self, name: str) -> float:
        """Level [%] at which a class is met."""
        if name in self.levels:
            return self.levels[name]
        if name == self.normal or not self.normal:
            return 100.0
        share = MAINTAINED[name] / MAINTAINED[self.normal]
        return min(100.0, self.normal_level * share)

    @property
    def normal_level(self) -> float:
        """Level [%] of its normal class."""
        return self.levels.get(self.normal, 100.0)

    @property
    def floor(self) -> float:
        """Least level [%] in the dark; 0 where it has no class."""
        if not self.normal:
            return 0.0
        return min(self.level_of(name) for name in (self.normal, *self.adaptive))

    def check(self) -> None:
        """Raise Invalid for classes that are none, or of another kind of road."""
        for name in (*filter(None, (self.normal,)), *self.adaptive, *self.levels):
            if name not in MAINTAINED:
                raise Invalid(f"stretch {self.id}: {name!r} is no class of EN 13201-2")
        for name in self.adaptive:
            if name[0] != self.normal[:1]:
                raise Invalid(
                    f"stretch {self.id}: {name} does not go with {self.normal}"
                )
            if MAINTAINED[name] > MAINTAINED[self.normal]:
                raise Invalid(
                    f"stretch {self.id}: {name} is more than the normal {self.normal}"
                )
        if not all(0 <= side <= LONGEST_M for side in (self.length_m, self.width_m)):
            raise Invalid(f"stretch {self.id}: a side is 0 to {LONGEST_M:g} m")
        if any(not 0 < level <= 100 for level in self.levels.values()):
            raise Invalid(f"stretch {self.id}: a class is met at 1 to 100 %")


class LuminaireType(msgspec.Struct, frozen=True, omit_defaults=True):
    """A type of luminaire.

    Attributes
    ----------
    rated_w, standby_w : float
        Power at full light, and of the driver when the light is off [W].
    curve : tuple of (level, power)
        Power [W] over the physical level [%], straight between points; without one power
        is taken for proportional.
    virtual_pct : float
        Physical level that a commanded 100 % means (virtual light output) [%].
    clo : tuple of (hours, level)
        Constant light output: drive level [%] over burning hours [h].
    depreciation : tuple of (hours, lumen)
        Light that is left [%] over burning hours [h].
    tolerance_pct : float
        How far power may be from the curve before that is an alarm [% of rated].
    power_factor : tuple of (level, least)
        Least power factor over level [%].
    """

    id: str
    name: str
    rated_w: float
    standby_w: float = 0.5
    curve: tuple[tuple[float, float], ...] = ()
    virtual_pct: float = 100.0
    clo: tuple[tuple[float, float], ...] = ()
    depreciation: tuple[tuple[float, float], ...] = ()
    lamp: str = "LED"
    driver: str = ""
    luminous_flux_lm: float = 0.0
    tolerance_pct: float = 15.0
    power_factor: tuple[tuple[float, float], ...] = ()

    def power(self, level: Array, hours: float = 0.0) -> Array:
        """Power [W] at commanded levels [%], after some burning hours [h]."""
        level = np.asarray(level, dtype=float)
        drive = self.virtual_pct / 100 * _interpolated(self.clo, hours, 100.0) / 100
        points = self.curve or ((0.0, self.standby_w), (100.0, self.rated_w))
        x, y = np.array(points).T
        return np.where(level > 0, np.interp(level * drive, x, y), self.standby_w)

    def check(self) -> None:
        """Raise Invalid for what cannot be."""
        for name in ("curve", "clo", "depreciation", "power_factor"):
            steps = [x for x, _ in getattr(self, name)]
            if steps != sorted(set(steps)):
                raise Invalid(f"type {self.id}: {name} goes from left to right")
        if not 0 <= self.standby_w <= self.rated_w or self.rated_w <= 0:
            raise Invalid(f"type {self.id}: 0 <= standby <= rated power [W]")
        if self.rated_w > MOST_W or any(power > MOST_W for _, power in self.curve):
            raise Invalid(f"type {self.id}: a luminaire takes {MOST_W:g} W at most")
        if any(power < 0 for _, power in self.curve) or not 0 < self.virtual_pct <= 100:
            raise Invalid(f"type {self.id}: power is not negative, light at most 100 %")


def _interpolated(
    points: tuple[tuple[float, float], ...], at: float, without: float
) -> float:
    if not points:
        return without
    x, y = np.array(points).T
    return float(np.interp(at, x, y))


class Group(msgspec.Struct, frozen=True, omit_defaults=True):
    """Luminaires by name, or by a rule that new ones fall under at once.

    `rule` names fields of the inventory and their values: a luminaire belongs to the
    group when every field has one of its values.
    """

    id: str
    name: str
    members: tuple[str, ...] = ()
    rule: dict[str, tuple[str, ...]] = {}

    def check(self) -> None:
        """Raise Invalid for a rule over fields that are none."""
        unknown = [name for name in self.rule if name not in _FIELDS]
        if unknown:
            raise Invalid(
                f"group {self.id}: no field {unknown[0]!r}; {', '.join(_FIELDS)}"
            )
        if self.rule and self.members:
            raise Invalid(f"group {self.id}: either members or a rule")

    def among(self, assets: Iterable[Asset]) -> list[Asset]:
        """Those of some luminaires that belong to it."""
        if not self.rule:
            named = frozenset(self.members)
            return [asset for asset in assets if asset.id in named]
        return [
            asset
            for asset in assets
            if all(
                getattr(asset, field) in values for field, values in self.rule.items()
            )
        ]
