"""What every readings store promises, held against each of them: one suite, real servers."""

import asyncio
import contextlib
import json
import os
import resource
import uuid
from itertools import pairwise

import duckdb
import numpy as np
import pytest
from aiohttp import web

from duha_backend.duck import DuckReadings
from duha_backend.errors import Invalid, StoreDown
from duha_backend.held import include
from duha_backend.influx import Influx, InfluxReadings
from duha_backend.parquet import ParquetFile
from duha_backend.readings import (
    DAY_MS,
    QUARTER_MS,
    Curve,
    Retention,
    best_step,
    gaps,
    length,
    rows_of,
)
from duha_backend.validate import Columns, Examined
from duha_contract.messages import Batch
from duha_contract.quantities import KINDS
from tests import servers

DAY = 1_799_971_200_000  # midnight UTC
T0 = DAY + 8 * 3_600_000
FOREVER = Retention(raw=None, quarters=None, days=None)


def examined(kind, columns, seq, controller="RVO-001"):
    batch = Batch(1, "boot", "box", seq, "trusted")
    return Examined(controller, batch, [Columns.of(kind, columns)])


def lamps(seq=1, devices=("L1", "L2"), ts=T0, power=30.0, quality="good", **more):
    n = len(devices)
    columns = {
        "device": devices, "ts": [ts] * n, "quality": [quality] * n,
        "power_w": [power] * n, "level_actual_pct": [None] * n,
    }  # fmt: skip
    return examined("luminaire", columns, seq, **more)


def rain(device, ts, mm):
    columns = {"device": [device], "ts": [ts], "quality": ["good"], "rain_mm": [mm]}
    return examined("rain_gauge", columns, ts)


@pytest.fixture(scope="session")
def influx_url(tmp_path_factory):
    with servers.influxd(tmp_path_factory.mktemp("influxd")) as url:
        yield url


REMOTE = "DUHA_TEST_INFLUXDB_URL"
SERVERS = ["influxd", *([REMOTE] if REMOTE in os.environ else [])]
STORES = ["duck", *(pytest.param(name, marks=pytest.mark.system) for name in SERVERS)]


@pytest.mark.skipif(REMOTE in os.environ, reason="the whole suite runs against it")
def test_an_influxdb_2_or_3():
    pytest.skip(f"set {REMOTE} (_TOKEN, _ORG) to run the suite against one")


def judged(rows):
    """What was worked out of rain: (device, ts, rain_mm, quality)."""
    device, ts, mm, quality = (list(column) for column in zip(*rows, strict=True))
    return {
        "device": np.array(device, dtype=object),
        "ts": np.array(ts, dtype=np.int64),
        "controller": np.full(len(ts), "RVO-001", dtype=object),
        "quality": np.array(quality, dtype=object),
        "raw_mm": np.array(mm, dtype=float),
        "rain_mm": np.array(mm, dtype=float),
        "quality_index": np.ones(len(ts)),
        "flags": np.zeros(len(ts)),
        "temperature_c": np.full(len(ts), np.nan),
    }


@pytest.fixture(params=STORES)
async def store(request, tmp_path):
    """Each store in turn, empty."""
    made: DuckReadings | InfluxReadings
    if request.param == "duck":
        made = DuckReadings(tmp_path / "readings.duckdb")
    else:
        name = f"t{uuid.uuid4().hex[:8]}"
        if request.param == "influxd":
            place = Influx(request.getfixturevalue("influx_url"), database=name)
        else:
            token = os.environ.get("DUHA_TEST_INFLUXDB_TOKEN", "")
            org = os.environ.get("DUHA_TEST_INFLUXDB_ORG", "duha")
            place = Influx(os.environ[REMOTE], token, org, name)
        made = influx = InfluxReadings(place, FOREVER)
        await influx.prepare(FOREVER)
    yield made
    await made.close()


