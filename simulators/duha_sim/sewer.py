"""Combined sewers as SWMM input files: a tree of streets, an overflow into the river. Pure.

The same sewer is made as it is, with rain gardens beside its streets, or with its roofs let
off to green areas; so that one rain shows what they are worth.
"""

import math
from collections.abc import Sequence
from typing import Literal

Variant = Literal["today", "gardens", "disconnected"]
PIPES_M = (0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 2.0, 2.4)
PAVED_PCT = 55.0
GARDEN_SHARE = 0.05
"""Of the area of a street's houses; six tenths of its paved area drain to the garden."""
FOUL_L_S_HA = 0.3
DESIGN_L_S_HA = 70.0
STREET_M = 60.0
SLOPE = 0.008
DEPTH_M = 3.0
BASE_M = 305.0
OVERFLOW, RIVER, PLANT = "OVERFLOW", "RIVER", "PLANT"


def sewer(
    streets: int = 60, gauges: Sequence[str] = ("RG",), variant: Variant = "today",
    routing_s: float = 5.0, hectares: float = 1.0,
) -> str:  # fmt: skip
    """A sewer as a SWMM input file.

    Parameters
    ----------
    streets : int
        Streets, each with a subcatchment, a manhole and a pipe.
    gauges : sequence of str
        Names of its rain gages; subcatchments take turns.
    variant : {"today", "gardens", "disconnected"}
        What is done about rain.
    routing_s : float
        Routing step [s].
    hectares : float
        Area of each subcatchment [ha].
    """
    above = _areas_above(streets, hectares)
    sections = {
        "TITLE": [f"Combined sewer of {streets} streets, {variant}: made by Duha's simulators"],
        "OPTIONS": _options(routing_s),
        "EVAPORATION": ["CONSTANT 0.0", "DRY_ONLY NO"],
        "RAINGAGES": [f"{g} INTENSITY 0:05 1.0 TIMESERIES NONE_{g}" for g in gauges],
        "TIMESERIES": [f"NONE_{g} 0:00 0" for g in gauges],
        "SUBCATCHMENTS": [
            f"S{i:04d} {gauges[i % len(gauges)]} N{i:04d} {hectares} {PAVED_PCT}"
            f" {100 * hectares:g} 1.0 0"
            for i in range(streets)
        ],
        "SUBAREAS": [_subarea(i, variant) for i in range(streets)],
        "INFILTRATION": [f"S{i:04d} 60 6 4 7 0" for i in range(streets)],
        "JUNCTIONS": [
            f"N{i:04d} {_bed(i):.3f} {DEPTH_M + 0.4} 0 0 0" for i in range(streets)
        ],
        "STORAGE": [f"{OVERFLOW} {BASE_M - 1:.3f} 4.2 0 FUNCTIONAL 0 0 40 0 0"],
        "OUTFALLS": [f"{RIVER} {BASE_M - 2} FREE NO", f"{PLANT} {BASE_M - 3} FREE NO"],
        "CONDUITS": [
            f"K{i:04d} N{i:04d} {_below(i)} {STREET_M} 0.013 0 0 0"
            for i in range(streets)
        ],
        "ORIFICES": [f"THROTTLE {OVERFLOW} {PLANT} SIDE 0 0.65 NO 0"],
        "WEIRS": [f"WEIR {OVERFLOW} {RIVER} TRANSVERSE 1.1 1.75 NO 0 0 NO"],
        "XSECTIONS": [
            *(
                f"K{i:04d} CIRCULAR {_pipe(above[i]):g} 0 0 0 1"
                for i in range(streets)
            ),
            f"THROTTLE CIRCULAR {_throttle(streets * hectares):.2f} 0 0 0",
            f"WEIR RECT_OPEN 2.5 {2 + streets * hectares / 20:.1f} 0 0",
        ],
        "DWF": [
            f"N{i:04d} FLOW {FOUL_L_S_HA * hectares:g}" for i in range(streets)
        ],
    }  # fmt: skip
    if variant == "gardens":
        sections |= _gardens(streets, hectares)
    return "".join(
        f"[{name}]\n" + "\n".join(lines) + "\n\n" for name, lines in sections.items()
    )


def _options(routing_s: float) -> list[str]:
    return [
        "FLOW_UNITS LPS", "INFILTRATION HORTON", "FLOW_ROUTING DYNWAVE",
        "START_DATE 07/01/2026", "START_TIME 00:00:00", "END_DATE 07/02/2026",
        "END_TIME 00:00:00", "REPORT_START_DATE 07/01/2026",
        "REPORT_START_TIME 00:00:00", "REPORT_STEP 00:05:00", "WET_STEP 00:05:00",
        "DRY_STEP 01:00:00", f"ROUTING_STEP {routing_s:g}", "ALLOW_PONDING NO",
        "INERTIAL_DAMPING PARTIAL", "VARIABLE_STEP 0", "LENGTHENING_STEP 0", "THREADS 1",
    ]  # fmt: skip


def _subarea(number: int, variant: Variant) -> str:
    """What is not paved; with roofs let off, six tenths of what is paved drain to it."""
    route = "PERVIOUS 60" if variant == "disconnected" else "OUTLET"
    return f"S{number:04d} 0.015 0.2 1.5 5 25 {route}"


def _gardens(streets: int, hectares: float) -> dict[str, list[str]]:
    area = 10_000 * hectares * GARDEN_SHARE
    return {
        "LID_CONTROLS": [
            "GARDEN BC",
            "GARDEN SURFACE 250 0.1 0 0 5",
            "GARDEN SOIL 500 0.45 0.2 0.1 50 10 80",
            "GARDEN STORAGE 300 0.6 12 0",
            "GARDEN DRAIN 0 0.5 0 6 0 0",
        ],
        "LID_USAGE": [
            f"S{i:04d} GARDEN 1 {area:g} 10 0 60 0" for i in range(streets)
        ],
    }  # fmt: skip


def _below(number: int) -> str:
    return f"N{(number - 1) // 2:04d}" if number else OVERFLOW


def _bed(number: int) -> float:
    """Level of a manhole's bed: the deeper in the tree, the higher on the hill [m]."""
    return BASE_M + math.floor(math.log2(number + 1)) * STREET_M * SLOPE


def _areas_above(streets: int, hectares: float) -> list[float]:
    """Area that drains through each pipe [ha]."""
    above = [hectares] * streets
    for number in range(streets - 1, 0, -1):
        above[(number - 1) // 2] += above[number]
    return above


def _pipe(area_ha: float) -> float:
    """The least pipe that carries what an area is designed for [m], full by Manning."""
    for diameter in PIPES_M:
        flow = 0.3117 / 0.013 * diameter ** (8 / 3) * SLOPE**0.5 * 1000
        if flow >= DESIGN_L_S_HA * area_ha:
            return diameter
    return PIPES_M[-1]


def _throttle(area_ha: float) -> float:
    """An orifice that lets some times the foul flow on to the plant [m]."""
    flow = 8 * FOUL_L_S_HA * area_ha / 1000
    return max(0.15, math.sqrt(flow / (0.65 * math.sqrt(2 * 9.81)) * 4 / math.pi))
