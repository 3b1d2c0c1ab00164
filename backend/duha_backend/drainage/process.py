"""A model in a process of its own: asked and answered over pipes, killed when it is silent."""

import asyncio
import contextlib
import functools
import logging
import os
import struct
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from duha_backend.drainage.worker import LIDS_MIN, pack
from duha_backend.errors import Diverged, Invalid
from duha_backend.runoff.study import Job, Outcome
from duha_backend.validate import Array

log = logging.getLogger(__name__)

_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "PATH": os.defpath, "LANG": "C.UTF-8",
}  # fmt: skip
"""All that a model's process has of an environment: no secret, no path of its parent."""
OPEN_S = 60.0
_ERRORS = {"Invalid": Invalid, "Diverged": Diverged}


@dataclass(frozen=True)
class Names:
    """What a model that is open is made of, in the order of its results."""

    gauges: list[str]
    nodes: list[str]
    links: list[str]
    subcatchments: list[str]
    lids: list[str]
    full_m: list[float]
    area_ha: float
    changes: list[str]


@dataclass(frozen=True)
class Row:
    """Results after so many minutes; arrays as of `engine.Snapshot`.

    `peaks` and `link_peaks` are those of the last row only, else empty.
    `lids` (6, k) as of `Engine.read_lids` each hour, else None; `runoff_mm` so far.
    """

    minute: int
    nodes: Array
    links: Array
    peaks: Array
    link_peaks: Array
    lids: Array | None
    stored_m3: float
    injected_mm: float
    runoff_mm: float


class Process:
    """One model, running.

    Every call raises Diverged when the process has died or does not answer in time; it
    is gone then, and whoever holds it begins another one.
    """

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._asking = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Of the process; None when there is none."""
        return None if self._process is None else self._process.pid

    async def open(self, raw: bytes, start_s: float) -> Names:
        """Begin a model cold, at a time [POSIX s].

        Raises
        ------
        Invalid
            SWMM refuses it: every error with its line.
        """
        await self._begin()
        said = await self._ask(OPEN_S, do="open", raw=raw, start=start_s)
        return msgspec.convert(said, Names)

    async def job(self, job: Job, limit_s: float) -> Outcome:
        """Carry out a job of a study; the process stays for the next one."""
        if self._process is None:
            await self._begin()
        rain = np.ascontiguousarray(job.rain.mm_h, dtype=np.float64)
        said = await self._ask(
            limit_s, do="job", model=job.model, raw=job.raw, name=job.rain.name,
            rain=rain.tobytes(), shape=rain.shape, tail_h=job.tail_h, factors=job.factors,
        )  # fmt: skip
        return msgspec.convert(said["outcome"], Outcome)

    async def _begin(self) -> None:
        """Begin a process that knows nothing of this one, and may do next to nothing."""
        await self._kill()
        self._folder = tempfile.TemporaryDirectory(
            prefix="duha-model-", ignore_cleanup_errors=True
        )
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-m", "duha_backend.drainage.worker",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                cwd=self._folder.name, env=_ENVIRONMENT | {"TMPDIR": self._folder.name},
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            await self._kill()
            raise
        held = await self._patiently(OPEN_S, self._hear)
        if not held["files"]:
            _warn_once()

    async def run(self, rain_mm_h: Array, every: int, limit_s: float) -> list[Row]:
        """Run minutes of rain (m, g) [mm/h]; a row of results every so many minutes."""
        raw = np.ascontiguousarray(rain_mm_h, dtype=np.float64).tobytes()
        said = await self._ask(limit_s, do="run", rain=raw, every=every)
        return [_row(row) for row in said["rows"]]

    async def forecast(
        self, members: dict[str, Array], nodes: list[int], links: list[int], every: int,
        limit_s: float,
    ) -> dict[str, dict[str, Any]]:  # fmt: skip
        """As `forks.forecast`; the model itself does not move."""
        raw = {
            name: np.ascontiguousarray(rain, dtype=np.float64).tobytes()
            for name, rain in members.items()
        }
        said = await self._ask(
            limit_s + OPEN_S, do="forecast", members=raw, nodes=nodes, links=links,
            every=every, limit_s=limit_s,
        )  # fmt: skip
        return said["members"]  # type: ignore[no-any-return]

    async def _ask(self, patience_s: float, **what: Any) -> dict[str, Any]:
        async with self._asking:
            asked = pack(what | {"cpu_s": patience_s})

            async def exchange() -> dict[str, Any]:
                process = self._process
                if process is None or process.stdin is None:
                    raise BrokenPipeError
                process.stdin.write(asked)
                await process.stdin.drain()
                return await self._hear()

            said = await self._patiently(patience_s, exchange)
        if "error" in said:
            raise _ERRORS.get(said.get("kind", ""), Diverged)(said["error"])
        return said

    async def _patiently(
        self, patience_s: float, call: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """An answer; a process without one in time, or in half, is killed."""
        try:
            async with asyncio.timeout(patience_s):
                return await call()
        except TimeoutError:
            await self._kill()
            raise Diverged(
                f"the model has not answered within {patience_s:g} s"
            ) from None
        except (OSError, asyncio.IncompleteReadError, msgspec.DecodeError):
            await self._kill()
            raise Diverged("the process of the model has died") from None
        except asyncio.CancelledError:
            await self._kill()
            raise

    async def _hear(self) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdout is None:
            raise BrokenPipeError
        (n,) = struct.unpack(">I", await process.stdout.readexactly(4))
        return msgspec.msgpack.decode(await process.stdout.readexactly(n))  # type: ignore[no-any-return]

    async def close(self) -> None:
        """End the process, and its folder with it."""
        await self._kill()

    async def _kill(self) -> None:
        process, self._process = self._process, None
        folder, self._folder = self._folder, None
        try:
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)  # and its forks
                # Whose pipe nobody reads any more is never seen to end: closed first.
                transport: asyncio.SubprocessTransport = process._transport  # type: ignore[attr-defined]  # noqa: SLF001
                for number in (0, 1):
                    pipe = transport.get_pipe_transport(number)
                    if pipe is not None:
                        pipe.close()
                ended = asyncio.ensure_future(process.wait())
                try:
                    await asyncio.shield(ended)
                except asyncio.CancelledError:
                    await ended  # it is killed, and so it ends at once
                    raise
                finally:
                    transport.close()
        finally:  # whoever waits here may be cancelled
            if folder is not None:
                folder.cleanup()


@functools.cache
def _warn_once() -> None:
    log.warning(
        "this system has no Landlock: processes of models may write where their user may"
    )


def _row(said: dict[str, Any]) -> Row:
    def array(name: str, rows: int) -> Array:
        return np.frombuffer(said[name]).reshape(rows, -1)

    lids = array("lids", 6) if said["minute"] % LIDS_MIN == 0 else None
    return Row(
        said["minute"], array("nodes", 3), array("links", 2), array("peaks", 3),
        array("link_peaks", 2), lids, said["stored_m3"], said["injected_mm"], said["runoff_mm"],
    )  # fmt: skip