async def test_writing_twice_changes_nothing(store):
    for _ in range(3):
        await store.write([lamps(1), lamps(2, ts=T0 + 1000)], T0)
    found = await store.window("luminaire", "L1", T0, T0 + 5000)
    assert found["ts"].tolist() == [T0, T0 + 1000]
    assert (await store.counts())["luminaire"] == 4


async def test_a_reading_in_another_batch_is_the_same_reading(store):
    """A controller whose outbox was put back from a copy numbers its batches anew."""
    await store.write([lamps(1)], T0)
    await store.write([lamps(7), lamps(8, ts=T0 - 500)], T0)
    await store.write([lamps(9, ("L1", "L1"), T0 + 9)], T0)
    for device, times in (("L1", [T0 - 500, T0, T0 + 9]), ("L2", [T0 - 500, T0])):
        found = await store.window("luminaire", device, 0, T0 + 5000)
        assert found["ts"].tolist() == times


async def test_disorder_is_harmless(store):
    order = np.random.default_rng().permutation(40)
    for n in order:
        await store.write([lamps(int(n) + 1, ts=T0 + int(n) * 60_000, power=n)], T0)
        await store.write([lamps(int(n) + 1, ts=T0 + int(n) * 60_000, power=n)], T0)
    found = await store.window("luminaire", "L2", T0, T0 + DAY_MS)
    assert found["power_w"].tolist() == list(range(40))


async def test_what_had_no_value_has_none(store):
    await store.write(
        [lamps(1), lamps(2, ("L3",), power=None, quality="no_answer")], T0
    )
    rows = rows_of(await store.window("luminaire", "L3", T0, T0 + 1))
    assert len(rows) == 1
    assert rows[0]["quality"] == "no_answer"
    assert rows[0]["controller"] == "RVO-001"
    assert rows[0]["power_w"] is None
    assert set(rows[0]) == {"device", "ts", "controller", "quality"} | {
        q.name for q in KINDS["luminaire"]
    }


async def test_the_latest_reading_of_each_device(store):
    await store.write([lamps(1), lamps(2, ("L1",), T0 + 5000, 99.0)], T0)
    found = rows_of(await store.latest("luminaire", T0 - 1))
    assert {(r["device"], r["ts"], r["power_w"]) for r in found} == {
        ("L1", T0 + 5000, 99.0),
        ("L2", T0, 30.0),
    }
    assert length(await store.latest("luminaire", T0 + 6000)) == 0


