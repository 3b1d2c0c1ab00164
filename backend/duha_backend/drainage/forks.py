"""Forecasts of a model that runs: forks of its process, which itself does not move."""

import contextlib
import json
import os
import resource
import select
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from duha_backend.drainage.engine import Engine
from duha_backend.errors import Diverged, Invalid
from duha_backend.validate import Array

MOST_FILES = 1024


class Forecast(NamedTuple):
    """One member of a forecast, or why there is none.

    `nodes` (t, 3, w) and `links` (t, 2, w) at the watched objects, a row each five minutes;
    `flooding` (t,) [L/s] over all nodes.
    """

    nodes: Array
    links: Array
    flooding: Array
    problem: str = ""


def forecast(
    model: Engine, members: Mapping[str, Array], watched: tuple[list[int], list[int]],
    every: int, limit_s: float, at_once: int = 2,
) -> dict[str, Forecast]:  # fmt: skip
    """What is to come under different rains; this model itself does not move.

    Each member is a fork of this process, an exact copy of the model in a millisecond.

    Parameters
    ----------
    model : Engine
        The model as it is now.
    members : mapping of str to (t, g) array
        Rain [mm/h] of each minute and gage.
    watched : (nodes, links)
        Rows of what is wanted.
    every : int
        Minutes between rows.
    limit_s : float
        A member that takes longer is ended and says so [s].
    at_once : int
        How many processes.
    """
    waiting = list(members.items())
    running: dict[int, tuple[str, int, bytearray]] = {}
    found: dict[str, Forecast] = {}
    end = time.monotonic() + limit_s
    while waiting or running:
        while waiting and len(running) < at_once:
            name, rain = waiting.pop(0)
            child, pipe = _fork(model, rain, watched, every)
            running[pipe] = (name, child, bytearray())
        left = max(0.0, end - time.monotonic())
        ready, _, _ = select.select(list(running), [], [], left)
        for pipe in ready:
            chunk = os.read(pipe, 1 << 20)
            if chunk:
                running[pipe][2].extend(chunk)
                continue
            name, child, raw = running.pop(pipe)
            os.close(pipe)
            os.waitpid(child, 0)
            found[name] = _member(bytes(raw), watched)
        if not ready:
            problem = f"not ready within {limit_s:g} s"
            for pipe, (name, child, _) in running.items():
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                os.close(pipe)
                found[name] = _no_member(problem)
            found |= {name: _no_member(problem) for name, _ in waiting}
            break
    return found


def _fork(
    model: Engine, rain: Array, watched: tuple[list[int], list[int]], every: int
) -> tuple[int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    status = 1
    try:
        os.close(reading)
        _let_files_go()
        with os.fdopen(writing, "wb") as out:
            out.write(json.dumps(_run_on(model, rain, watched, every)).encode())
        status = 0
    finally:
        os._exit(status)


def _run_on(
    model: Engine, rain: Array, watched: tuple[list[int], list[int]], every: int
) -> dict[str, Any]:
    rows: dict[str, Any] = {"nodes": [], "links": [], "flooding": []}
    try:
        for minute, row in enumerate(rain, 1):
            model.advance(row)
            if minute % every == 0:
                now = model.read()
                rows["nodes"].append(now.nodes[:, watched[0]].tolist())
                rows["links"].append(now.links[:, watched[1]].tolist())
                rows["flooding"].append(float(now.nodes[2].sum()))
    except (Invalid, Diverged) as error:
        rows["problem"] = str(error)
    return rows


def _let_files_go() -> None:
    """In a fork: whatever is written to the report and the results goes nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in range(3, min(most, MOST_FILES)):
        with contextlib.suppress(OSError):
            if Path(f"/proc/self/fd/{number}").readlink().suffix in (".rpt", ".out"):
                os.dup2(nowhere, number)


def _member(raw: bytes, watched: tuple[list[int], list[int]]) -> Forecast:
    if not raw:
        return _no_member("its process has died")
    rows = json.loads(raw)
    n = len(rows["flooding"])
    return Forecast(
        np.array(rows["nodes"]).reshape(n, 3, len(watched[0])),
        np.array(rows["links"]).reshape(n, 2, len(watched[1])),
        np.array(rows["flooding"]),
        rows.get("problem", ""),
    )


def _no_member(problem: str) -> Forecast:
    none = np.empty((0,))
    return Forecast(none.reshape(0, 3, 0), none.reshape(0, 2, 0), none, problem)
