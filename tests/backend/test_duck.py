"""The embedded store in trouble: a full disk, too little memory, numbers that lie."""

import asyncio
import contextlib
import os
import subprocess
import threading
import time
from collections import Counter
from typing import Any

import duckdb
import numpy as np
import pytest

from duha_backend.books import Books
from duha_backend.duck import DuckReadings
from duha_backend.errors import StoreDown
from duha_backend.ingest import Ingest
from duha_backend.readings import (
    DAY_MS,
    FRAME_ROWS,
    QUARTER_MS,
    Curve,
    Retention,
    length,
)
from duha_backend.registry import Registry
from duha_backend.validate import Columns, Examined
from duha_contract.clock import Clock
from duha_contract.messages import Batch, Table, encode

DAY = 1_799_971_200_000  # midnight UTC
T0 = DAY + 8 * 3_600_000
T_NOW = round(time.time() * 1000) - 60_000
FOREVER = Retention(raw=None, quarters=None, days=None)


def lamps(seq, ts=T0, devices=("L1", "L2"), power=30.0, controller="RVO-001"):
    n = len(devices)
    columns = {
        "device": devices, "ts": [ts] * n, "quality": ["good"] * n,
        "power_w": [power] * n if np.isscalar(power) else power,
    }  # fmt: skip
    batch = Batch(1, "boot", "box", seq, "trusted")
    return Examined(controller, batch, [Columns.of("luminaire", columns)])


@pytest.fixture
async def duck(tmp_path):
    made = DuckReadings(tmp_path / "readings.duckdb")
    yield made
    await made.close()


def stored(duck):
    """Readings, and different ones."""
    ask = "SELECT count(*), count(DISTINCT (device, ts)) FROM luminaire"
    return duck._ask(ask, [])[0]


# -- a number never stands for content ---------------------------------------------------


async def test_an_older_disk_image_of_a_controller_loses_nothing(tmp_path):
    """Its outbox has the same name and counts once more from a lower number."""
    path = tmp_path / "r.duckdb"
    store = DuckReadings(path)
    await store.write([lamps(n, T0 + n * 60_000) for n in range(1, 11)], T0)
    image = [lamps(n, T0 + (n + 10) * 60_000) for n in range(4, 9)]
    await store.write(image[:3], T0)
    await store.close()
    store = DuckReadings(path)  # the backend may have been started again meanwhile
    await store.write(image, T0)
    assert stored(store) == (30, 30)
    assert store.reused == Counter({"RVO-001": 2})
    await store.close()


async def test_numbers_that_another_sender_has_claimed_lose_nothing(duck):
    await duck.write([lamps(n, T0 + n, ("X",)) for n in range(1, 9)], T0)
    await duck.write([lamps(n, T0 + n) for n in range(1, 9)], T0)
    assert stored(duck) == (24, 24)
    assert duck.reused["RVO-001"] == 8


async def test_batches_that_are_sent_again_after_a_restart_are_no_reuse(tmp_path):
    batches = [lamps(n, T0 + n) for n in range(1, 9)]
    for _ in range(3):
        store = DuckReadings(tmp_path / "r.duckdb")
        await store.write(batches, T0)
        await store.write(batches[2:5], T0)
        assert stored(store) == (16, 16)
        assert not store.reused
        await store.close()


async def test_a_file_that_stands_for_batches_by_their_numbers_is_migrated(tmp_path):
    path = tmp_path / "r.duckdb"
    store = DuckReadings(path)
    await store.write([lamps(1), lamps(2, T0 + 1)], T0)
    await store.close()
    with duckdb.connect(str(path)) as old:
        old.execute("ALTER TABLE held DROP COLUMN oldest")
        old.execute("ALTER TABLE luminaire_15m DROP COLUMN power_w_n")
    store = DuckReadings(path)
    await store.write([lamps(1), lamps(2, T0 + 1), lamps(2, T0 - 5)], T0)
    await store.roll("luminaire", "15m", T0)
    assert stored(store) == (6, 6)
    assert store.reused == Counter({"RVO-001": 1})
    await store.close()