async def test_a_window_has_its_first_instant_and_not_its_last(store):
    batches = [lamps(n + 1, ("L1",), T0 + n * 1000, n) for n in range(10)]
    await store.write(batches, T0)
    found = await store.window("luminaire", "L1", T0 + 1000, T0 + 9000)
    assert found["power_w"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    found = await store.window("luminaire", "L1", T0 + 1000, T0 + 9000, limit=3)
    assert found["power_w"].tolist() == [1, 2, 3]
    assert length(await store.window("luminaire", "L7", T0, T0 + 9000)) == 0


async def fill(store, minutes=90, first=1):
    """A lamp and a half: L1 answers each minute, L2 every other; powers are the minute."""
    for m in range(minutes):
        ts = T0 + m * 60_000
        devices = ("L1", "L2") if m % 2 == 0 else ("L1",)
        n = len(devices)
        columns = {
            "device": devices, "ts": [ts] * n, "quality": ["good"] * n,
            "power_w": [float(m)] * n, "energy_wh": [100.0 * m] * n,
            "level_actual_pct": [50.0] * n, "lamp_failure": [float(m == 20)] * n,
        }  # fmt: skip
        await store.write([examined("luminaire", columns, first + m)], ts)


async def test_quarters_are_the_same_before_and_after_they_are_worked_out(store):
    await fill(store)
    before = await store.window("luminaire", "L2", T0, T0 + DAY_MS, "15m")
    for n in (0, 1, 2):
        await store.roll("luminaire", "15m", T0 + n * QUARTER_MS)
    after = await store.window("luminaire", "L2", T0, T0 + DAY_MS, "15m")
    for found in (before, after):
        assert found["ts"].tolist() == [T0 + n * QUARTER_MS for n in range(6)]
        assert found["n"].tolist() == [8, 7, 8, 7, 8, 7]
        assert found["power_w"].tolist() == [7, 22, 37, 52, 67, 82]  # mean
        assert found["energy_wh"].tolist() == [
            1400,
            2800,
            4400,
            5800,
            7400,
            8800,
        ]  # last
        assert found["lamp_failure"].tolist() == [0, 1, 0, 0, 0, 0]  # worst
        assert np.isnan(found["voltage_v"]).all()


async def test_a_quarter_worked_out_anew_has_what_came_late(store):
    await fill(store, 30)
    await store.roll("luminaire", "15m", T0)
    await store.write([lamps(99, ("L1",), T0 + 30_000, 157.0)], T0)
    await store.roll("luminaire", "15m", T0)
    found = await store.window("luminaire", "L1", T0, T0 + 1, "15m")
    assert found["n"].tolist() == [16]
    assert found["power_w"].tolist() == [(sum(range(15)) + 157) / 16]


async def test_days_weigh_their_quarters(store):
    await fill(store)
    for n in range(6):
        await store.roll("luminaire", "15m", T0 + n * QUARTER_MS)
    before = await store.window("luminaire", "L2", DAY, DAY + DAY_MS, "1d")
    await store.roll("luminaire", "1d", DAY)
    after = await store.window("luminaire", "L2", DAY, DAY + DAY_MS, "1d")
    for found in (before, after):
        assert found["ts"].tolist() == [DAY]
        assert found["n"].tolist() == [45]
        assert found["power_w"].tolist() == pytest.approx([44.0])
        assert found["energy_wh"].tolist() == [8800]


async def test_a_curve_of_cabinet_and_city(store):
    await fill(store)
    other = [
        lamps(m + 1, ("M1",), T0 + m * 60_000, 10.0, controller="RVO-002")
        for m in range(30)
    ]
    await store.write(other, T0)
    for n in range(6):
        await store.roll("luminaire", "15m", T0 + n * QUARTER_MS)
    names = ("power_w", "level_actual_pct")
    city = await store.curve(Curve("luminaire", names), T0, T0 + DAY_MS, "15m")
    assert city["ts"].tolist() == [T0 + n * QUARTER_MS for n in range(6)]
    assert city["devices"].tolist() == [3, 3, 2, 2, 2, 2]
    assert city["power_w"].tolist() == [7 + 7 + 10, 22 + 22 + 10, 74, 104, 134, 164]
    assert city["level_actual_pct"].tolist()[2] == 50
    cabinet = await store.curve(
        Curve("luminaire", names, "RVO-002"), T0, T0 + DAY_MS, "15m"
    )
    assert cabinet["power_w"].tolist() == [10, 10]
    await store.roll("luminaire", "1d", DAY)
    day = await store.curve(Curve("luminaire", names), DAY, DAY + DAY_MS, "1d")
    assert day["devices"].tolist() == [3]


async def test_rain_in_bins(store):
    await store.write([rain("SR-01", DAY + m * 60_000, 0.2) for m in (1, 2, 7)], T0)
    await store.write([rain("SR-01", DAY + 9 * 60_000, 0.0)], T0)
    found = rows_of(await store.rain(DAY, DAY + 3_600_000, 300_000))
    assert [(r["device"], r["ts"] - DAY, round(r["rain_mm"], 6)) for r in found] == [
        ("SR-01", 0, 0.4),
        ("SR-01", 300_000, 0.2),
    ]
    single = await store.rain_readings(DAY + 100_000)
    assert single["ts"].tolist() == [DAY + 120_000, DAY + 420_000]
    assert length(await store.rain_readings(DAY + DAY_MS)) == 0


async def test_an_export_has_everything_once(store):
    await fill(store)
    rows = [
        row
        async for f in store.export("luminaire", T0, T0 + DAY_MS)
        for row in rows_of(f)
    ]
    assert len(rows) == len({(r["device"], r["ts"]) for r in rows}) == 90 + 45
    only = [f async for f in store.export("luminaire", T0, T0 + DAY_MS, ["L2"])]
    assert {name for f in only for name in f["device"]} == {"L2"}


async def test_quarters_of_every_device_are_given_once_they_are_worked_out(store):
    await fill(store)
    for n in range(4):
        await store.roll("luminaire", "15m", T0 + n * QUARTER_MS)
    frames = [f async for f in store.quarters("luminaire", T0, T0 + DAY_MS)]
    rows = [row for f in frames for row in rows_of(f)]
    assert {row["ts"] for row in rows} == {T0 + n * QUARTER_MS for n in range(4)}
    assert len({(row["device"], row["ts"]) for row in rows}) == len(rows)
    mine = sorted((r["ts"], r["power_w"]) for r in rows if r["device"] == "L2")
    assert [watts for _, watts in mine] == [7, 22, 37, 52]


# -- the embedded store ------------------------------------------------------------------


@pytest.fixture
async def duck(tmp_path):
    made = DuckReadings(tmp_path / "readings.duckdb")
    yield made
    with contextlib.suppress(duckdb.Error):
        await made.close()


async def test_a_failed_commit_leaves_nothing(duck):
    broken = lamps(2, ts=T0 + 1)
    broken.tables[0].values["power_w"] = np.array(["not a number"] * 2, dtype=object)
    with pytest.raises(Invalid, match="not a number"):
        await duck.write([lamps(1), broken], T0)
    assert length(await duck.latest("luminaire", 0)) == 0
    await duck.write([lamps(1)], T0)
    assert length(await duck.latest("luminaire", 0)) == 2


async def test_it_knows_after_a_restart_what_it_holds(tmp_path):
    for _ in range(3):
        store = DuckReadings(tmp_path / "r.duckdb")
        await store.write([lamps(n, ts=T0 + n) for n in (1, 2, 3)], T0)
        store._held.written = 10**6  # so that its book is written anew
        await store.expire(FOREVER, T0)
        await store.close()
    with duckdb.connect(str(tmp_path / "r.duckdb"), read_only=True) as plain:
        assert plain.execute("SELECT count(*) FROM luminaire").fetchall() == [(6,)]
        assert plain.execute("SELECT first, last FROM held WHERE kind = ''").fetchall() == [(1, 3)]  # fmt: skip


async def test_the_file_is_plain_duckdb_with_an_obvious_schema(tmp_path):
    store = DuckReadings(tmp_path / "r.duckdb")
    await store.write([lamps(1)], T0)
    await store.close()
    with duckdb.connect(str(tmp_path / "r.duckdb"), read_only=True) as plain:
        rows = plain.execute(
            "SELECT device, controller, quality, power_w, level_actual_pct,"
            " CAST(ts AS VARCHAR) FROM luminaire ORDER BY 1"
        ).fetchall()
    assert rows[0] == ("L1", "RVO-001", "good", 30.0, None, "2027-01-15 08:00:00")


async def test_a_file_of_an_earlier_version_is_brought_up_to_date(tmp_path):
    with duckdb.connect(str(tmp_path / "r.duckdb")) as old:
        old.execute(
            "CREATE TABLE luminaire (device VARCHAR, ts TIMESTAMP, controller VARCHAR,"
            " quality VARCHAR, power_w DOUBLE, PRIMARY KEY (device, ts))"
        )
        old.execute(
            "INSERT INTO luminaire VALUES ('L9', '2026-01-01', 'RVO-001', 'good', 5)"
        )
    store = DuckReadings(tmp_path / "r.duckdb")
    await store.write([lamps(1)], T0)
    found = rows_of(await store.latest("luminaire", 0))
    assert {r["device"]: r["power_w"] for r in found} == {"L9": 5, "L1": 30, "L2": 30}
    await store.close()


async def test_a_finished_hour_is_laid_down_by_device_and_stays_the_same(
    duck, monkeypatch
):
    monkeypatch.setattr("duha_backend.duck._GROUP_ROWS", 50)
    await fill(duck)
    ask = "SELECT device, epoch_ms(ts), power_w FROM luminaire"
    before = duck._ask(ask, [])
    assert [row[0] for row in before[:3]] == ["L1", "L2", "L1"]
    for n in range(4):
        await duck.roll("luminaire", "15m", T0 + n * QUARTER_MS)
    after = duck._ask(ask, [])
    assert sorted(after) == sorted(before)
    hour = [row for row in after if row[1] < T0 + 3_600_000]
    assert hour == sorted(hour)
    await duck.write([lamps(1)], T0)  # what is held is still held
    assert len(duck._ask(ask, [])) == len(before)


async def test_disk_use_stays_bounded(tmp_path):
    """Two weeks of a small town with two days kept: the file stops growing."""
    path = tmp_path / "r.duckdb"
    store = DuckReadings(path)
    devices = [f"L{n:04d}" for n in range(2000)]
    chance = np.random.default_rng()
    sizes = []
    for day in range(14):
        batches = []
        for n in range(96):
            batch = lamps(
                day * 96 + n + 1, devices, DAY + day * DAY_MS + n * QUARTER_MS
            )
            batch.tables[0].values["power_w"] = chance.uniform(0, 90, 2000)
            batches.append(batch)
        await store.write(batches, T0)
        await store.expire(Retention(raw=2), DAY + day * DAY_MS + DAY_MS)
        sizes.append(path.stat().st_size)
    assert max(sizes[7:]) <= 1.5 * max(sizes[:5])
    assert (await store.counts())["luminaire"] == 2 * 96 * 2000
    await store.close()


async def test_what_is_expired_is_gone_and_longer_steps_stay(duck):
    await fill(duck)
    await duck.roll("luminaire", "15m", T0)
    await duck.expire(Retention(raw=1), T0 + 2 * DAY_MS)
    assert length(await duck.latest("luminaire", 0)) == 0
    found = await duck.window("luminaire", "L1", T0, T0 + DAY_MS, "15m")
    assert found["n"].tolist() == [15]


async def test_a_full_disk_is_said_when_results_are_put(duck, tmp_path):
    """Models wait for the store; they would give up at DuckDB's own error."""
    rng = np.random.default_rng(3)
    n = 20_000
    frame = {
        "device": np.full(n, "K1", dtype=object),
        "ts": T0 + np.arange(n) * 60_000,
        "controller": np.full(n, "city", dtype=object),
        "quality": np.full(n, "good", dtype=object),
        "rain_mm": rng.uniform(0, 3, n),
        "runoff_l_s": rng.uniform(0, 90, n),
    }
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, unlimited[1]))
    try:
        with pytest.raises(StoreDown):
            await duck.put("catchment", frame)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    await duck.put("catchment", frame)
    found = await duck.window("catchment", "K1", T0, T0 + n * 60_000)
    assert length(found) == n


