"""Studies: the same rains over several models, and what comes of it. Pure.

A job is one model under one rain, and its outcome a small table of figures and courses, so
that many jobs can be spread over processes and machines and come back cheaply.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from duha_backend.errors import Invalid
from duha_backend.runoff.inp import Inp, describe, parse
from duha_backend.runoff.sizing import LONGEST_EMPTYING_H, THROTTLE_L_S_HA
from duha_backend.runoff.swmm_text import row_of
from duha_backend.validate import Array

EVERY_MIN = 5
TAIL_H = 80.0
"""How long a model runs on after its rain: beyond the 72 h in which it must be empty."""
EMPTY_MM = 1.0
VERSION = b"2"
"""Of the calculation: outcomes of an earlier one are not taken for these."""
FACTORS = ("imperviousness", "width", "roughness", "infiltration", "pipes")


class Rain(NamedTuple):
    """A rain of a study: a name, and minutes (t, g) or (t, 1) for all gages [mm/h]."""

    name: str
    mm_h: Array


class Job(NamedTuple):
    """One model under one rain.

    `factors` multiplies what may be calibrated: shares of paved area, widths, roughness of
    surfaces, infiltration, roughness of pipes.
    """

    model: str
    raw: bytes
    rain: Rain
    tail_h: float = TAIL_H
    factors: tuple[tuple[str, float], ...] = ()

    @property
    def key(self) -> str:
        """A name for its content: the same job has the same outcome."""
        digest = hashlib.sha256(VERSION)
        digest.update(self.raw)
        digest.update(np.ascontiguousarray(self.rain.mm_h, dtype=float).tobytes())
        digest.update(repr((self.rain.mm_h.shape, self.tail_h, self.factors)).encode())
        return digest.hexdigest()[:32]


class Outcome(msgspec.Struct, frozen=True):
    """What came of a job.

    Attributes
    ----------
    area_ha, rain_mm, rain_m3 : float
        What it rained on, and how much.
    outflow_m3, outflow_peak_l_s : float
        Over all outfalls together.
    overflow_m3, overflow_peak_l_s : float
        Over those outfalls that only a weir leads to.
    flooded_nodes, flooding_m3 : int, float
        Manholes that spilled onto the street, as in SWMM's own summary of flooding.
    runoff_mm, infiltrated_mm, evaporated_mm : float
        Of the whole area.
    kept_share : float
        Of the rain that never came into the sewer.
    emptying_h : float or None
        Until the last rain garden or swale was empty; None without any, or when it was
        not empty at the end.
    not_empty : int
        How many were not.
    outfalls : dict of str to list
        Flow of each outfall [L/s], mean of every five minutes.
    depths : dict of str to float
        Greatest depth of each node [m].
    overflows : tuple of str
        Which outfalls are overflows.

    Notes
    -----
    Peaks, depths, volumes and flooding are those of every routing step.
    """

    model: str
    rain: str
    area_ha: float
    rain_mm: float
    rain_m3: float
    outflow_m3: float
    outflow_peak_l_s: float
    overflow_m3: float
    overflow_peak_l_s: float
    flooded_nodes: int
    flooding_m3: float
    runoff_mm: float
    infiltrated_mm: float
    evaporated_mm: float
    kept_share: float
    lids: int
    emptying_h: float | None
    not_empty: int
    outfalls: dict[str, list[float]]
    depths: dict[str, float]
    overflows: tuple[str, ...] = ()
    problem: str = ""

    @property
    def specific_l_s_ha(self) -> float:
        """Peak outflow of an hectare [L/(s ha)], for the throttle of TNV 75 9011."""
        return self.outflow_peak_l_s / self.area_ha if self.area_ha else 0.0


class Line(NamedTuple):
    """A line of a comparison: the measure, its unit, its value in each model."""

    name: str
    unit: str
    values: tuple[float | None, ...]
    limit: float | None = None


MEASURES: tuple[tuple[str, str], ...] = (
    ("rain_mm", "mm"), ("outflow_peak_l_s", "L/s"), ("specific_l_s_ha", "L/(s·ha)"),
    ("outflow_m3", "m³"), ("overflow_m3", "m³"), ("overflow_peak_l_s", "L/s"),
    ("flooded_nodes", ""), ("flooding_m3", "m³"), ("kept_share", "%"),
    ("emptying_h", "h"),
)  # fmt: skip
LIMITS = {"specific_l_s_ha": THROTTLE_L_S_HA, "emptying_h": LONGEST_EMPTYING_H}


def compared(outcomes: Sequence[Outcome], rain: str) -> list[Line]:
    """The lines of a comparison under one rain, in the order of the models."""
    mine = [outcome for outcome in outcomes if outcome.rain == rain]
    found = []
    for name, unit in MEASURES:
        values = [getattr(outcome, name) for outcome in mine]
        if name == "kept_share":
            values = [100 * value for value in values]
        found.append(Line(name, unit, tuple(values), LIMITS.get(name)))
    return found


def overflows(raw: bytes) -> list[str]:
    """Outfalls that only weirs lead to: those of combined overflows."""
    inp = parse(raw)
    outfalls = set(inp.ids("OUTFALLS"))
    by_weir = {row[2] for row in inp.rows("WEIRS") if len(row) > 2}
    by_others = {
        row[2]
        for name in ("CONDUITS", "PUMPS", "ORIFICES", "OUTLETS")
        for row in inp.rows(name)
        if len(row) > 2
    }
    return sorted((outfalls & by_weir) - by_others)


def emptied_h(water_mm: Array, rain_end_min: int) -> tuple[float | None, int]:
    """Until devices were empty after the end of rain [h]; and how many were not.

    Parameters
    ----------
    water_mm : (t, k) array
        Water on and in each device, every five minutes [mm]; what it began with is taken
        for empty.
    rain_end_min : int
        When rain ended [min].
    """
    if not water_mm.shape[1]:
        return None, 0
    wet = water_mm - water_mm[0] > EMPTY_MM
    full = int(wet[-1].sum())
    if full:
        return None, full
    last = len(wet) - int(np.argmax(wet[::-1].any(axis=1))) if wet.any() else 0
    return max(0.0, (last * EVERY_MIN - rain_end_min) / 60), 0


def rain_of_gages(rain: Rain, gages: int) -> Array:
    """Rain (t, g) of each gage of a model; one column serves all.

    Raises
    ------
    Invalid
        It has as many columns as nothing in the model.
    """
    made = np.asarray(rain.mm_h, dtype=float)
    if made.ndim == 1:
        made = made[:, None]
    if made.shape[1] == 1:
        return np.repeat(made, gages, axis=1)
    if made.shape[1] != gages:
        raise Invalid(
            f"rain {rain.name!r} has {made.shape[1]} gauges, the model has {gages}"
        )
    return made


def scaled(inp: Inp, factors: Mapping[str, float]) -> Inp:
    """A model whose parameters are multiplied.

    Parameters
    ----------
    inp : Inp
        The model.
    factors : mapping of str to float
        ``imperviousness``, ``width``, ``roughness`` (of surfaces), ``infiltration``,
        ``pipes`` (roughness).

    Raises
    ------
    Invalid
        There is no such parameter.
    """
    unknown = [name for name in factors if name not in FACTORS]
    if unknown:
        raise Invalid(f"nothing named {unknown[0]!r}; there are {', '.join(FACTORS)}")
    made = Inp(dict(inp.sections))

    def change(section: str, column: int, by: float, most: float = np.inf) -> None:
        if by == 1 or section not in made.sections:
            return
        rows = made.rows(section)
        for row in rows:
            try:
                row[column] = f"{min(most, float(row[column]) * by):.6g}"
            except (ValueError, IndexError):
                raise Invalid(f"[{section}] {' '.join(row)[:60]}: no number") from None
        made.sections[section] = [row_of(row) for row in rows]

    change("SUBCATCHMENTS", 4, factors.get("imperviousness", 1.0), 100.0)
    change("SUBCATCHMENTS", 5, factors.get("width", 1.0))
    for column in (1, 2):
        change("SUBAREAS", column, factors.get("roughness", 1.0))
    if inp.option("INFILTRATION", "HORTON").upper().endswith("HORTON"):
        for column in (1, 2):
            change("INFILTRATION", column, factors.get("infiltration", 1.0))
    change("CONDUITS", 4, factors.get("pipes", 1.0))
    return made


def check_models(models: Mapping[str, bytes]) -> None:
    """Raise Invalid for a model that is none, before anything has been reckoned."""
    if not models:
        raise Invalid("a study has one model at least")
    for name, raw in models.items():
        try:
            describe(parse(raw))
        except Invalid as error:
            raise Invalid(f"model {name}: {error}") from None


def summary(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Outcomes as rows of a table, without their courses."""
    rows = []
    for outcome in outcomes:
        row = msgspec.to_builtins(outcome)
        row.pop("outfalls"), row.pop("depths")
        rows.append(row | {"specific_l_s_ha": outcome.specific_l_s_ha})
    return rows
