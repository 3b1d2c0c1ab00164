"""Queue of received desired documents: validated, put in force, stored, or reported."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from duha_contract.clock import Clock
from duha_contract.errors import ContractError
from duha_contract.messages import Desired, supersedes
from duha_edge.executor import Executor
from duha_runtime.supervision import describe
from duha_runtime.waiting import heard

log = logging.getLogger(__name__)

MOST_WAITING = 100
STORE_AGAIN_S = 30.0
"""Pause before another attempt to store a document [s]."""
NOTE_S = 10.0
"""Shortest interval between events about refused documents [s]."""

Note = Callable[[str, str | None, str], None]


class DocumentQueue:
    """Processes desired documents one after the other, off the event loop.

    Parameters
    ----------
    executor, clock : Executor, Clock
        Executor of the documents, and the time from which they are evaluated.
    note : callable
        Records an event: code, device, detail.
    """

    def __init__(self, executor: Executor, clock: Clock, note: Note) -> None:
        self._executor = executor
        self._clock = clock
        self._note = note
        self._waiting: deque[Desired] = deque(maxlen=MOST_WAITING)
        self._news = asyncio.Event()
        self._changed = asyncio.Event()
        self._unstored: Desired | None = None
        self._noted_at = -NOTE_S
        self._refused = ""
        self._problem = ""

    @property
    def alarms(self) -> list[str]:
        """Alarms about documents."""
        return [alarm for alarm in (self._refused, self._problem) if alarm]

    def submit(self, desired: Desired) -> None:
        """Queue a document; when the queue is full, the oldest one is dropped."""
        self._waiting.append(desired)
        self._news.set()

    async def run(self) -> None:
        """Process documents until cancelled.

        Validation has a thread of its own: others may all wait for a disk that hangs.
        """
        threads = ThreadPoolExecutor(1, "documents")
        try:
            while True:
                if not self._waiting:
                    self._news.clear()
                    await self._news.wait()
                await self._process(self._waiting.popleft(), threads)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    async def store(self) -> None:
        """Store the document in force, after an error of the disk again, until cancelled."""
        while True:
            await heard(self._changed, STORE_AGAIN_S if self._unstored else None)
            self._changed.clear()
            if self._unstored is not None:
                await self._store(self._unstored)

    async def _process(self, desired: Desired, threads: ThreadPoolExecutor) -> None:
        """Put a document in force if it is valid and not older than the one in force."""
        if not supersedes(desired, self._executor.desired):
            self._outdated(desired)
            return
        loop, now = asyncio.get_running_loop(), self._clock.now()
        try:
            await loop.run_in_executor(threads, self._executor.validate, desired, now)
        except ContractError as error:
            self._refuse(desired, str(error))
            return
        except Exception as error:  # the barrier of each document
            log.exception("desired revision %d", desired.revision)
            self._refuse(desired, describe(error))
            return
        self._executor.activate(desired)
        self._unstored, self._refused = desired, ""
        self._changed.set()
        log.info("desired revision %d is in force", desired.revision)

    async def _store(self, desired: Desired) -> None:
        try:
            await asyncio.to_thread(self._executor.store, desired)
        except OSError as error:
            if not self._problem:
                log.error("desired revision %d not stored: %s", desired.revision, error)  # noqa: TRY400
            self._problem = f"the desired document cannot be stored: {error}"
            return
        self._problem = ""
        if self._unstored is desired:
            self._unstored = None

    def _outdated(self, desired: Desired) -> None:
        current = self._executor.desired
        if current is None or desired.hash == current.hash:
            return  # the same again
        came, stands = (
            f"term {document.term}, revision {document.revision}"
            for document in (desired, current)
        )
        detail = f"{came} came after {stands}"
        self._report("desired_outdated", detail)

    def _refuse(self, desired: Desired, reason: str) -> None:
        detail = f"revision {desired.revision}: {reason}"
        self._refused = f"desired document refused, {detail}"
        self._report("desired_refused", detail)

    def _report(self, code: str, detail: str) -> None:
        """Log, and record an event unless one was recorded less than `NOTE_S` ago."""
        log.warning("%s: %s", code, detail)
        if time.monotonic() - self._noted_at >= NOTE_S:
            self._noted_at = time.monotonic()
            self._note(code, None, detail[:300])