async def test_a_disk_that_was_full_is_no_end(duck, tmp_path):
    """Neither the log nor the file may grow: DuckDB gives itself up, and is opened anew."""
    devices = [f"L{n:04d}" for n in range(2000)]
    duck._db.execute("SET checkpoint_threshold = '100KiB'")
    following = 1
    for _ in range(10):
        await duck.write([lamps(following, devices, T0 + following)], T0)
        following += 1
    size = (tmp_path / "readings.duckdb").stat().st_size
    failed: set[type] = set()
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (size + 1000, 4096):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
        duck._db.execute("SET checkpoint_threshold = '100KiB'")
        try:
            for _ in range(40):
                batch = lamps(following, devices, T0 + following)
                batch.tables[0].values["power_w"] = np.random.default_rng().uniform(0, 90, 2000)  # fmt: skip
                try:
                    await duck.write([batch], T0)
                    following += 1
                except StoreDown as error:
                    failed.add(type(error.__cause__))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        for _ in range(3):
            await duck.write([lamps(following, devices, T0 + following)], T0)
            following += 1
    assert duckdb.FatalException in failed
    rows = duck._ask("SELECT count(*), count(DISTINCT (device, ts)) FROM luminaire", [])
    assert rows == [((following - 1) * 2000,) * 2]


