"""Nothing is acknowledged before its commit, and a store that fails loses nothing."""

import asyncio
import contextlib
import time
from itertools import pairwise

import duckdb
from hypothesis import given
from hypothesis import strategies as st

from duha_backend.ingest import Ingest, ranges
from duha_backend.live import Live
from duha_backend.readings import Readings
from duha_contract.clock import Clock
from duha_contract.messages import Batch, Table, encode


def message(seq):
    row = ("L1", round(time.time() * 1000), "good", 30)
    table = Table("luminaire", ("device", "ts", "quality", "power_w"), (row,))
    return "duha/v1/plzen/RVO-001/data", encode(
        Batch(1, "boot", "box", seq, "trusted", (table,))
    )


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_store_that_fails_is_not_acknowledged_and_the_next_attempt_is(tmp_path):
    store = Readings(tmp_path / "r.duckdb")
    acks = []

    async def acknowledge(controller, ack):
        acks.append((controller, ack.outbox, ack.ranges, store.counts()["batch"]))

    ingest = Ingest(store, Live([]), Clock(time.time), acknowledge)
    running = asyncio.create_task(ingest.run())
    with duckdb.connect(str(tmp_path / "r.duckdb")) as beside:
        beside.execute("ALTER TABLE luminaire RENAME TO away")
        ingest.offer(*message(1))
        await until(lambda: ingest.counts.failed_commits == 1)
        assert acks == []
        beside.execute("ALTER TABLE away RENAME TO luminaire")
    ingest.offer(*message(1))  # the edge sends again what was not acknowledged
    await until(lambda: acks)
    assert acks == [("RVO-001", "box", ((1, 1),), 1)]  # and only after the commit
    assert store.counts()["luminaire"] == 1
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    store.close()


@given(st.lists(st.integers(1, 60)))
def test_ranges_hold_just_the_numbers(numbers):
    found = ranges(numbers)
    assert {n for first, last in found for n in range(first, last + 1)} == set(numbers)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(found))
