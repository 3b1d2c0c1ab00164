"""Documents that come in: examined, put in force, kept; refused ones are reported."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from duha_contract.clock import Clock
from duha_contract.errors import ContractError
from duha_contract.messages import Desired, supersedes
from duha_edge.executor import Executor
from duha_runtime.waiting import heard

log = logging.getLogger(__name__)

MOST_WAITING = 100
KEEP_AGAIN_S = 30.0
"""After a document that the disk refused to keep."""
NOTE_S = 10.0
"""Refused documents are noted as events at most so often."""

Note = Callable[[str, str | None, str], None]


class Intake:
    """Takes desired documents, one after the other, off the event loop.

    Parameters
    ----------
    executor, clock : Executor, Clock
        Who obeys, and the time from which on a document is tried.
    note : callable
        Takes an event: code, device, detail.
    """

    def __init__(self, executor: Executor, clock: Clock, note: Note) -> None:
        self._executor = executor
        self._clock = clock
        self._note = note
        self._waiting: deque[Desired] = deque(maxlen=MOST_WAITING)
        self._news = asyncio.Event()
        self._unkept: Desired | None = None
        self._noted_at = -NOTE_S
        self._refused = ""
        self._problem = ""

    @property
    def alarms(self) -> list[str]:
        """What is wrong with documents, in sentences."""
        return [alarm for alarm in (self._refused, self._problem) if alarm]

    def offer(self, desired: Desired) -> None:
        """A document has come; of very many that wait, the oldest are left out."""
        self._waiting.append(desired)
        self._news.set()

    async def run(self) -> None:
        """Take documents until cancelled."""
        while True:
            await heard(self._news, KEEP_AGAIN_S if self._unkept else None)
            self._news.clear()
            while self._waiting:
                await self._take(self._waiting.popleft())
            await self._keep()

    async def _take(self, desired: Desired) -> None:
        """Put a document in force if it can be, and is not older than the one that is."""
        now = self._clock.now()
        if not supersedes(desired, self._executor.desired):
            self._outdated(desired)
            return
        try:
            await asyncio.to_thread(self._executor.examine, desired, now)
        except ContractError as error:
            self._refuse(desired, str(error))
            return
        self._executor.adopt(desired)
        self._unkept, self._refused = desired, ""
        log.info("desired revision %d is in force", desired.revision)

    async def _keep(self) -> None:
        """Put the document in force on disk; a full disk does not keep it from being so."""
        desired = self._unkept
        if desired is None:
            return
        try:
            await asyncio.to_thread(self._executor.keep, desired)
        except OSError as error:
            if not self._problem:
                log.error("desired revision %d not kept: %s", desired.revision, error)  # noqa: TRY400
            self._problem = f"the desired document cannot be kept: {error}"
            return
        self._unkept, self._problem = None, ""

    def _outdated(self, desired: Desired) -> None:
        current = self._executor.desired
        if current is None or desired.hash == current.hash:
            return  # the same again
        came, stands = (
            f"term {document.term}, revision {document.revision}"
            for document in (desired, current)
        )
        detail = f"{came} came after {stands}"
        self._tell("desired_outdated", detail)

    def _refuse(self, desired: Desired, reason: str) -> None:
        detail = f"revision {desired.revision}: {reason}"
        self._refused = f"desired document refused, {detail}"
        self._tell("desired_refused", detail)

    def _tell(self, code: str, detail: str) -> None:
        """Log; and note an event, unless one was noted a moment ago."""
        log.warning("%s: %s", code, detail)
        if time.monotonic() - self._noted_at >= NOTE_S:
            self._noted_at = time.monotonic()
            self._note(code, None, detail[:300])