async def test_writing_stays_cheap_after_a_time_of_the_far_future(duck):
    """Only what falls into times that are stored is compared with what is stored."""
    await duck.write([lamps(1, T0 + 70 * 365 * DAY_MS)], T0)
    for n in range(2, 20):
        found = duck._held.sort([lamps(n, T0 + n * 60_000)])
        assert (len(found.fresh), len(found.known)) == (1, 0)
        await duck.write([lamps(n, T0 + n * 60_000)], T0)
    assert stored(duck) == (38, 38)


# -- trouble -----------------------------------------------------------------------------

CALLS = {
    "write": lambda s: s.write([lamps(99, T0 + 99)], T0),
    "latest": lambda s: s.latest("luminaire", 0),
    "window": lambda s: s.window("luminaire", "L1", 0, T0),
    "quarters of a window": lambda s: s.window("luminaire", "L1", 0, T0, "15m"),
    "days of a window": lambda s: s.window("luminaire", "L1", 0, T0, "1d"),
    "curve": lambda s: s.curve(Curve("luminaire", ("power_w",)), 0, T0, "15m"),
    "rain": lambda s: s.rain(0, T0, 60_000),
    "rain_readings": lambda s: s.rain_readings(0),
    "roll": lambda s: s.roll("luminaire", "15m", T0),
    "roll of a day": lambda s: s.roll("luminaire", "1d", DAY),
    "expire": lambda s: s.expire(Retention(), T0),
    "export": lambda s: anext(s.export("luminaire", T0, T0 + 1)),
    "quarters": lambda s: anext(s.quarters("luminaire", T0, T0 + 1)),
    "counts": lambda s: s.counts(),
    "put": lambda s: s.put("catchment", frame()),
}


def frame():
    return {
        "device": np.array(["K1"], dtype=object),
        "ts": np.array([T0]),
        "controller": np.array(["city"], dtype=object),
        "quality": np.array(["good"], dtype=object),
        "rain_mm": np.array([1.0]),
        "runoff_l_s": np.array([1.0]),
    }


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_says_that_the_store_is_down_and_works_again(duck, name):
    """DuckDB gives its database up: each call says so in one way, and the next works."""
    await duck.write([lamps(1)], T0)
    await duck.roll("luminaire", "15m", T0)
    tables = [row[0] for row in duck._ask("SELECT table_name FROM duckdb_tables()", [])]
    wanted = [t for t in tables if t.startswith(("luminaire", "rain_gauge", "catch"))]
    for table in wanted:
        duck._db.execute(f"ALTER TABLE {table} RENAME TO away_{table}")
    if name != "counts":
        with pytest.raises(StoreDown):
            await CALLS[name](duck)
    for table in wanted:
        duck._db.execute(f"ALTER TABLE away_{table} RENAME TO {table}")
    duck._db.close()  # as if it had been declared invalid
    with contextlib.suppress(StoreDown):
        await CALLS[name](duck)
    await CALLS[name](duck)


async def test_a_backup_that_cannot_be_written_is_said(duck, tmp_path):
    await duck.write([lamps(1)], T0)
    with pytest.raises(StoreDown):
        await duck.backup(tmp_path / "is not there")
    assert await duck.backup(_made(tmp_path / "there")) == "readings.duckdb"


def _made(folder):
    folder.mkdir()
    return folder


async def test_a_file_that_another_process_has_is_said_in_a_sentence(tmp_path):
    (tmp_path / "r.duckdb").write_bytes(b"no database at all" * 1000)
    with pytest.raises(StoreDown, match=r"r\.duckdb"):
        DuckReadings(tmp_path / "r.duckdb")


