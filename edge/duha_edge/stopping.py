"""Ending a process when it is told to, also when nothing in it gets on any more."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

STOP_S = 8.0
"""How long the parts of a process may take to end [s]; systemd and people wait for it."""
TOLD = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Waits for SIGTERM and SIGINT in a thread of its own.

    The event loop is asked to end. Where it does not within `STOP_S`, because a disk or a
    driver hangs, the process ends all the same: what lies in the outbox is on disk.
    Make it in the main thread, before other threads: they inherit what it blocks.
    """

    def __init__(self, stop_s: float = STOP_S) -> None:
        self._stop_s = stop_s
        self._end: Callable[[], object] = lambda: None
        self._ready = threading.Event()
        signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
        threading.Thread(target=self._wait, name="signals", daemon=True).start()

    def call(self, loop: asyncio.AbstractEventLoop, end: Callable[[], object]) -> None:
        """Call something on an event loop when the process is told to end."""
        self._end = lambda: loop.call_soon_threadsafe(end)
        self._ready.set()

    def _wait(self) -> None:
        signal.sigwait(TOLD)
        if self._ready.is_set():
            self._end()
            time.sleep(self._stop_s)
            log.error("parts did not end within %.0f s; the process ends", self._stop_s)
        os._exit(1)
