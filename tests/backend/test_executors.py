"""Threads that are apart by what must not wait for what, and that hold up no end."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from duha_backend.executors import DaemonThreads, Threads

STUCK = """
import asyncio, threading
from duha_backend import executors

async def main():
    executors.install()
    for_ever = threading.Event()
    stuck = [
        asyncio.create_task(asyncio.to_thread(for_ever.wait)),
        asyncio.create_task(executors.LONG.run(for_ever.wait)),
        asyncio.create_task(executors.SIGN_IN.run(for_ever.wait)),
    ]
    await asyncio.sleep(0.2)
    print("began", flush=True)

asyncio.run(main())
print("ended", flush=True)
"""


def test_calls_that_hang_do_not_keep_the_process_from_ending():
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=30,
        check=True,
    )  # fmt: skip
    assert ran.stdout.split() == ["began", "ended"]
    assert time.monotonic() - began < 20


async def test_what_hangs_in_one_pool_does_not_keep_another_waiting():
    one, other = Threads("one", 1), Threads("other", 1)
    for_ever = threading.Event()
    stuck = asyncio.create_task(one.run(for_ever.wait))
    waiting = asyncio.create_task(one.run(lambda: "later"))
    assert await asyncio.wait_for(other.run(lambda: "now"), 5) == "now"
    assert not waiting.done()
    for_ever.set()
    assert await waiting == "later"
    assert await stuck


async def test_an_exception_in_a_thread_is_that_of_its_call_alone():
    pool = Threads("some", 2)

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await pool.run(fail)
    assert await asyncio.gather(*(pool.run(str, n) for n in range(50))) == [
        str(n) for n in range(50)
    ]


def test_no_more_threads_are_started_than_are_needed():
    pool = DaemonThreads("few", 3)
    for _ in range(20):
        pool.submit(time.sleep, 0).result(5)
        time.sleep(0.01)
    assert len(pool._running) <= 2
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit(time.sleep, 0)
