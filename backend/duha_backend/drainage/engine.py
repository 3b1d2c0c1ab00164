"""EPA SWMM in this process: the one room that knows it.

One model a process and one thread a model: SWMM holds its state in globals, keeps
Python's lock while it reckons, and hangs when a process with threads is forked.
"""

import contextlib
import ctypes
import datetime as dt
import re
from collections.abc import Iterator
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pyswmm import Simulation
from swmm.toolkit import solver
from swmm.toolkit.shared_enum import (
    LidResult,
    LinkResult,
    NodeResult,
    ObjectType,
    SubcatchProperty,
    SubcatchResult,
)

from duha_backend.drainage.swmm_statistics import Statistics
from duha_backend.errors import Diverged, Invalid
from duha_backend.runoff.inp import INCH_MM, adapt, describe, parse, rain_factors
from duha_backend.runoff.live import MOST_MM_H
from duha_backend.validate import Array

STEP_S = 60
RAIN_TOLERANCE = 1e-8
DAY_S = 86_400
FOOT_M = 0.3048
CUBIC_FOOT_M3 = FOOT_M**3
_TO_LITRES = {
    "CFS": CUBIC_FOOT_M3 * 1000, "GPM": 3.785411784 / 60, "MGD": 3785.411784e3 / 86_400,
    "CMS": 1000.0, "LPS": 1.0, "MLD": 1e6 / 86_400,
}  # fmt: skip
_ERROR = re.compile(r"^\s*ERROR\s+\d+:.*$", re.MULTILINE)


class Snapshot(NamedTuple):
    """Results at one moment: SI units, arrays in the order of the model's names.

    `nodes` (3, n): depth [m], inflow [L/s], and flooding [L/s] as the mean since the last
    reading, so that its volume is right. `links` (2, m): flow [L/s], depth [m]. `peaks`
    (3, n) and `link_peaks` (2, m): the greatest of the same since the last reading where
    it is the greatest of the run so far, over every routing step; else the value now.
    """

    nodes: Array
    links: Array
    peaks: Array
    link_peaks: Array


class _SoFar(NamedTuple):
    """SWMM's own statistics of a run so far: `most` as of `Snapshot`, `spilled` [m³]."""

    nodes: Array
    links: Array
    spilled: Array


def errors_of(report: Path, raw: bytes) -> list[str]:
    """Errors of a report file, each with the line of the author's input it is about."""
    text = report.read_text("utf-8", "replace") if report.exists() else ""
    lines = [*text.splitlines(), ""]
    author = [line.split() for line in raw.decode("utf-8", "replace").splitlines()]
    found = []
    for line, after in pairwise(lines):
        if _ERROR.match(line):
            about = [] if _ERROR.match(after) else after.split()
            said = " ".join((*line.split(), *about))
            if about in author:  # the model that runs has other lines than its author's
                number = author.index(about) + 1
                said = re.sub(r"at line \d+", f"at line {number}", said)
            found.append(said)
    return found


class Extremes(NamedTuple):
    """What a run has come to, over every routing step: arrays in the order of the nodes.

    `depth_m` greatest depth, `flooded` whether water left it, `flooding_m3` how much did,
    `inflow_m3` how much came; as in the summaries of SWMM's report.
    """

    depth_m: Array
    flooded: Array
    flooding_m3: Array
    inflow_m3: Array


