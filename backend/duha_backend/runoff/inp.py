"""SWMM models: what is in them, and made fit to be fed with rain. Pure.

SWMM loses rain silently in long dry steps, and two gauges that share a series share their
rain; both are mended here before a model is run, and what was changed is said.
"""

import datetime as dt
import math
import re
from typing import NamedTuple

import numpy as np

from duha_backend.errors import Invalid
from duha_backend.runoff.swmm_text import (
    DRAWN,
    LARGEST_BYTES,
    Inp,
    Row,
    matches,
    parse,
    row_of,
)
from duha_backend.validate import Array

__all__ = ["LARGEST_BYTES", "Inp", "Model", "Row", "adapt", "describe", "parse"]

STEP = "00:01:00"
REPORT_STEP = "00:05:00"
SERIES = "DUHA_RAIN_"
YEARS = 5
"""How long a model may run before it is begun anew [a]."""
MOST_OBJECTS = 200_000
INCH_MM = 25.4
US_UNITS = ("CFS", "GPM", "MGD")
UNITS = (*US_UNITS, "CMS", "LPS", "MLD")
_NODES = ("JUNCTIONS", "OUTFALLS", "DIVIDERS", "STORAGE")
_LINKS = ("CONDUITS", "PUMPS", "ORIFICES", "WEIRS", "OUTLETS")
_DATE = re.compile(r"(\w{1,3})[/-](\d{1,2})[/-](\d{4})")


class Model(NamedTuple):
    """What a model is made of.

    Attributes
    ----------
    gauges : dict of str to (x, y) or None
        Rain gages of the model, with their place on its own map.
    gauge_of : dict of str to str
        Gage of each subcatchment.
    nodes, links, outfalls, subcatchments, lids : tuple of str
        Their names.
    full : dict of str to float
        Full depth of each link [m or ft].
    flow_units : str
        SWMM's name of them.
    """

    gauges: dict[str, tuple[float, float] | None]
    gauge_of: dict[str, str]
    nodes: tuple[str, ...]
    links: tuple[str, ...]
    outfalls: tuple[str, ...]
    subcatchments: tuple[str, ...]
    lids: tuple[tuple[str, str], ...]
    full: dict[str, float]
    flow_units: str

    @property
    def american(self) -> bool:
        """Whether it reckons in inches and feet."""
        return self.flow_units in US_UNITS


def describe(inp: Inp) -> Model:
    """What a model is made of.

    Raises
    ------
    Invalid
        It has no rain gage, or nothing that it rains on.
    """
    places = {
        row[0]: (float(row[1]), float(row[2]))
        for row in inp.rows("SYMBOLS")
        if len(row) > 2 and _is_number(row[1]) and _is_number(row[2])
    }
    gauges = {name: places.get(name) for name in inp.ids("RAINGAGES")}
    subcatchments = inp.ids("SUBCATCHMENTS")
    if not gauges or not subcatchments:
        raise Invalid("the model has no rain gage or no subcatchment: nothing to feed")
    nodes, links = inp.ids(*_NODES), inp.ids(*_LINKS)
    if len(nodes) + len(links) + len(subcatchments) > MOST_OBJECTS:
        raise Invalid(
            f"a model has {MOST_OBJECTS} nodes, links and subcatchments at most"
        )
    return Model(
        gauges,
        {row[0]: row[1] for row in inp.rows("SUBCATCHMENTS") if len(row) > 1},
        nodes,
        links,
        inp.ids("OUTFALLS"),
        subcatchments,
        tuple((row[0], row[1]) for row in inp.rows("LID_USAGE") if len(row) > 1),
        {
            row[0]: float(row[2])
            for row in inp.rows("XSECTIONS")
            if len(row) > 2 and _is_number(row[2])
        },
        _units(inp),
    )


def _units(inp: Inp) -> str:
    asked = inp.option("FLOW_UNITS", "CFS")
    for name in UNITS:
        if matches(asked, name):
            return name
    raise Invalid(f"FLOW_UNITS {asked[:20]}: SWMM has {', '.join(UNITS)}")


def adapt(
    inp: Inp, start: dt.datetime, rain_mm_h: Array | None = None
) -> tuple[Inp, list[str]]:
    """A model that can be fed with rain, and what was changed.

    Parameters
    ----------
    inp : Inp
        The model as its author wrote it.
    start : datetime
        Its first moment, by the clock of the city.
    rain_mm_h : (t, g) array, optional
        Rain of its gages, minute by minute [mm/h]: the model has it as its own series, and
        ends with it. Without it, rain is given while it runs.

    Raises
    ------
    Invalid
        What flows into it has dates that a model that runs now never reaches.
    """
    changes: list[str] = []
    made = Inp({name: list(lines) for name, lines in inp.sections.items()})
    if rain_mm_h is None:
        end = start.replace(year=start.year + YEARS, day=min(28, start.day))
        _check_dates(inp, changes)
    else:
        end = start + dt.timedelta(minutes=len(rain_mm_h))
    _set_options(
        made,
        {
            "WET_STEP": STEP, "DRY_STEP": STEP, "REPORT_STEP": REPORT_STEP, "THREADS": "1",
            "START_DATE": f"{start:%m/%d/%Y}", "START_TIME": f"{start:%H:%M:%S}",
            "REPORT_START_DATE": f"{start:%m/%d/%Y}",
            "REPORT_START_TIME": f"{start:%H:%M:%S}",
            "END_DATE": f"{end:%m/%d/%Y}", "END_TIME": f"{end:%H:%M:%S}",
            "IGNORE_RAINFALL": "NO",
        },
        changes,
    )  # fmt: skip
    _feed(made, changes, rain_mm_h)
    if rain_mm_h is None and (factors := rain_factors(inp)):
        shown = " ".join(f"{factor:g}" for factor in factors)
        changes.append(f"rain is multiplied by the model's factors of months: {shown}")
    if inp.rows("EVENTS"):
        changes.append("EVENTS left out: all of the time is routed")
    for name in (*DRAWN, "EVENTS"):
        made.sections.pop(name, None)
    made.sections["REPORT"] = [
        "INPUT NO", "CONTROLS NO", "SUBCATCHMENTS NONE", "NODES NONE", "LINKS NONE",
    ]  # fmt: skip
    return made, changes