async def test_too_little_memory_to_sort_leaves_the_quarter_worked_out(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("duha_backend.duck._GROUP_ROWS", 50)
    store = DuckReadings(tmp_path / "r.duckdb", memory_mib=64)
    devices = [f"L{n:05d}" for n in range(20_000)]
    for n in range(60):
        power = np.random.default_rng(n).uniform(0, 90, len(devices))
        batch = lamps(n + 1, T0 + n * 60_000, devices, power)
        await store.write([batch], T0)
    store._db.execute("SET temp_directory = ''")  # nor may it use the disk
    store._db.execute("SET memory_limit = '24MiB'")
    # The hour is over: only laying it down by device needs more than there is.
    await asyncio.to_thread(store._sort, "luminaire", T0, T0 + 4 * QUARTER_MS)
    assert store.unsorted == 1
    store._db.execute("SET memory_limit = '256MiB'")
    assert stored(store) == (1_200_000, 1_200_000)
    await store.close()


async def test_it_closes_within_seconds_while_a_long_query_runs(tmp_path):
    store = DuckReadings(tmp_path / "r.duckdb")
    await store.write([lamps(1)], T0)
    slow = "SELECT sum(sqrt(a.range * b.range)) FROM range(1000000) a, range(1000000) b"
    asking = asyncio.create_task(store._frame(slow, []))
    while not store._active:
        await asyncio.sleep(0.01)
    began = time.monotonic()
    await store.close()
    assert time.monotonic() - began < 4
    with pytest.raises(StoreDown):
        await asking
    with pytest.raises(StoreDown, match="closed"):
        await store.counts()
    with duckdb.connect(str(tmp_path / "r.duckdb")) as plain:
        assert plain.execute("SELECT count(*) FROM luminaire").fetchall() == [(2,)]


async def test_long_questions_hold_up_no_commit(duck):
    slow = "SELECT sum(sqrt(a.range * b.range)) FROM range(1000000) a, range(1000000) b"
    asking = [asyncio.create_task(duck._frame(slow, [])) for _ in range(8)]
    await asyncio.sleep(0.2)
    async with asyncio.timeout(10):
        await duck.write([lamps(1)], T0)
    await duck.close()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(one, (StoreDown, asyncio.CancelledError)) for one in found)


async def test_frames_of_an_export_are_bounded_and_complete(duck):
    devices = [f"L{n:05d}" for n in range(15_000)]
    for n in range(3):
        await duck.write([lamps(2 * n + 1, T0 + n * 4000, devices)], T0)
    many = [f"M{n:05d}" for n in range(2 * FRAME_ROWS + 5)]  # in one instant
    await duck.write([lamps(2, T0 + 3_600_000, many)], T0)
    frames = [f async for f in duck.export("luminaire", T0 - DAY_MS, T0 + DAY_MS)]
    assert max(map(length, frames)) <= FRAME_ROWS
    rows = [pair for f in frames for pair in zip(f["ts"], f["device"], strict=True)]
    assert len(rows) == len(set(rows)) == 45_000 + len(many)
    assert rows == sorted(rows)
    await duck.roll("luminaire", "15m", T0 + 4 * QUARTER_MS)
    frames = [f async for f in duck.quarters("luminaire", T0, T0 + DAY_MS)]
    assert [length(f) for f in frames] == [FRAME_ROWS, FRAME_ROWS, 5]


async def test_the_book_of_batches_is_merged_while_batches_come(duck, monkeypatch):
    """No batch is forgotten that is stored while the book is written anew."""
    monkeypatch.setattr("duha_backend.duck._MERGE_OVER", 5)
    ended = threading.Event()

    async def write():
        for n in range(1, 120):
            await duck.write([lamps(n, T0 + n)], T0)
        ended.set()

    async def merge():
        while not ended.is_set():
            await duck.expire(FOREVER, T0)

    await asyncio.gather(write(), merge())
    await duck.close()
    store = DuckReadings(duck._path)
    assert all(store._held.has("RVO-001", "box", n) for n in range(1, 120))
    await store.write([lamps(n, T0 + n) for n in range(1, 120)], T0)
    assert stored(store) == (238, 238)
    await store.close()


