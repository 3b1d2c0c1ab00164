"""One job of a study, in this process: a model under a rain that is known beforehand."""

import datetime as dt
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from duha_backend.drainage.engine import Engine
from duha_backend.errors import BackendError
from duha_backend.runoff.inp import describe, own_start, parse
from duha_backend.runoff.study import (
    EVERY_MIN,
    Job,
    Outcome,
    emptied_h,
    overflows,
    rain_of_gages,
    scaled,
)
from duha_backend.validate import Array

START = dt.datetime(2026, 7, 1)  # noqa: DTZ001 - a model has no zone


class _Seen(NamedTuple):
    """What was seen while a model ran.

    Every five minutes: `flows` (t, o) of the outfalls, means of the time before [L/s], and
    `water` (t, k) of the devices [mm];
    greatest sum of all outfalls and of the overflows, over every routing step [L/s].
    """

    flows: Array
    water: Array
    peak: float
    spilled_peak: float


def run_job(job: Job) -> Outcome:
    """One model under one rain; a model that breaks down is an outcome, too."""
    try:
        return _run(job)
    except BackendError as error:
        return failed(job, str(error))


def failed(job: Job, problem: str) -> Outcome:
    """The outcome of a job that has none."""
    return Outcome(
        model=job.model, rain=job.rain.name, area_ha=0, rain_mm=0, rain_m3=0,
        outflow_m3=0, outflow_peak_l_s=0, overflow_m3=0, overflow_peak_l_s=0,
        flooded_nodes=0, flooding_m3=0, runoff_mm=0, infiltrated_mm=0, evaporated_mm=0,
        kept_share=0, lids=0, emptying_h=None, not_empty=0, outfalls={}, depths={},
        problem=problem,
    )  # fmt: skip


def _run(job: Job) -> Outcome:
    raw = job.raw
    if job.factors:
        raw = scaled(parse(raw), dict(job.factors)).text().encode()
    inp = parse(raw)
    rain = rain_of_gages(job.rain, len(describe(inp).gauges))
    tail = np.zeros((round(job.tail_h * 60), rain.shape[1]))
    course = np.concatenate((rain, tail))
    with tempfile.TemporaryDirectory(prefix="duha-study-") as folder:
        model = Engine(raw, own_start(inp, START), Path(folder), course)
        try:
            seen = _watched(model, raw)
            model.check_rain()
            return _outcome(job, model, seen, overflows(raw), len(rain))
        finally:
            model.close()


def _watched(model: Engine, raw: bytes) -> _Seen:
    """Run a model to its end, looking at its outfalls in every step."""
    names = model.model.outfalls
    rows = [model.nodes.index(name) for name in names]
    spills = [names.index(name) for name in overflows(raw)]
    came = [model.came_m3(rows)]
    water: list[Array] = []
    peak = spilled_peak = 0.0
    written = 0
    for _ in model.run_through(EVERY_MIN):
        now = model.inflows(rows)
        peak = max(peak, sum(now))
        if spills:
            spilled_peak = max(spilled_peak, sum(now[i] for i in spills))
        if model.minutes > written:
            written = model.minutes
            came.append(model.came_m3(rows))
            water.append(model.lid_water_mm())
    flows = np.diff(np.array(came), axis=0) / (EVERY_MIN * 60) * 1000
    return _Seen(flows, np.array(water), peak, spilled_peak)


def _outcome(
    job: Job, model: Engine, seen: _Seen, over: list[str], rain_end: int
) -> Outcome:
    extremes = model.extremes()
    out = dict(zip(model.model.outfalls, seen.flows.T, strict=True))
    volume = dict(zip(model.nodes, extremes.inflow_m3.tolist(), strict=True))
    mm = model.runoff_mm()
    hours, full = emptied_h(seen.water, rain_end)
    kept = 1 - (mm["runoff"] + mm["drains"]) / mm["rainfall"] if mm["rainfall"] else 0.0
    return Outcome(
        job.model, job.rain.name, model.area_ha, mm["rainfall"],
        mm["rainfall"] * model.area_ha * 10, sum(volume[name] for name in out),
        seen.peak, sum(volume[name] for name in over), seen.spilled_peak,
        int(extremes.flooded.sum()), float(extremes.flooding_m3.sum()),
        mm["runoff"] + mm["drains"], mm["infil"], mm["evap"], kept, seen.water.shape[1],
        hours, full, {name: flow.round(3).tolist() for name, flow in out.items()},
        dict(zip(model.nodes, extremes.depth_m.round(4).tolist(), strict=True)),
        tuple(over),
    )  # fmt: skip
