"""InfluxDB in trouble, and 2.x as its documents say that it answers."""

import asyncio
import gzip
import json
import re
import signal
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from duha_backend import influx_server
from duha_backend.errors import BackendError, Invalid, StoreDown
from duha_backend.influx import Influx, InfluxReadings
from duha_backend.readings import DAY_MS, Curve, Retention, length
from duha_backend.validate import Columns, Examined
from duha_contract.messages import Batch
from tests import servers

T0 = 1_800_000_000_000
FOREVER = Retention(raw=None, quarters=None, days=None)


def lamps(seq, ts=T0, devices=("L1", "L2"), power=30.0):
    n = len(devices)
    columns = {
        "device": devices, "ts": [ts] * n, "quality": ["good"] * n,
        "power_w": [power] * n,
    }  # fmt: skip
    batch = Batch(1, "boot", "box", seq, "trusted")
    return Examined("RVO-001", batch, [Columns.of("luminaire", columns)])


class Two:
    """A server that answers as the documents of InfluxDB 2.7 say.

    `own` is the organisation of the token: the one that InfluxQL asks in.
    """

    def __init__(self, *orgs, own="duha"):
        self.orgs = {name: f"id-of-{name}" for name in orgs}
        self.own = own
        self.buckets: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.requests: list[str] = []
        self.oldest_ms = 0
        self.answer = None

    def routes(self):
        return [
            web.get("/ping", self.ping), web.get("/api/v2/orgs", self.find_org),
            web.get("/api/v2/buckets", self.find_bucket),
            web.post("/api/v2/buckets", self.make_bucket),
            web.patch("/api/v2/buckets/{id}", self.change_bucket),
            web.post("/api/v2/write", self.write), web.get("/query", self.query),
        ]  # fmt: skip

    async def ping(self, _):
        return web.Response(status=204, headers={"X-Influxdb-Version": "v2.7.12"})

    async def find_org(self, request):
        name = request.query["org"]
        if name not in self.orgs:
            said = {
                "code": "not found",
                "message": f'organization name "{name}" not found',
            }
            return web.json_response(said, status=404)
        return web.json_response({"orgs": [{"id": self.orgs[name], "name": name}]})

    async def find_bucket(self, request):
        wanted = dict(request.query)
        found = [b for b in self.buckets if all(b[k] == v for k, v in wanted.items())]
        return web.json_response({"buckets": found})

    async def make_bucket(self, request):
        bucket = await request.json()
        self.buckets.append(bucket | {"id": str(len(self.buckets))})
        return web.json_response(self.buckets[-1], status=201)

    async def change_bucket(self, request):
        bucket = self.buckets[int(request.match_info["id"])]
        rules = (await request.json())["retentionRules"]
        if rules:  # an empty list is the same as none
            rule = bucket["retentionRules"][0] | rules[0]
            if (
                rule["everySeconds"]
                and rule["shardGroupDurationSeconds"] > rule["everySeconds"]
            ):
                said = "shard-group duration must also be updated to be smaller"
                return web.json_response({"message": said}, status=422)
            bucket["retentionRules"] = [rule]
        return web.json_response(bucket)

    async def write(self, request):
        self.requests.append(request.query["bucket"])
        if request.query["org"] not in self.orgs:
            said = f'organization name "{request.query["org"]}" not found'
            return web.json_response({"code": "not found", "message": said}, status=404)
        given = (await request.read()).decode().split("\n")  # unzipped already
        old = [line for line in given if int(line.split()[-1]) < self.oldest_ms]
        self.lines += [line for line in given if line not in old]
        if not old:
            return web.Response(status=204)
        said = (
            f"failure writing points to database: partial write: dropped {len(old)} points"
            f" outside retention policy of duration 168h0m0s - oldest point {old[0]}"
        )
        return web.json_response(
            {"code": "unprocessable entity", "message": said}, status=422
        )

    async def query(self, request):
        if self.answer is not None:
            return web.Response(**self.answer)
        known = [b for b in self.buckets if b["orgID"] == self.orgs.get(self.own)]
        if request.query["db"] not in [b["name"] for b in known]:
            said = f"database not found: {request.query['db']}"
            return web.json_response({"results": [{"statement_id": 0, "error": said}]})
        return web.json_response({"results": [{"statement_id": 0}]})


