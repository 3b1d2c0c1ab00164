"""Jobs of studies: one model under one rain, in this process; and many of them in several.

On one machine by processes, on many by `dask.distributed`: always with one thread, as SWMM
holds its model in globals.
"""

import concurrent.futures
import datetime as dt
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from duha_backend.drainage.engine import Engine
from duha_backend.errors import BackendError, Invalid
from duha_backend.runoff.inp import parse
from duha_backend.runoff.study import (
    EVERY_MIN,
    FLOODED_M3,
    Job,
    Outcome,
    emptied_h,
    overflows,
    rain_of_gages,
    scaled,
)
from duha_backend.validate import Array

START = dt.datetime(2026, 7, 1)  # noqa: DTZ001 - a model has no zone
Progress = Callable[[int, int, Outcome], None]


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
    with tempfile.TemporaryDirectory(prefix="duha-study-") as folder:
        model = Engine(raw, START, Path(folder))
        try:
            return _measured(job, raw, model)
        finally:
            model.close()


def _measured(job: Job, raw: bytes, model: Engine) -> Outcome:
    rain = rain_of_gages(job.rain, len(model.gauges))
    tail = np.zeros((round(job.tail_h * 60), len(model.gauges)))
    course = np.concatenate((rain, tail))
    nodes, water = [], []
    for minute, row in enumerate(course, 1):
        model.advance(row)
        if minute % EVERY_MIN == 0:
            nodes.append(model.read_nodes())
            water.append(model.lid_water_mm())
    model.check_rain()
    read = np.array(nodes)  # (t, 3, n)
    held = np.array(water)
    at = {name: i for i, name in enumerate(model.nodes)}
    out = {name: read[:, 1, at[name]] for name in model.model.outfalls}
    over = overflows(raw)
    return _outcome(job, model, read, held, out, over, len(rain))


def _outcome(
    job: Job, model: Engine, read: Array, held: Array, out: dict[str, Array],
    over: list[str], rain_end: int,
) -> Outcome:  # fmt: skip
    seconds = EVERY_MIN * 60 / 1000
    whole = np.sum(list(out.values()), axis=0)
    spilled = np.sum([out[name] for name in over], axis=0) if over else 0 * whole
    flooding = read[:, 2].sum(axis=0) * seconds
    mm = model.runoff_mm()
    hours, full = emptied_h(held, rain_end)
    kept = 1 - (mm["runoff"] + mm["drains"]) / mm["rainfall"] if mm["rainfall"] else 0.0
    return Outcome(
        job.model, job.rain.name, model.area_ha, mm["rainfall"],
        mm["rainfall"] * model.area_ha * 10, float(whole.sum()) * seconds,
        float(whole.max()), float(spilled.sum()) * seconds, float(spilled.max()),
        int((flooding > FLOODED_M3).sum()), float(flooding.sum()),
        mm["runoff"] + mm["drains"], mm["infil"], mm["evap"], kept, held.shape[1], hours,
        full, {name: flow.round(3).tolist() for name, flow in out.items()},
        dict(zip(model.nodes, read[:, 0].max(axis=0).round(4).tolist(), strict=True)),
        tuple(over),
    )  # fmt: skip


def run_jobs(
    jobs: Sequence[Job], folder: Path | None = None, workers: int | None = None,
    scheduler: str = "", progress: Progress | None = None,
) -> list[Outcome]:  # fmt: skip
    """Outcomes of jobs, in their order.

    Parameters
    ----------
    jobs : sequence of Job
        What is to be reckoned.
    folder : Path, optional
        Where outcomes are kept: what is there already is not reckoned again, so that a
        study that was interrupted goes on.
    workers : int, optional
        Processes of this machine; as many as it has cores.
    scheduler : str
        Address of a `dask` scheduler, instead of this machine.
    progress : callable, optional
        Called with how many are done, of how many, and the last one.
    """
    found: dict[int, Outcome] = {}
    for number, job in enumerate(jobs):
        known = _kept(folder, job)
        if known is not None:
            found[number] = known
            _say(progress, found, jobs, known)
    rest = [(number, job) for number, job in enumerate(jobs) if number not in found]
    spread = _by_dask(rest, scheduler) if scheduler else _by_processes(rest, workers)
    for number, outcome in spread:
        found[number] = outcome
        _keep(folder, jobs[number], outcome)
        _say(progress, found, jobs, outcome)
    return [found[number] for number in range(len(jobs))]


def _say(
    progress: Progress | None, found: dict[int, Outcome], jobs: Sequence[Job],
    outcome: Outcome,
) -> None:  # fmt: skip
    if progress is not None:
        progress(len(found), len(jobs), outcome)


def _by_processes(
    jobs: Sequence[tuple[int, Job]], workers: int | None
) -> Iterator[tuple[int, Outcome]]:
    if not jobs:
        return
    count = min(len(jobs), workers or os.cpu_count() or 1)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        count, context, initializer=_end_with, initargs=(os.getpid(),)
    ) as pool:
        waiting = {pool.submit(run_job, job): (number, job) for number, job in jobs}
        try:
            for future in concurrent.futures.as_completed(waiting):
                number, job = waiting[future]
                error = future.exception()
                yield (
                    number,
                    failed(job, f"its process has died: {error}")
                    if error
                    else future.result(),
                )
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with(parent: int) -> None:
    """A process of a pool ends when whoever asked is killed."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def _by_dask(
    jobs: Sequence[tuple[int, Job]], scheduler: str
) -> Iterator[tuple[int, Outcome]]:
    try:
        import distributed
    except ImportError:
        raise Invalid("for --scheduler install duha[studies]") from None
    try:
        client: Any = distributed.Client(scheduler, timeout=10)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise Invalid(f"no scheduler at {scheduler}: {error}") from None
    with client:
        check_threads(client.scheduler_info(n_workers=-1)["workers"])
        waiting = {
            client.submit(
                run_job, job, pure=False, key=f"duha-{number}-{job.key}"
            ): number
            for number, job in jobs
        }
        done: Any = distributed.as_completed(waiting, with_results=True)  # type: ignore[no-untyped-call]
        for future, outcome in done:
            yield waiting[future], outcome


def check_threads(workers: Any) -> None:
    """Raise Invalid where a worker has more threads than one, or there is none."""
    if not workers:
        raise Invalid("the scheduler has no worker: dask worker ADDRESS --nthreads 1")
    for address, worker in workers.items():
        if worker["nthreads"] != 1:
            raise Invalid(
                f"worker {address} has {worker['nthreads']} threads; SWMM allows one:"
                " dask worker ADDRESS --nthreads 1"
            )


def _kept(folder: Path | None, job: Job) -> Outcome | None:
    path = folder / f"{job.key}.json" if folder else None
    if path is None or not path.exists():
        return None
    try:
        known = msgspec.json.decode(path.read_bytes(), type=Outcome)
    except (msgspec.DecodeError, OSError):
        return None  # half a file of an interrupted study
    return msgspec.structs.replace(known, model=job.model, rain=job.rain.name)


def _keep(folder: Path | None, job: Job, outcome: Outcome) -> None:
    if folder is None or outcome.problem:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{job.key}.json"
    half = path.with_suffix(".part")
    half.write_bytes(msgspec.json.encode(outcome))
    half.replace(path)


def all_jobs(
    models: Iterable[tuple[str, bytes]], rains: Iterable[Any], tail_h: float
) -> list[Job]:
    """Every model under every rain."""
    each = list(rains)
    return [Job(name, raw, rain, tail_h) for name, raw in models for rain in each]
