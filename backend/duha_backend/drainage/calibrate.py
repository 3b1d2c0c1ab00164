"""Calibration: factors of a model's parameters that meet what was measured.

Differential evolution (Storn and Price 1997), by SciPy; the same seed finds the same.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from duha_backend.drainage.engine import Engine
from duha_backend.drainage.job import START
from duha_backend.errors import BackendError, Invalid
from duha_backend.runoff.inp import parse
from duha_backend.runoff.scores import Scores, scores
from duha_backend.runoff.study import EVERY_MIN, Rain, rain_of_gages, scaled
from duha_backend.runoff.watch import OF, Part, What
from duha_backend.validate import Array

USUAL_BOUNDS: dict[str, tuple[float, float]] = {
    "imperviousness": (0.5, 1.5),
    "width": (0.3, 3.0),
    "roughness": (0.5, 2.0),
}


class Measured(NamedTuple):
    """What was measured at a node or link: every five minutes from the start of its rain."""

    part: Part
    object: str
    what: What
    values: Array
    rain: Rain


class Calibrated(NamedTuple):
    """Factors that were found; scores of each event before and after; how many runs."""

    factors: dict[str, float]
    before: list[Scores]
    after: list[Scores]
    runs: int


def calibrate(
    raw: bytes, events: Sequence[Measured],
    bounds: Mapping[str, tuple[float, float]] | None = None, seed: int = 1,
    most_runs: int = 300, progress: Callable[[int, float], None] | None = None,
) -> Calibrated:  # fmt: skip
    """Find factors for a model.

    Parameters
    ----------
    raw : bytes
        Its input file.
    events : sequence of Measured
        What is to be met, with equal weight.
    bounds : mapping of str to (low, high)
        Which parameters, and how far each may go.
    seed, most_runs : int
        Same seed, same result; about how many runs of all events.
    progress : callable, optional
        Called with the number of runs and the best mean NSE so far.

    Raises
    ------
    Invalid
        Nothing was measured, or the model has no such object.
    """
    try:
        from scipy.optimize import differential_evolution
    except ImportError:
        raise Invalid("for calibration install duha[studies]") from None
    if not events:
        raise Invalid("a calibration needs one measured event at least")
    limits = dict(bounds or USUAL_BOUNDS)
    names = list(limits)
    best, runs = -np.inf, 0

    def miss(values: Array) -> float:
        nonlocal best, runs
        factors = dict(zip(names, np.asarray(values).tolist(), strict=True))
        reached = _mean_nse(raw, events, factors)
        runs, best = runs + 1, max(best, reached)
        if progress is not None:
            progress(runs, best)
        return 1 - reached

    before = [_scores(raw, event, {}) for event in events]
    size = 8
    generations = max(1, most_runs // (size * len(names)) - 1)
    found: Any = differential_evolution(
        miss, [limits[name] for name in names], maxiter=generations, popsize=size,
        rng=seed, polish=False, tol=0.005,
    )  # fmt: skip
    factors = dict(zip(names, [round(float(x), 4) for x in found.x], strict=True))
    after = [_scores(raw, event, factors) for event in events]
    return Calibrated(factors, before, after, runs)


def _mean_nse(
    raw: bytes, events: Sequence[Measured], factors: Mapping[str, float]
) -> float:
    try:
        found = [_scores(raw, event, factors).nse for event in events]
    except BackendError:
        return -10.0  # parameters that SWMM cannot live with
    known = [nse for nse in found if nse is not None]
    if not known:
        raise Invalid("what was measured never changes: there is nothing to meet")
    return float(np.mean(known))


def _scores(raw: bytes, event: Measured, factors: Mapping[str, float]) -> Scores:
    return scores(event.values, modelled(raw, event, factors))


def modelled(raw: bytes, event: Measured, factors: Mapping[str, float]) -> Array:
    """What a model gives where something was measured, every five minutes.

    Raises
    ------
    Invalid
        The model has no such node or link.
    """
    import tempfile
    from pathlib import Path

    text = scaled(parse(raw), factors).text().encode()
    with tempfile.TemporaryDirectory(prefix="duha-calibration-") as folder:
        model = Engine(text, START, Path(folder))
        try:
            return _course(model, event)
        finally:
            model.close()


def _course(model: Engine, event: Measured) -> Array:
    names = model.nodes if event.part == "node" else model.links
    if event.object not in names:
        raise Invalid(f"the model has no {event.part} {event.object!r}")
    at, row = names.index(event.object), OF[event.part].index(event.what)
    rain = rain_of_gages(event.rain, len(model.gauges))
    minutes = len(event.values) * EVERY_MIN
    course = np.zeros((minutes, rain.shape[1]))
    course[: min(minutes, len(rain))] = rain[:minutes]
    found = []
    for minute, falls in enumerate(course, 1):
        model.advance(falls)
        if minute % EVERY_MIN == 0:
            read = model.read()
            found.append((read.nodes if event.part == "node" else read.links)[row, at])
    return np.array(found)