@pytest.fixture
async def serve(free_port):
    """Serve a `Two`, in a thread of its own; returns a store on it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made: list[Any] = []

    async def listen(two):
        app = web.Application()
        app.add_routes(two.routes())
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", free_port).start()
        return runner

    async def begin(two, retention=FOREVER, org="duha"):
        runner = asyncio.run_coroutine_threadsafe(listen(two), loop).result(5)
        url = f"http://127.0.0.1:{free_port}"
        made.extend((runner, InfluxReadings(Influx(url, "token", org), retention)))
        return made[1]

    yield begin
    await made[1].close()
    asyncio.run_coroutine_threadsafe(made[0].cleanup(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def keeps(two, org):
    """Seconds that an organisation's buckets keep readings."""
    return {
        b["name"]: b["retentionRules"][0]["everySeconds"]
        for b in two.buckets
        if b["orgID"] == two.orgs[org]
    }


# -- init-influx on 2.x ------------------------------------------------------------------


async def test_buckets_of_another_organisation_are_left_alone(serve):
    two = Two("duha", "other", own="other")
    rule = {"type": "expire", "everySeconds": 31 * 86_400, "shardGroupDurationSeconds": 86_400}  # fmt: skip
    theirs = {"id": "0", "name": "duha", "orgID": two.orgs["duha"], "retentionRules": [rule]}  # fmt: skip
    two.buckets = [theirs]
    store = await serve(two, org="other")
    await store.prepare(Retention(raw=7))
    assert keeps(two, "duha") == {"duha": 31 * 86_400}
    assert keeps(two, "other") == {
        "duha": 7 * 86_400, "duha_15m": 1100 * 86_400, "duha_1d": 0,
    }  # fmt: skip


async def test_for_ever_after_a_duration_is_for_ever(serve):
    two = Two("duha")
    store = await serve(two)
    await store.prepare(Retention(raw=31))
    assert keeps(two, "duha")["duha"] == 31 * 86_400
    done = await store.prepare(Retention(raw=None))
    assert keeps(two, "duha")["duha"] == 0
    assert "duha: kept for ever" in done


async def test_a_short_retention_takes_its_shards_with_it(serve):
    two = Two("duha")
    store = await serve(two)
    for days, shard in ((None, 7 * 86_400), (3, 86_400), (1, 3600), (400, 7 * 86_400)):
        await store.prepare(Retention(raw=days))
        (rule,) = two.buckets[0]["retentionRules"]
        assert rule["everySeconds"] == (days or 0) * 86_400
        assert rule["shardGroupDurationSeconds"] == shard


async def test_a_bucket_that_keeps_something_else_is_no_success(serve):
    two = Two("duha")
    store = await serve(two)
    await store.prepare(FOREVER)
    two.buckets[0]["retentionRules"][0]["everySeconds"] = 60
    store._server.json = _answering(store._server.json, two.buckets[0])
    with pytest.raises(StoreDown, match="keeps readings for 60 s"):
        await store.prepare(FOREVER)


def _answering(asked, changed):
    async def answer(method, path, parameters, body=None):
        if method == "PATCH":
            return changed
        return await asked(method, path, parameters, body)

    return answer


async def test_an_organisation_that_is_not_there_is_named(serve):
    two = Two("duha")
    store = await serve(two, org="ostrava")
    with pytest.raises(Invalid, match=r"no organisation 'ostrava'.*--influx-org"):
        await store.prepare(FOREVER)
    assert two.buckets == []
    with pytest.raises(StoreDown, match=r"no organisation 'ostrava'") as caught:
        await store.write([lamps(1)], T0)
    assert caught.value.after_s == 30


async def test_a_token_of_another_organisation_is_noticed(serve):
    store = await serve(Two("duha", "other", own="duha"), org="other")
    with pytest.raises(Invalid, match="writes into organisation 'other' but reads"):
        await store.prepare(FOREVER)


# -- writing to 2.x ----------------------------------------------------------------------


async def test_readings_that_the_server_no_longer_keeps_cost_one_request(serve):
    two = Two("duha")
    two.oldest_ms = T0 + 600
    store = await serve(two)
    batches = [lamps(n + 1, T0 + (n * 7919) % 1000) for n in range(1000)]
    rejects = await store.write(batches, T0)
    assert len(two.requests) == 1
    assert len(two.lines) == 2 * 400
    assert len(rejects) == 2 * 600
    assert {json.loads(r.raw)["ts"] for r in rejects} == set(range(T0, T0 + 600))
    assert rejects[0].reason.startswith("InfluxDB: 422 failure writing points")
    assert "b'" not in rejects[0].reason
    assert len(rejects[0].reason) < 400
    assert len(await store.write([lamps(1), lamps(2, T0 + 1)], T0)) == 4
    assert len(two.requests) == 2