async def test_a_backup_while_it_runs_is_whole(duck, tmp_path):
    await duck.write([lamps(1)], T0)
    (tmp_path / "copy").mkdir()
    name = await duck.backup(tmp_path / "copy")
    await duck.write([lamps(2, ts=T0 + 1)], T0)
    copy = DuckReadings(tmp_path / "copy" / name)
    assert length(await copy.window("luminaire", "L1", T0, T0 + 9)) == 1
    await copy.write([lamps(1), lamps(2, ts=T0 + 1)], T0)
    assert length(await copy.window("luminaire", "L1", T0, T0 + 9)) == 2
    await copy.close()


def test_parquet_is_read_by_anybody(tmp_path):
    frame = {
        "device": np.array(["L1", "L2"], dtype=object),
        "ts": np.array([T0, T0 + 1]),
        "power_w": np.array([1.5, np.nan]),
    }
    with contextlib.closing(ParquetFile(tmp_path)) as file:
        file.add(frame)
        file.write(tmp_path / "x.parquet")
    with duckdb.connect() as plain:
        rows = plain.execute(f"SELECT device, round(epoch(ts) * 1000), power_w FROM '{tmp_path}/x.parquet'").fetchall()  # fmt: skip
    assert rows[0] == ("L1", T0, 1.5)
    assert rows[1][:2] == ("L2", T0 + 1)