async def test_what_comes_close_together_shares_a_commit(duck, tmp_path):
    registry = Registry.in_folder(tmp_path)
    acknowledged: list[object] = []

    async def acknowledge(_controller, ack):
        acknowledged.append(ack)

    duck.linger_s = 1.0
    ingest = Ingest(
        duck,
        Books(registry.engine),
        None,
        dict[str, str],
        Clock(time.time),
        acknowledge,
    )
    taking = asyncio.create_task(ingest.run())
    for n in range(1, 6):
        table = Table(
            "luminaire", ("device", "ts", "quality"), (("L1", T_NOW + n, "good"),)
        )
        batch = Batch(1, "boot", "box", n, "trusted", (table,))
        ingest.offer("duha/v1/plzen/RVO-001/data", encode(batch))
        await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        while ingest.counts.messages < 5:
            await asyncio.sleep(0.02)
    assert ingest.counts.commits == 1
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    registry.close()


# -- means -------------------------------------------------------------------------------


async def test_a_daily_mean_is_that_of_the_values_and_not_of_the_rows(duck):
    """A driver that answers now and then: in one quarter once, in another always."""
    chance = np.random.default_rng(5)
    given = [
        float(chance.uniform(10, 50)) if chance.random() < (m % 97) / 97 else None
        for m in range(24 * 60)
    ]
    values = [value for value in given if value is not None]
    columns: dict[str, list[Any]] = {
        "device": ["L1"] * 1440, "ts": [DAY + m * 60_000 for m in range(1440)],
        "quality": ["good"] * 1440, "power_w": list(map(float, range(1440))),
        "driver_temperature_c": given,
    }  # fmt: skip
    batch = Batch(1, "boot", "box", 1, "trusted")
    await duck.write(
        [Examined("RVO-001", batch, [Columns.of("luminaire", columns)])], DAY
    )
    for n in range(96):
        await duck.roll("luminaire", "15m", DAY + n * QUARTER_MS)
    before = await duck.window("luminaire", "L1", DAY, DAY + DAY_MS, "1d")
    await duck.roll("luminaire", "1d", DAY)
    after = await duck.window("luminaire", "L1", DAY, DAY + DAY_MS, "1d")
    for found in (before, after):
        assert found["n"].tolist() == [1440]
        assert found["power_w"][0] == pytest.approx(719.5)
        assert found["driver_temperature_c"][0] == pytest.approx(np.mean(values))
    assert not [name for name in after if name.endswith("_n")]


# -- a full disk -------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.call(command, stderr=subprocess.DEVNULL):
        pytest.skip("mounting a small tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.system
@pytest.mark.parametrize("room", [0, 300_000, 500_000])
async def test_a_disk_that_is_full_for_a_while_loses_and_doubles_nothing(
    small_disk, room
):
    """Commits, roll-ups and expiry on a real full disk, which then has room again."""
    store = DuckReadings(small_disk / "r.duckdb", memory_mib=64)
    store._db.execute("SET checkpoint_threshold = '500KiB'")
    devices = [f"L{n:04d}" for n in range(1000)]
    chance = np.random.default_rng(room)
    batches = [
        lamps(n, T0 + n * 60_000, devices, chance.uniform(0, 90, 1000))
        for n in range(1, 61)
    ]
    acknowledged = 0

    async def send(batch):
        nonlocal acknowledged
        try:
            await store.write([batch], T0)
        except StoreDown:
            return False
        acknowledged += 1
        return True

    for batch in batches[:20]:
        assert await send(batch)
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * 4096
    ballast.write_bytes(bytes(max(0, free - room)))
    refused = [batch for batch in batches[20:] if not await send(batch)]
    assert refused
    for call in (
        lambda: store.roll("luminaire", "15m", T0),
        lambda: store.roll("luminaire", "1d", DAY),
        lambda: store.expire(FOREVER, T0),
        lambda: store.latest("luminaire", 0),
    ):
        with contextlib.suppress(StoreDown):
            await call()
    ballast.unlink()
    for _ in range(20):  # as a controller does: until it is acknowledged
        refused = [batch for batch in refused if not await send(batch)]
        if not refused:
            break
        await asyncio.sleep(0.2)
    assert acknowledged == len(batches)
    assert stored(store) == (60_000, 60_000)
    for n in range(5):
        await store.roll("luminaire", "15m", T0 + n * QUARTER_MS)
    await store.expire(FOREVER, T0)
    await store.close()
    again = DuckReadings(small_disk / "r.duckdb")
    assert stored(again) == (60_000, 60_000)
    await again.close()