async def test_a_write_is_packed_at_the_lowest_level(serve, monkeypatch):
    used = []

    def noted(data, compresslevel):
        used.append(compresslevel)
        return real(data, compresslevel)

    real = gzip.compress
    monkeypatch.setattr("duha_backend.lines.gzip.compress", noted)
    two = Two("duha")
    store = await serve(two)
    await store.write([lamps(1)], T0)
    assert used == [1]
    assert two.lines[0] == f'luminaire,controller=RVO-001,device=L1 quality="good",power_w=30 {T0}'  # fmt: skip


CALLS = {
    "write": lambda s: s.write([lamps(1)], T0),
    "latest": lambda s: s.latest("luminaire", 0),
    "window": lambda s: s.window("luminaire", "L1", 0, T0),
    "quarters of a window": lambda s: s.window("luminaire", "L1", 0, T0, "15m"),
    "curve": lambda s: s.curve(Curve("luminaire", ("power_w",)), 0, T0, "15m"),
    "rain": lambda s: s.rain(0, T0, 60_000),
    "rain_readings": lambda s: s.rain_readings(0),
    "roll": lambda s: s.roll("luminaire", "15m", T0),
    "export": lambda s: anext(s.export("luminaire", T0, T0 + 1)),
    "quarters": lambda s: anext(s.quarters("luminaire", T0, T0 + 1)),
    "counts": lambda s: s.counts(),
    "prepare": lambda s: s.prepare(FOREVER),
}
NONSENSE = (
    b"", b"<html>", b"[1]", b"17", b'"results"', b'{"results": 5}', b"\xff\xfe",
    b'{"results": [{"series": [{"values": 3}]}]}', b'{"results": [null]}',
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CALLS if name != "write"])
async def test_an_answer_that_makes_no_sense_is_a_store_that_is_down(serve, name):
    two = Two("duha")
    store = await serve(two)
    for body in NONSENSE:
        two.answer = {"body": body}
        try:
            await asyncio.wait_for(CALLS[name](store), 5)
        except (BackendError, StopAsyncIteration):
            continue
        assert body in (b"", b'{"results": [{}]}') or name == "prepare"


@pytest.mark.parametrize("name", CALLS)
async def test_a_server_that_ends_in_mid_answer_is_down(name, free_port):
    async def cut(reader, writer):
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        writer.close()

    async with await asyncio.start_server(cut, "127.0.0.1", free_port):
        store = InfluxReadings(Influx(f"http://127.0.0.1:{free_port}"), FOREVER)
        with pytest.raises(StoreDown):
            await CALLS[name](store)
        await store.close()


# -- a server that hangs -----------------------------------------------------------------


async def test_a_server_that_takes_long_and_lives_is_waited_for(serve, monkeypatch):
    monkeypatch.setattr(influx_server, "PATIENCE_S", 0.05)
    two = Two("duha")
    store = await serve(two)
    await store.prepare(FOREVER)
    quick = two.query

    async def slow(request):
        await asyncio.sleep(0.6)
        return await quick(request)

    vars(two)["query"] = slow
    assert length(await store.latest("luminaire", 0)) == 0


@pytest.fixture
def hanging(tmp_path):
    """A real InfluxDB 1.x that can be stopped; its URL and its process."""
    with servers.influxd_process(tmp_path / "influxd") as (url, process):
        yield url, process
        process.send_signal(signal.SIGCONT)


def stop(process):
    """Stop a server; the signal takes a moment to reach its threads."""
    process.send_signal(signal.SIGSTOP)
    while "T (stopped)" not in Path(f"/proc/{process.pid}/status").read_text():
        time.sleep(0.01)


@pytest.mark.system
async def test_a_server_that_hangs_is_down_within_seconds_and_recovers(hanging):
    url, process = hanging
    store = InfluxReadings(Influx(url), FOREVER)
    await store.prepare(FOREVER)
    await store.write([lamps(1)], T0)
    stop(process)
    began = time.monotonic()
    ends = await asyncio.gather(
        *(CALLS[name](store) for name in CALLS), return_exceptions=True
    )
    assert {type(end) for end in ends} == {StoreDown}
    assert time.monotonic() - began < 15
    process.send_signal(signal.SIGCONT)
    began = time.monotonic()
    while True:
        try:
            await store.write([lamps(2, T0 + 1)], T0)
            break
        except StoreDown:
            assert time.monotonic() - began < 20
            await asyncio.sleep(0.2)
    found = await store.window("luminaire", "L1", T0, T0 + 5)
    assert found["ts"].tolist() == [T0, T0 + 1]
    await store.close()