class Engine:
    """A model that runs: fed a minute at a time, or with rain that is known beforehand.

    Parameters
    ----------
    raw : bytes
        Its input file as the author wrote it.
    start : datetime
        Its first moment, by the clock of the city.
    folder : Path
        An empty folder of its own: two runs must not share their files.
    rain_mm_h : (t, g) array, optional
        Rain of each minute and gage [mm/h], for `run_through`.

    Raises
    ------
    Invalid
        SWMM refuses the model; every error with its line.
    """

    def __init__(
        self, raw: bytes, start: dt.datetime, folder: Path,
        rain_mm_h: Array | None = None,
    ) -> None:  # fmt: skip
        inp = parse(raw)
        made, self.changes = adapt(inp, start, rain_mm_h)
        self.model = describe(inp)
        (folder / "live.inp").write_text(made.text(), "utf-8")
        names = [str(folder / f"live.{end}") for end in ("inp", "rpt", "out")]
        self.folder = folder
        self._open = contextlib.ExitStack()
        try:
            self._sim = self._open.enter_context(Simulation(*names))
            self._sim.start()
        except Exception as error:  # noqa: BLE001 - whatever SWMM or its binding raises
            raise _refused(folder, raw, error) from None
        self._index()
        self.minutes = 0
        self.injected = 0.0
        self._rows = np.zeros(len(self.gauges))
        self._start = start
        self._factors = rain_factors(inp)
        self._whole_min = 0 if rain_mm_h is None else len(rain_mm_h)
        if rain_mm_h is not None:
            self.injected = float((rain_mm_h @ self._share).sum()) / 60
        self._sim.step_advance(STEP_S)
        self._steps = iter(self._sim)
        self._statistics = Statistics(
            Path(solver.__file__).parent, len(self.nodes), len(self.links)
        )
        self._before, self._read_at = self._so_far(), 0

    def _index(self) -> None:
        model = self.model
        litres = _TO_LITRES[model.flow_units]
        self._depth = FOOT_M if model.american else 1.0
        self._flow = litres
        self._rain = INCH_MM if model.american else 1.0
        self.gauges = _names(ObjectType.GAGE)
        self.nodes = _names(ObjectType.NODE)
        self.links = _names(ObjectType.LINK)
        self.subcatchments = _names(ObjectType.SUBCATCH)
        area = [
            solver.subcatch_get_parameter(i, SubcatchProperty.AREA)
            for i in range(len(self.subcatchments))
        ]
        self._areas = np.array(area)
        at = {name: i for i, name in enumerate(self.gauges)}
        share = np.zeros(len(self.gauges))
        for name, hectares in zip(self.subcatchments, area, strict=True):
            if model.gauge_of[name] in at:  # on "*" it does not rain
                share[at[model.gauge_of[name]]] += hectares
        self._share = share / max(self._areas.sum(), 1e-12)
        full = [model.full.get(name, np.nan) * self._depth for name in self.links]
        self.full_m = np.array(full)
        self._lids = [
            (i, unit)
            for i in range(len(self.subcatchments))
            for unit in range(solver.lid_usage_get_count(i))
        ]
        self.lids = [f"{self.subcatchments[i]}.{unit}" for i, unit in self._lids]

    @property
    def area_ha(self) -> float:
        """Area of all subcatchments [ha]."""
        return float(self._areas.sum() * (0.40468564224 if self.model.american else 1))

    def advance(self, rain_mm_h: Array) -> None:
        """One minute with rain (g,) of each gage [mm/h].

        Raises
        ------
        Invalid
            Something that is no rain; the model has not seen it.
        Diverged
            SWMM has given up, or its depths are no numbers.
        """
        rain = np.asarray(rain_mm_h, dtype=float)
        if rain.shape != (len(self.gauges),):
            raise Invalid(f"rain for {len(self.gauges)} gages, not {rain.shape}")
        bad = ~((rain >= 0) & (rain <= MOST_MM_H))
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise Invalid(f"gage {self.gauges[first]}: {rain[first]} mm/h is no rain")
        if self._factors:  # SWMM itself has them only for rain of its own series
            at = self._start + dt.timedelta(minutes=self.minutes)
            rain = rain * self._factors[at.month - 1]
        for i in np.flatnonzero(rain != self._rows).tolist():
            solver.raingage_set_precipitation(i, float(rain[i]) / self._rain)
        if self.minutes == 0:  # the first value is set before the first step
            for i, value in enumerate(rain.tolist()):
                solver.raingage_set_precipitation(i, value / self._rain)
        self._rows = rain
        self._step()
        self.minutes += 1
        self.injected += float(self._share @ rain) / 60

    def _step(self) -> None:
        try:
            next(self._steps)
        except StopIteration:
            raise Diverged("the model has come to the end of its time") from None
        except Exception as error:  # noqa: BLE001 - as above
            raise Diverged(f"SWMM: {error}") from None

    def run_through(self, every_min: int) -> Iterator[None]:
        """Run to the end of the rain that is known, by the steps that SWMM chooses.

        Comes by after every step; `minutes` are those that are over, a multiple of
        `every_min`, so that a course can be written down when they change.

        Raises
        ------
        Diverged
            SWMM has given up.
        """
        every_s = every_min * 60
        while True:
            try:
                elapsed = float(solver.swmm_step()) * DAY_S
            except Exception as error:  # noqa: BLE001 - as above
                raise Diverged(f"SWMM: {error}") from None
            if elapsed <= 0:  # SWMM's word for the step that has come to the end
                self.minutes = self._whole_min
                yield
                return
            # Sums of fractions of a day miss whole minutes by some millionths.
            self.minutes = int((elapsed + 1e-3) // every_s) * every_min
            yield

    def extremes(self) -> Extremes:
        """What the run has come to so far, over every routing step."""
        volume = CUBIC_FOOT_M3 if self.model.american else 1.0
        found = self._statistics.nodes()
        return Extremes(
            found.depth * self._depth,
            found.flooded_h > 0,
            found.spilled * volume,
            np.array(self.came_m3(list(range(len(self.nodes))))),
        )

    def came_m3(self, rows: list[int]) -> list[float]:
        """What has come to some nodes so far [m³]."""
        volume = CUBIC_FOOT_M3 if self.model.american else 1.0
        return [solver.node_get_total_inflow(i) * volume for i in rows]

    def inflows(self, rows: list[int]) -> list[float]:
        """Inflow of some nodes now [L/s]."""
        what = NodeResult.TOTAL_INFLOW
        return [solver.node_get_result(i, what) * self._flow for i in rows]

    def check_rain(self) -> None:
        """Raise Diverged when the model has not got the rain that it was given."""
        if self._factors and self._whole_min:
            return  # SWMM multiplies its own series, all but the first wet minute
        got = solver.system_get_runoff_totals().rainfall * self._rain
        if abs(got - self.injected) > RAIN_TOLERANCE * max(1.0, self.injected):
            raise Diverged(
                f"the model has {got:.6f} mm of rain, it was given {self.injected:.6f} mm"
            )

    def read(self) -> Snapshot:
        """Results of now, and what was reached since the last reading."""
        nodes = self._read_nodes(range(len(self.nodes)))
        links = self._read_links(range(len(self.links)))
        before, now = self._before, self._so_far()
        nodes[2] = self._spilling(now)
        self._before, self._read_at = now, self.minutes
        return Snapshot(
            nodes,
            links,
            np.where(now.nodes > before.nodes, now.nodes, nodes),
            np.where(now.links > before.links, now.links, links),
        )

    def _spilling(self, now: _SoFar) -> Array:
        """Mean flooding of every node since the last reading [L/s]."""
        seconds = max(1, self.minutes - self._read_at) * STEP_S
        return (now.spilled - self._before.spilled) * (1000 / seconds)

    def _so_far(self) -> _SoFar:
        volume = CUBIC_FOOT_M3 if self.model.american else 1.0
        nodes, links = self._statistics.nodes(), self._statistics.links()
        depth, flow = self._depth, self._flow
        return _SoFar(
            np.array((nodes.depth * depth, nodes.inflow * flow, nodes.flooding * flow)),
            np.array((links.flow * flow, links.depth * depth)),
            nodes.spilled * volume,
        )

    def lid_water_mm(self) -> Array:
        """Water on and in every LID unit that is to leave it [mm]: surface and storage."""
        found = [
            solver.lid_usage_get_result(sub, unit, LidResult.SURFACE_DEPTH)
            + solver.lid_usage_get_result(sub, unit, LidResult.STORAGE_DEPTH)
            for sub, unit in self._lids
        ]
        return np.array(found) * self._rain

    def runoff_mm(self) -> dict[str, float]:
        """Rainfall, runoff, drains, infil, evap so far, over the whole area [mm]."""
        totals = solver.system_get_runoff_totals()
        names = ("rainfall", "runoff", "drains", "infil", "evap")
        return {name: getattr(totals, name) * self._rain for name in names}

    def stored_m3(self) -> float:
        """Water in nodes and links [m³]; SWMM gives it in cubic feet in every model."""
        return float(solver.system_get_routing_totals().finalStorage) * CUBIC_FOOT_M3

    def read_runoff(self) -> Array:
        """Runoff of every subcatchment now (s,) [L/s]."""
        rows = range(len(self.subcatchments))
        return self._flow * _read(
            solver.subcatch_get_result, rows, SubcatchResult.RUNOFF
        )

    def _read_nodes(self, rows: range | list[int]) -> Array:
        found = np.empty((3, len(rows)))
        for k, (what, unit) in enumerate(
            (
                (NodeResult.DEPTH, self._depth),
                (NodeResult.TOTAL_INFLOW, self._flow),
                (NodeResult.FLOOD, self._flow),
            )
        ):
            found[k] = _read(solver.node_get_result, rows, what) * unit
        if not np.isfinite(found).all():
            raise Diverged("the model's depths and flows are no numbers")
        return found

    def _read_links(self, rows: range | list[int]) -> Array:
        found = np.empty((2, len(rows)))
        found[0] = _read(solver.link_get_result, rows, LinkResult.FLOW) * self._flow
        found[1] = _read(solver.link_get_result, rows, LinkResult.DEPTH) * self._depth
        return found

    def read_lids(self) -> Array:
        """Of every LID unit (6, k) [mm]: came, soaked, evaporated, spilled, drained, held."""
        found = np.zeros((6, len(self._lids)))
        results = (
            LidResult.INFLOW, LidResult.INFILTRATION, LidResult.EVAPORATION,
            LidResult.SURFACE_FLOW, LidResult.DRAIN_FLOW, LidResult.FINAL_VOLUME,
        )  # fmt: skip
        for k, (sub, unit) in enumerate(self._lids):
            for n, what in enumerate(results):
                found[n, k] = solver.lid_usage_get_result(sub, unit, what)
        return found * self._rain

    def close(self) -> None:
        """Let go of the model; its files stay."""
        with contextlib.suppress(Exception):
            self._open.close()


def _read(get: Any, rows: range | list[int], what: Any) -> Array:
    return np.fromiter(map(get, rows, repeat(what)), np.float64, len(rows))


def _names(kind: ObjectType) -> list[str]:
    return [
        solver.project_get_id(kind, i) for i in range(solver.project_get_count(kind))
    ]


def _refused(folder: Path, raw: bytes, error: Exception) -> Invalid:
    """SWMM's errors, from its report; closing a broken model would end the process."""
    ctypes.CDLL(None).fflush(None)
    found = errors_of(folder / "live.rpt", raw)
    return Invalid("; ".join(found) or f"SWMM: {error}")