# -- InfluxDB (a real server: part of the slower tests) ----------------------------------------------------------------------------


@pytest.fixture
async def influx(influx_url):
    place = Influx(influx_url, database=f"t{uuid.uuid4().hex[:8]}")
    made = InfluxReadings(place, Retention(raw=30))
    yield made
    await made.close()


@pytest.mark.system
async def test_a_database_that_is_not_there_is_named(influx):
    with pytest.raises(StoreDown, match="init-influx") as caught:
        await influx.write([lamps(1)], T0)
    assert caught.value.after_s == 30


@pytest.mark.system
async def test_preparing_twice_is_preparing_once(influx):
    first = await influx.prepare(Retention(raw=30))
    assert await influx.prepare(Retention(raw=30)) == first
    series = await influx._server.series(
        "", f'SHOW RETENTION POLICIES ON "{influx._place.database}"'
    )
    assert series[0].values[0][1] == "720h0m0s"


@pytest.mark.system
async def test_what_is_older_than_kept_is_refused_and_the_rest_is_written(influx):
    import time

    await influx.prepare(Retention(raw=30))
    now = round(time.time() * 1000)
    old = now - 31 * DAY_MS
    rejects = await influx.write([lamps(1, ts=old), lamps(2, ts=now)], now)
    assert len(rejects) == 2
    assert "30 days" in rejects[0].reason
    # A server that keeps less than we think says so; the rest is written all the same.
    influx._retention = FOREVER
    rejects = await influx.write([lamps(3, ts=old), lamps(4, ts=now + 1)], now)
    assert {r.kind for r in rejects} == {"luminaire"}
    assert all("retention" in r.reason for r in rejects)
    assert (await influx.window("luminaire", "L1", 0, now + 9))["ts"].tolist() == [now, now + 1]  # fmt: skip


@pytest.mark.system
async def test_a_write_that_is_too_large_goes_in_parts(tmp_path):
    with servers.influxd(tmp_path, http="max-body-size = 600") as url:
        store = InfluxReadings(Influx(url), FOREVER)
        await store.prepare(FOREVER)
        chance = np.random.default_rng()
        batches = [
            lamps(n + 1, ts=T0 + n, power=chance.uniform(0, 90)) for n in range(200)
        ]
        assert await store.write(batches, T0) == []
        assert (await store.counts())["luminaire"] == 400
        await store.close()


