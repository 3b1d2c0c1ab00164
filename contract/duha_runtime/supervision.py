"""Supervision of long-lived parts: a failed part is reported and restarted alone.

A process consists of parts: a Modbus line, the broker connection, a sink, one job of a
tick. An exception in a part is logged with its context, counted, listed in
`Supervisor.failing` (from which metrics and alarms are made) and the part is started
again with back-off. The other parts do not notice.

Only `Fatal` ends the process: a setting that cannot work, found at start.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Self

from duha_runtime.waiting import ended

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
HEALTHY_S = 60.0
"""A restarted part that runs this long without a failure is healthy again [s]."""
MESSAGE_CHARS = 300
MOST_PARTS = 1000
"""Most distinct names in the list of failures: names may come from documents."""

Clock = Callable[[], float]


class Fatal(Exception):  # noqa: N818 - the word that operators look for
    """A setting that cannot work: ends the process with one sentence."""


@dataclass
class Failure:
    """Failures of one part.

    Attributes
    ----------
    part : str
        Name of the part, as in metrics and alarms.
    count : int
        Failures since the start of the process.
    error : str
        The last error in one line; empty once the part is healthy again.
    since : float
        Monotonic time of the first failure of the present series [s].
    """

    part: str
    count: int = 0
    error: str = ""
    since: float = 0.0


class Supervisor:
    """Runs the parts of a process and restarts those that fail.

    Use it as an asynchronous context manager: leaving it cancels every part and waits
    until all have ended.

    Parameters
    ----------
    on_change : callable, optional
        Called with a `Failure` when a part begins to fail and when it is healthy again.
    monotonic : callable, optional
        Time [s].
    first_pause_s, longest_pause_s : float, optional
        Back-off between restarts: doubled from the first to the longest [s].
    """

    def __init__(
        self,
        on_change: Callable[[Failure], None] | None = None,
        *,
        monotonic: Clock = time.monotonic,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
        healthy_s: float = HEALTHY_S,
    ) -> None:
        self._on_change = on_change
        self._monotonic = monotonic
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._healthy_s = healthy_s
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, Failure] = {}
        self._fatal: asyncio.Future[None] | None = None

    @property
    def failing(self) -> list[Failure]:
        """Parts that fail now."""
        return [failure for failure in self._failures.values() if failure.error]

    @property
    def failures(self) -> dict[str, int]:
        """Failures of each part since the start of the process."""
        return {part: failure.count for part, failure in self._failures.items()}

    @property
    def parts(self) -> list[str]:
        """Names of the parts that run or wait for their restart."""
        return list(self._tasks)

    async def __aenter__(self) -> Self:
        self._fatal = asyncio.get_running_loop().create_future()
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks, self._tasks = list(self._tasks.values()), {}
        await ended(tasks)
        if self._fatal is not None:
            self._fatal.cancel()

    async def wait(self) -> None:
        """Wait until a part raises `Fatal`, and raise it.

        Raises
        ------
        Fatal
            A setting that cannot work.
        """
        assert self._fatal is not None, "enter the supervisor first"  # noqa: S101
        await asyncio.shield(self._fatal)

    def start(self, part: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a part until it is stopped, restarting it whenever it fails or returns.

        Parameters
        ----------
        part : str
            Its name.
        run : callable
            Makes the coroutine of one run.

        Raises
        ------
        ValueError
            A part of this name runs already.
        """
        if part in self._tasks:
            raise ValueError(f"part {part!r} runs already")
        self._tasks[part] = asyncio.create_task(self._keep(part, run), name=part)

    async def stop(self, part: str) -> None:
        """Cancel a part, wait until it has ended, and forget its failure."""
        task = self._tasks.pop(part, None)
        if task is not None:
            await ended([task])
        self.succeeded(part)

    @contextlib.contextmanager
    def barrier(self, part: str) -> Iterator[None]:
        """Keep an exception of one job from ending the loop that runs it.

        The job counts as healthy again after its next run without an exception. Works
        around `await`, too; cancellation passes.
        """
        try:
            yield
        except Fatal:
            raise
        except Exception as error:  # noqa: BLE001 - the purpose of a barrier
            self.failed(part, error)
        else:
            self.succeeded(part)

    def failed(self, part: str, error: BaseException) -> None:
        """Count a failure of a part; log it when it begins or its error changes."""
        found = self._failures.get(part)
        if found is None:
            if len(self._failures) >= MOST_PARTS:
                part = "others"
            found = self._failures.setdefault(part, Failure(part))
        found.count += 1
        before, found.error = found.error, describe(error)
        if found.error == before:
            return
        log.error("part %s failed: %s", part, found.error, exc_info=error)
        if not before:
            found.since = self._monotonic()
            self._changed(found)

    def succeeded(self, part: str) -> None:
        """Note that a part works; where it failed before, it is healthy again."""
        found = self._failures.get(part)
        if found is None or not found.error:
            return
        found.error = ""
        log.info("part %s works again", part)
        self._changed(found)

    def _changed(self, failure: Failure) -> None:
        if self._on_change is not None:
            self._on_change(failure)

    async def _keep(self, part: str, run: Callable[[], Awaitable[None]]) -> None:
        pause = self._first_pause_s
        while True:
            began = self._monotonic()
            healthy = asyncio.get_running_loop().call_later(
                self._healthy_s, self.succeeded, part
            )
            try:
                await run()
                error: Exception = RuntimeError("ended although it should go on")
            except Fatal as fatal:
                self._end(fatal)
                return
            except Exception as raised:  # noqa: BLE001 - the purpose of a supervisor
                error = raised
            finally:
                healthy.cancel()
            self.failed(part, error)
            if self._monotonic() - began >= self._healthy_s:
                pause = self._first_pause_s
            await asyncio.sleep(pause)
            pause = min(self._longest_pause_s, pause * 2)

    def _end(self, fatal: Fatal) -> None:
        if self._fatal is not None and not self._fatal.done():
            self._fatal.set_exception(fatal)


def describe(error: BaseException) -> str:
    """One line that names an error and, of a group, its first cause."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"[:MESSAGE_CHARS]
