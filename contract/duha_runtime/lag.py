"""Latency of an event loop, measured from inside as a histogram."""

import asyncio
import time
from bisect import bisect_left

EVERY_S = 0.02
UPPER_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, float("inf"))  # fmt: skip
"""Upper ends of the histogram's buckets [s]."""


class LoopLag:
    """Delays of timers beyond the time that they were asked for.

    Attributes
    ----------
    counts : list of int
        Timers by their delay, one for each of `UPPER_S`.
    total_s, longest_s : float
        Sum and maximum of the delays [s].
    """

    def __init__(self) -> None:
        self.counts = [0] * len(UPPER_S)
        self.total_s = 0.0
        self.longest_s = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = time.monotonic() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self.add(max(0.0, time.monotonic() - due))

    def add(self, delay_s: float) -> None:
        """Count a delay [s]."""
        self.counts[bisect_left(UPPER_S, delay_s)] += 1
        self.total_s += delay_s
        self.longest_s = max(self.longest_s, delay_s)