@pytest.mark.system
async def test_closing_ends_a_question_that_hangs(hanging):
    url, process = hanging
    store = InfluxReadings(Influx(url), FOREVER)
    await store.prepare(FOREVER)
    stop(process)
    asking = asyncio.create_task(store.latest("luminaire", 0))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await store.close()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert time.monotonic() - began < 5


# -- large answers, on a real server -----------------------------------------------------


@pytest.fixture(scope="module")
def influx_url(tmp_path_factory):
    with servers.influxd(tmp_path_factory.mktemp("influxd")) as url:
        yield url


@pytest.fixture
async def influx(influx_url):
    place = Influx(influx_url, database=f"t{uuid.uuid4().hex[:8]}")
    made = InfluxReadings(place, FOREVER)
    await made.prepare(FOREVER)
    yield made
    await made.close()


@pytest.mark.system
async def test_frames_of_an_export_are_bounded_and_the_loop_is_free(
    influx, monkeypatch
):
    for module in ("readings", "frames", "influx_server"):
        monkeypatch.setattr(f"duha_backend.{module}.FRAME_ROWS", 4000)
    devices = [f"L{n:05d}" for n in range(3000)]
    for n in range(3):
        await influx.write([lamps(n + 1, T0 + n * 4000, devices)], T0)
    many = [f"L{n:05d}" for n in range(8005)]  # in one instant
    await influx.write([lamps(9, T0 + 3_600_000, many)], T0)
    waits: list[float] = []

    async def look():
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            waits.append(time.monotonic() - began - 0.005)

    looking = asyncio.create_task(look())
    frames = [f async for f in influx.export("luminaire", T0 - DAY_MS, T0 + DAY_MS)]
    await influx.roll("luminaire", "15m", (T0 // 900_000) * 900_000)
    looking.cancel()
    assert max(map(length, frames)) <= 4000
    rows = [pair for f in frames for pair in zip(f["ts"], f["device"], strict=True)]
    assert len(rows) == len(set(rows)) == 9000 + len(many)
    assert sorted(waits)[int(0.95 * len(waits))] < 0.05


@pytest.mark.system
async def test_a_retention_shorter_than_a_shard_is_taken(influx):
    for days, hours in ((3, "72h0m0s"), (1, "24h0m0s"), (None, "0s")):
        await influx.prepare(Retention(raw=days))
        query = f'SHOW RETENTION POLICIES ON "{influx._place.database}"'
        (series,) = await influx._server.series("", query)
        assert series.values[0][1] == hours


@pytest.mark.system
async def test_readings_older_than_a_real_server_keeps_cost_one_request(influx):
    now = round(time.time() * 1000)
    await influx.prepare(Retention(raw=3))
    posts = []
    ask = influx._server.ask

    async def counted(method, path, *more):
        posts.append(path)
        return await ask(method, path, *more)

    influx._server.ask = counted
    batches = [lamps(n + 1, now - (n % 2) * 5 * DAY_MS - n) for n in range(200)]
    rejects = await influx.write(batches, now)
    assert len(rejects) == 200
    assert posts.count("/write") == 1
    assert {json.loads(r.raw)["ts"] for r in rejects} == {
        now - 5 * DAY_MS - n for n in range(1, 200, 2)
    }
    assert (await influx.counts())["luminaire"] == 200
    assert re.match("InfluxDB: 400 partial write", rejects[0].reason)


@pytest.mark.system
async def test_a_daily_mean_on_influxdb_is_that_of_the_values(influx):
    day = T0 // DAY_MS * DAY_MS
    values = []
    for quarter in range(4):
        for m in range(15):
            ts = day + quarter * 900_000 + m * 60_000
            some = float(quarter * 10 + m) if m < 1 + 4 * quarter else None
            columns: dict[str, list[Any]] = {
                "device": ["L1"], "ts": [ts], "quality": ["good"], "power_w": [5.0],
                "driver_temperature_c": [some],
            }  # fmt: skip
            batch = Batch(1, "boot", "box", 1, "trusted")
            await influx.write([Examined("RVO-001", batch, [Columns.of("luminaire", columns)])], ts)  # fmt: skip
            values += [some] if some is not None else []
        await influx.roll("luminaire", "15m", day + quarter * 900_000)
    before = await influx.window("luminaire", "L1", day, day + DAY_MS, "1d")
    await influx.roll("luminaire", "1d", day)
    after = await influx.window("luminaire", "L1", day, day + DAY_MS, "1d")
    for found in (before, after):
        assert found["n"].tolist() == [60]
        mean = sum(values) / len(values)
        assert found["driver_temperature_c"][0] == pytest.approx(mean)
        assert not [name for name in found if name.endswith("_n")]
