"""Jobs of studies: many models under many rains, each in a process of its own.

On one machine by processes, on many by `dask.distributed`: always with one thread, as SWMM
holds its model in globals. A job that breaks down, hangs or is killed takes no other with it.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from duha_backend.drainage.job import failed, run_job
from duha_backend.drainage.process import Process
from duha_backend.errors import BackendError, Invalid
from duha_backend.runoff.study import Job, Outcome

__all__ = ["all_jobs", "check_threads", "failed", "outcomes", "run_job", "run_jobs"]

JOB_LIMIT_S = 3600.0
"""A job that takes longer is hung: its process is killed, and the outcome says so."""
MOST_KEPT = 5_000
MOST_KEPT_BYTES = 512 * 1024**2
Progress = Callable[[int, int, Outcome], None]


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

    async def collect() -> None:
        async with contextlib.aclosing(
            outcomes(jobs, folder, workers, scheduler)
        ) as each:
            async for number, outcome in each:
                found[number] = outcome
                if progress is not None:
                    progress(len(found), len(jobs), outcome)

    asyncio.run(collect())
    return [found[number] for number in range(len(jobs))]


async def outcomes(
    jobs: Sequence[Job], folder: Path | None = None, workers: int | None = None,
    scheduler: str = "", limit_s: float = JOB_LIMIT_S,
) -> AsyncGenerator[tuple[int, Outcome], None]:  # fmt: skip
    """Number and outcome of each job as it comes; see `run_jobs`.

    Whoever stops listening ends every process of it.
    """
    rest = []
    for number, job in enumerate(jobs):
        known = await asyncio.to_thread(_kept, folder, job)
        if known is None:
            rest.append((number, job))
        else:
            yield number, known
    spread = (
        _by_dask(rest, scheduler)
        if scheduler
        else _by_processes(rest, workers, limit_s)
    )
    async with contextlib.aclosing(spread) as each:
        async for number, outcome in each:
            await asyncio.to_thread(_keep, folder, jobs[number], outcome)
            yield number, outcome
    await asyncio.to_thread(_forget_oldest, folder)


async def _by_processes(
    jobs: Sequence[tuple[int, Job]], workers: int | None, limit_s: float
) -> AsyncGenerator[tuple[int, Outcome], None]:
    waiting = list(reversed(jobs))
    done: asyncio.Queue[tuple[int, Outcome]] = asyncio.Queue()

    async def work() -> None:
        process = Process()
        try:
            while waiting:
                number, job = waiting.pop()
                done.put_nowait((number, await _in_process(process, job, limit_s)))
        finally:
            await process.close()

    count = min(len(jobs), workers or os.cpu_count() or 1)
    tasks = [asyncio.create_task(work(), name="study worker") for _ in range(count)]
    try:
        for _ in jobs:
            yield await done.get()
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _in_process(process: Process, job: Job, limit_s: float) -> Outcome:
    """The outcome of a job; a process that died or hung is replaced with the next one."""
    try:
        return await process.job(job, limit_s)
    except (BackendError, OSError, msgspec.MsgspecError) as error:
        await process.close()
        return failed(job, str(error))


async def _by_dask(
    jobs: Sequence[tuple[int, Job]], scheduler: str
) -> AsyncGenerator[tuple[int, Outcome], None]:
    if not jobs:
        return
    try:
        distributed: Any = await asyncio.to_thread(__import__, "distributed")
    except ImportError:
        raise Invalid("for --scheduler install duha[studies]") from None
    try:
        client = await distributed.Client(scheduler, asynchronous=True, timeout=10)
    except OSError as error:
        raise Invalid(f"no scheduler at {scheduler}: {error}") from None
    async with client:
        known = await client.scheduler.identity(n_workers=-1)
        check_threads(known["workers"])
        waiting = {
            client.submit(
                run_job, job, pure=False, key=f"duha-{number}-{job.key}"
            ): number
            for number, job in jobs
        }
        async for future in distributed.as_completed(waiting):
            yield waiting[future], await future


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


def _forget_oldest(folder: Path | None) -> None:
    """Keep the newest outcomes only: so many, and so many bytes."""
    if folder is None or not folder.exists():
        return
    found = [(path.stat(), path) for path in folder.glob("*.json")]
    found.sort(key=lambda one: one[0].st_mtime, reverse=True)
    total = 0
    for number, (stat, path) in enumerate(found):
        total += stat.st_size
        if number >= MOST_KEPT or total > MOST_KEPT_BYTES:
            path.unlink(missing_ok=True)


def all_jobs(
    models: Iterable[tuple[str, bytes]], rains: Iterable[Any], tail_h: float
) -> list[Job]:
    """Every model under every rain."""
    each = list(rains)
    return [Job(name, raw, rain, tail_h) for name, raw in models for rain in each]
