"""Threads for what blocks, apart by what must not wait for what.

The loop's own threads (``asyncio.to_thread``) serve the stores and the registry. Signing
in has threads of its own, and so has what takes long: a study or an export never keeps
anybody from signing in. None of these threads keeps the process from ending: a call that
hangs ends with it.
"""

import asyncio
import contextvars
import functools
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

STORE_THREADS, SIGN_IN_THREADS, LONG_THREADS, MAIL_THREADS = 12, 4, 6, 2
SWITCH_S = 0.001
"""How long a thread may keep the interpreter while the loop waits for it [s]."""
END_S = 2.0
"""How long the loop waits for its threads when it ends [s]."""
_Call = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads(ThreadPoolExecutor):
    """A pool whose threads end with the process, whatever they wait for.

    Parameters
    ----------
    name : str
        Of its threads.
    most : int
        Most threads; they are started as they are needed.
    """

    def __init__(self, name: str, most: int) -> None:
        # The base starts no thread before its own `submit`, which is not called.
        super().__init__(max_workers=most, thread_name_prefix=name)
        self._name = name
        self._most = most
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._running: list[threading.Thread] = []
        self._idle = 0
        self._guard = threading.Lock()
        self._over = False

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Have a thread call a function."""
        future: Future[T] = Future()
        with self._guard:
            if self._over:
                raise RuntimeError(f"threads {self._name} have ended")
            self._calls.put((future, functools.partial(fn, *args, **kwargs)))
            if self._idle:
                self._idle -= 1
            elif len(self._running) < self._most:
                self._start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads, waiting for them a short while only."""
        with self._guard:
            running, self._running = self._running, []
            self._over = True
            for _ in running:
                self._calls.put(None)
        for thread in running if wait and not cancel_futures else ():
            thread.join(END_S / len(running))

    def _start(self) -> None:
        name = f"{self._name}-{len(self._running)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._running.append(thread)
        thread.start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, run = call
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(run())
                except BaseException as error:  # noqa: BLE001 - who waits gets it
                    future.set_exception(error)
            del call, future, run
            with self._guard:
                self._idle += 1


class Threads:
    """A pool that is made when it is first needed."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._pool: DaemonThreads | None = None

    async def run(self, call: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """Call a function in a thread of this pool."""
        if self._pool is None:
            self._pool = DaemonThreads(self._name, self._most)
        bound = functools.partial(contextvars.copy_context().run, call, *args, **more)
        return await asyncio.get_running_loop().run_in_executor(self._pool, bound)


SIGN_IN = Threads("sign-in", SIGN_IN_THREADS)
"""Finds out who asks."""
LONG = Threads("long", LONG_THREADS)
"""Studies, exports: minutes and hours."""
MAIL = Threads("mail", MAIL_THREADS)
"""Talks to the mail server."""


def install() -> None:
    """Give the running loop threads for stores that do not keep the process alive."""
    sys.setswitchinterval(SWITCH_S)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(DaemonThreads("store", STORE_THREADS))