def own_start(inp: Inp, usual: dt.datetime) -> dt.datetime:
    """When a model begins by its own options; `usual` where that cannot be read."""
    text = f"{inp.option('START_DATE')} {inp.option('START_TIME', '00:00:00')}"
    for form in ("%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M"):
        try:
            return dt.datetime.strptime(text, form)  # noqa: DTZ007 - a model has no zone
        except ValueError:
            continue
    return usual


def rain_factors(inp: Inp) -> list[float]:
    """Factors of a model's rain in each month, January first; empty where there are none."""
    found: list[float] = []
    for row in inp.rows("ADJUSTMENTS"):
        if (
            matches(row[0], "RAIN")
            and len(row) > 12
            and all(map(_is_number, row[1:13]))
        ):
            found = [float(word) for word in row[1:13]]
    return found if any(factor != 1 for factor in found) else []


def _set_options(inp: Inp, wanted: dict[str, str], changes: list[str]) -> None:
    silent = ("START", "END", "REPORT_START")  # a live model has no date of its own
    kept: list[str] = []
    before: dict[str, str] = {}
    for row in inp.rows("OPTIONS"):
        name = next((name for name in wanted if matches(row[0], name)), "")
        if name:
            before[name] = row[1] if len(row) > 1 else ""
        else:
            kept.append(row_of(row))
    for name, value in before.items():
        if not name.startswith(silent) and value != wanted[name]:
            changes.append(f"{name}: {value} became {wanted[name]}")
    changes += [
        f"{name}: set to {wanted[name]}"
        for name in ("WET_STEP", "DRY_STEP", "THREADS")
        if name not in before
    ]
    inp.sections["OPTIONS"] = [*kept, *(f"{n} {v}" for n, v in wanted.items())]


def _feed(inp: Inp, changes: list[str], rain_mm_h: Array | None) -> None:
    """Give every gage a series of its own, of a minute: with its rain, or without any."""
    unit = INCH_MM if _units(inp) in US_UNITS else 1.0
    rows, series = [], []
    for number, row in enumerate(inp.rows("RAINGAGES")):
        source = " ".join(row[4:6])
        catch = row[3] if len(row) > 3 and _is_number(row[3]) else "1.0"
        name = f"{SERIES}{number}"
        rows.append(row_of([row[0], "INTENSITY", "0:01", catch, "TIMESERIES", name]))
        values = np.zeros(1) if rain_mm_h is None else rain_mm_h[:, number] / unit
        series += _series(name, values)
        changes.append(
            f"rain gage {row[0]}: live rain instead of {source or 'nothing'}"
        )
    inp.sections["RAINGAGES"] = rows
    inp.sections.setdefault("TIMESERIES", []).extend(series)


def _series(name: str, values: Array) -> list[str]:
    """A series of minutes; a minute that is left out has no rain."""
    wet = [0, *np.flatnonzero(values[1:] > 0) + 1]
    return [
        f"{name} {minute // 60}:{minute % 60:02d} {float(values[minute])!r}"
        for minute in wet
    ]


def _check_dates(inp: Inp, changes: list[str]) -> None:
    """What comes by series with dates, or ends, in a model that runs now.

    Raises
    ------
    Invalid
        Water flows in by dates: there would be none, and nothing would show it.
    """
    dated: dict[str, str] = {}
    last: dict[str, str] = {}
    for row in inp.rows("TIMESERIES"):
        name = row[0].lower()
        if len(row) > 1 and _DATE.fullmatch(row[1]):
            dated.setdefault(name, row[1])
        if len(row) > 2:
            last[name] = row[-2]
    rain = {row[5].lower() for row in inp.rows("RAINGAGES") if len(row) > 5}
    for row in inp.rows("INFLOWS"):
        series = row[2].lower() if len(row) > 2 else ""
        if series in dated:
            raise Invalid(
                f"inflow of {row[0]} by series {row[2]} has dates, from {dated[series]}: a"
                " model that runs now has none of it; give a baseline and a pattern"
            )
        if series in last:
            changes.append(
                f"inflow of {row[0]}: series {row[2]} counts from each cold start, and"
                f" gives nothing after {last[series]}"
            )
    changes += [
        f"series {name} has dates, from {first}: a model that runs now is beyond them"
        for name, first in dated.items()
        if name not in rain
    ]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