@pytest.mark.system
async def test_a_password_that_is_not_accepted_is_an_alarm(tmp_path):
    with servers.influxd(tmp_path, http="auth-enabled = true") as url:
        right = InfluxReadings(Influx(url, "eva:příliš"), FOREVER)
        words = "CREATE USER eva WITH PASSWORD 'příliš' WITH ALL PRIVILEGES"
        await right._server.series("", words)
        wrong = InfluxReadings(Influx(url, "eva:guess"), FOREVER)
        with pytest.raises(StoreDown, match="not accepted") as caught:
            await wrong.write([lamps(1)], T0)
        await wrong.close()
        assert caught.value.after_s == 30
        assert "guess" not in str(caught.value)
        await right.prepare(FOREVER)
        assert await right.write([lamps(1)], T0) == []
        await right.close()


@pytest.mark.parametrize("version", ["1.8.10", "2.7.0"])
async def test_what_a_server_answers_decides(version, free_port):
    """Answers that no real server gives on request: 429, 503, and one bad line of many."""
    answers = [(429, "7"), (503, "")]

    async def ping(_):
        return web.Response(status=204, headers={"X-Influxdb-Version": version})

    async def write(request):
        body = await request.read()  # unzipped already
        if answers:
            status, after = answers.pop(0)
            return web.Response(status=status, headers={"Retry-After": after})
        bad = b"power_w=66 " in body
        text = '{"code":"unprocessable entity","message":"field type conflict"}'
        return web.Response(status=422, text=text) if bad else web.Response(status=204)

    app = web.Application()
    app.add_routes([web.get("/ping", ping), web.post("/{way:.*}", write)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", free_port).start()
    store = InfluxReadings(Influx(f"http://127.0.0.1:{free_port}", "t"), FOREVER)
    for wait in (7, 1):
        with pytest.raises(StoreDown) as caught:
            await store.write([lamps(1)], T0)
        assert caught.value.after_s == wait
    batches = [lamps(n, ("L1",), T0 + n, float(n)) for n in range(60, 70)]
    (reject,) = await store.write(batches, T0)
    assert "field type conflict" in reject.reason
    assert (reject.kind, reject.controller) == ("luminaire", "RVO-001")
    assert json.loads(reject.raw) == {
        "device": "L1", "ts": T0 + 66, "quality": "good", "power_w": 66.0,
    }  # fmt: skip
    await store.close()
    await runner.cleanup()


async def test_a_server_that_is_not_there_is_down():
    store = InfluxReadings(Influx("http://127.0.0.1:1"))
    with pytest.raises(StoreDown, match=r"127\.0\.0\.1:1"):
        await store.write([lamps(1)], T0)
    await store.close()


@pytest.mark.system
async def test_victoria_metrics_takes_the_same_lines(tmp_path):
    """The way of 2.x and 3.x to another server that speaks it."""
    import time
    import urllib.request

    now = round(time.time() * 1000) - 60_000
    with servers.victoria_metrics(tmp_path / "vm") as url:
        store = InfluxReadings(Influx(url, "token", "org", "duha"), FOREVER)
        assert (
            await store.write([lamps(n + 1, ts=now + n) for n in range(50)], now) == []
        )
        await store.close()
        urllib.request.urlopen(f"{url}/internal/force_flush", timeout=5).close()
        query = f"{url}/api/v1/export?match[]=luminaire_power_w"
        with urllib.request.urlopen(query, timeout=5) as answer:
            series = [json.loads(line) for line in answer]
    assert sorted(s["metric"]["device"] for s in series) == ["L1", "L2"]
    assert all(len(s["timestamps"]) == 50 for s in series)


# -- arithmetic --------------------------------------------------------------------------


def test_gaps():
    times = np.array([10, 20, 60, 70])
    assert gaps(times, 0, 100, 15) == [(20, 60), (70, 100)]
    assert gaps(np.array([], dtype=np.int64), 0, 100, 15) == [(0, 100)]


def test_the_step_that_draws_a_span():
    assert best_step(0, 3_600_000) == "raw"
    assert best_step(0, 30 * DAY_MS) == "15m"
    assert best_step(0, 365 * DAY_MS) == "1d"


def test_ranges_are_joined():
    chance = np.random.default_rng()
    numbers = chance.permutation(200)[:150].tolist()
    ranges: list[list[int]] = []
    for n in numbers:
        include(ranges, n, n)
    assert {n for a, b in ranges for n in range(a, b + 1)} == set(numbers)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))


