"""Places that are watched, rains that may come, and how long until a stage is reached. Pure."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from duha_backend.errors import Invalid
from duha_backend.rain.events import Idf
from duha_backend.runoff.live import MOST_MM_H
from duha_backend.validate import Array

What = Literal["depth_m", "inflow_l_s", "flooding_l_s", "flow_l_s"]
Part = Literal["node", "link"]
OF: dict[Part, tuple[What, ...]] = {
    "node": ("depth_m", "inflow_l_s", "flooding_l_s"),
    "link": ("flow_l_s", "depth_m"),
}
STAGES = ("I", "II", "III")
"""Degrees of flood activity (stupně povodňové aktivity, SPA)."""
PERSIST_MIN = 30
"""Rain of so many last minutes is what goes on."""
LIKELY = ("dry", "persistence")
"""Members that warn; the others show what may come."""


class Watch(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place of a model with its stages.

    Attributes
    ----------
    model, part, object, what : str
        Which model, node or link, its name, and which of its results.
    stages : tuple of float
        Limits of the degrees I, II, III in the unit of `what`; rising, one at least.
    latitude, longitude : float or None
        For the map [°].
    """

    id: str
    name: str
    model: str
    part: Part
    object: str
    what: What
    stages: tuple[float, ...]
    latitude: float | None = None
    longitude: float | None = None

    def check(self) -> None:
        """Raise Invalid for stages that do not rise, or a result that is none."""
        if not 1 <= len(self.stages) <= len(STAGES):
            raise Invalid(f"watch {self.id}: one to three stages")
        if list(self.stages) != sorted(set(self.stages)) or self.stages[0] <= 0:
            raise Invalid(f"watch {self.id}: stages rise")
        if self.what not in OF[self.part]:
            raise Invalid(f"watch {self.id}: a {self.part} has no {self.what}")

    @property
    def unit(self) -> str:
        """Unit of its result."""
        return "m" if self.what == "depth_m" else "L/s"

    @property
    def row(self) -> int:
        """Row of its result among those of its part."""
        return OF[self.part].index(self.what)

    def stage(self, value: float) -> int:
        """How many stages a value has reached: 0 to 3."""
        return sum(value >= limit for limit in self.stages)


class Reached(NamedTuple):
    """When a stage is reached in a forecast: stage 1 to 3, minutes from its start."""

    stage: int
    minutes: float
    member: str


def members(
    rain_mm_h: Array, horizon_min: int, design: tuple[Idf, float] | None = None,
    storm_min: int = 60,
) -> dict[str, Array]:  # fmt: skip
    """Rains that may come.

    Parameters
    ----------
    rain_mm_h : (t, g) array
        Of the last minutes [mm/h]; NaN counts as none.
    horizon_min : int
        How far ahead.
    design : (Idf, return period), optional
        The city's design rain, for a storm that begins now.
    storm_min : int
        Length of that storm [min].

    Returns
    -------
    dict of str to (horizon_min, g) array
        ``dry``, ``persistence`` (the mean of the last half hour goes on for an hour, then
        fades within the next one), ``more`` (half as much again) and ``design``.
    """
    last = np.nan_to_num(rain_mm_h[-PERSIST_MIN:])
    gauges = rain_mm_h.shape[1]
    mean = last.mean(axis=0) if len(last) else np.zeros(gauges)
    fading = np.clip(2 - np.arange(horizon_min) / 60, 0, 1)[:, None]
    found = {
        "dry": np.zeros((horizon_min, gauges)),
        "persistence": fading * mean,
        "more": 1.5 * fading * mean,
    }
    if design is not None:
        storm = np.zeros((horizon_min, gauges))
        course = design_storm(*design, storm_min)[:horizon_min]
        storm[: len(course)] = course[:, None]
        found["design"] = storm
    return {name: np.minimum(rain, MOST_MM_H) for name, rain in found.items()}


def design_storm(
    table: Idf, period_a: float, minutes: int = 60, step_min: int = 5
) -> Array:
    """A storm of the city's design rain, minute by minute [mm/h].

    Depths of every duration are met around its peak (Euler type II, DWA-A 118: the blocks
    of the table by size, the greatest one ends at a third of the storm, those before it
    rise). Within the table's shortest duration the intensity is even: the table says
    nothing of shorter bursts.

    Raises
    ------
    Invalid
        The table does not reach to this return period or duration.
    """
    steps = minutes // step_min
    shortest = float(table.durations[0])
    depths = [
        table.depth_of(max(shortest, n * step_min), period_a)
        * min(1.0, n * step_min / shortest)
        for n in range(1, steps + 1)
    ]
    blocks = np.diff(np.array([0.0, *depths]))
    blocks = np.sort(blocks)[::-1]
    before = max(0, round(steps / 3) - 1)
    order = [*blocks[: before + 1][::-1], *blocks[before + 1 :]]
    return np.repeat(np.array(order) * 60 / step_min, step_min)


def reached(
    watch: Watch, courses: Mapping[str, Array], every_min: float
) -> list[Reached]:
    """When each stage is first reached, by the member that reaches it soonest.

    Parameters
    ----------
    watch : Watch
        What is watched.
    courses : mapping of str to (t,) array
        Its result in each member; the first row is `every_min` after the start.
    """
    found = []
    for number, limit in enumerate(watch.stages, 1):
        times = [
            (float(np.argmax(course >= limit) + 1) * every_min, name)
            for name, course in courses.items()
            if (np.asarray(course) >= limit).any()
        ]
        if times:
            minutes, name = min(times)
            found.append(Reached(number, minutes, name))
    return found


def band(courses: Sequence[Array]) -> tuple[list[float], list[float]]:
    """Lowest and highest value of some courses at each time."""
    if not courses:
        return [], []
    stack = np.array(courses)
    return stack.min(axis=0).tolist(), stack.max(axis=0).tolist()
