"""Latency of the event loop."""

import asyncio
import time

from duha_runtime.lag import UPPER_S, LoopLag


async def test_work_that_blocks_the_loop_is_seen():
    lag = LoopLag()
    task = asyncio.create_task(lag.run())
    await asyncio.sleep(0.05)
    time.sleep(0.12)
    await asyncio.sleep(0.05)
    task.cancel()
    assert lag.longest_s >= 0.1
    assert sum(lag.counts[UPPER_S.index(0.1) :]) >= 1


def test_delays_are_counted_by_their_upper_ends():
    lag = LoopLag()
    for delay in (0.0005, 0.05, 0.0501, 9.0):
        lag.add(delay)
    found = {upper: n for upper, n in zip(UPPER_S, lag.counts, strict=True) if n}
    assert found == {0.001: 1, 0.05: 1, 0.1: 1, float("inf"): 1}