# -- what was worked out -------------------------------------------------------------------


async def test_what_was_worked_out_is_replaced_by_what_is_put_last(store):
    minute = 60_000
    first = [("G1", T0 + k * minute, 0.2, "good") for k in range(10)]
    await store.put("rain", judged([*first, ("G2", T0, 0.4, "good")]))
    again = [("G1", T0 + k * minute, 0.5, "filled") for k in range(2, 5)]
    await store.put("rain", judged(again))
    frame = await store.window("rain", "G1", T0, T0 + 10 * minute)
    rows = rows_of(frame)
    assert [row["rain_mm"] for row in rows] == [0.2, 0.2, 0.5, 0.5, 0.5, *[0.2] * 5]
    assert [row["quality"] for row in rows][2:5] == ["filled"] * 3
    assert [
        row["rain_mm"]
        for row in rows_of(await store.window("rain", "G2", T0, T0 + minute))
    ] == [0.4]
    latest = {
        row["device"]: row["ts"] for row in rows_of(await store.latest("rain", T0))
    }
    assert latest == {"G1": T0 + 9 * minute, "G2": T0}
    sums = await store.rain(T0, T0 + 10 * minute, 5 * minute, "rain")
    found = {(r["device"], r["ts"]): r["rain_mm"] for r in rows_of(sums)}
    assert found[("G1", T0)] == pytest.approx(1.9)
    assert found[("G2", T0)] == pytest.approx(0.4)
    exported = [f async for f in store.export("rain", T0, T0 + 10 * minute)]
    assert sum(length(frame) for frame in exported) == 11
    assert (await store.counts())["rain"] >= 11


async def test_floats_come_back_to_the_last_bit(store):
    value = 0.1 + 0.2 + 1e-13
    await store.put("rain", judged([("G1", T0, value, "good")]))
    frame = await store.window("rain", "G1", T0, T0 + 1)
    assert frame["rain_mm"][0] == value


async def test_judged_rain_outlives_raw_readings(tmp_path):
    store = DuckReadings(tmp_path / "readings.duckdb")
    await store.write([rain("G1", T0, 0.2)], T0)
    await store.put("rain", judged([("G1", T0, 0.2, "good")]))
    await store.expire(Retention(raw=31, quarters=1100, days=None), T0 + 2000 * DAY_MS)
    assert length(await store.window("rain_gauge", "G1", T0 - 1, T0 + 1)) == 0
    assert length(await store.window("rain", "G1", T0 - 1, T0 + 1)) == 1
    await store.close()


async def test_a_download_that_is_cancelled_lets_go_of_the_store(tmp_path):
    store = DuckReadings(tmp_path / "readings.duckdb")
    n = 200_000
    frame = judged([("G1", T0, 0.2, "good")])
    many = {name: np.repeat(column, n) for name, column in frame.items()}
    many["ts"] = T0 + np.arange(n)
    await store.put("rain", many)

    async def everything():
        return [f async for f in store.export("rain", T0, T0 + n)]

    for wait in np.linspace(0, 0.15, 12):
        task = asyncio.create_task(everything())
        await asyncio.sleep(wait)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert sum(length(frame) for frame in await everything()) == n
    await store.close()
