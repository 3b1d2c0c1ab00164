"""Shutdown of a process on a signal, even when its event loop or a thread hangs."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

STOP_S = 8.0
"""Time limit for the parts of a process to end [s]."""
TOLD = (signal.SIGTERM, signal.SIGINT)


class ShutdownSignals:
    """Waits for SIGTERM and SIGINT in a thread of its own.

    First the event loop is asked to stop. If the process still runs after `STOP_S`,
    because a disk or a driver hangs, it exits: the outbox is on disk.
    Create it in the main thread before other threads: they inherit the blocked signals.
    """

    def __init__(self, stop_s: float = STOP_S) -> None:
        self._stop_s = stop_s
        self._end: Callable[[], object] = lambda: None
        self._ready = threading.Event()
        signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
        threading.Thread(target=self._wait, name="signals", daemon=True).start()

    def on_shutdown(
        self, loop: asyncio.AbstractEventLoop, end: Callable[[], object]
    ) -> None:
        """Call a function on an event loop on the first signal."""
        self._end = lambda: loop.call_soon_threadsafe(end)
        self._ready.set()

    def _wait(self) -> None:
        signal.sigwait(TOLD)
        if self._ready.is_set():
            self._end()
            time.sleep(self._stop_s)
            log.error("parts did not end within %.0f s; the process ends", self._stop_s)
        os._exit(1)
