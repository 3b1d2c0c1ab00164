"""What a backend must stand, with real processes, brokers and databases; all is counted."""

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import duckdb
import paho.mqtt.subscribe
import pytest

from duha_backend.alarms.book import Book
from duha_backend.alarms.channels import Channel
from duha_backend.alarms.deliver import Deliveries
from duha_backend.alarms.engine import News
from duha_backend.assets import parse
from duha_backend.books import Books
from duha_backend.influx import Influx, InfluxReadings
from duha_backend.rain.events import DesignRain
from duha_backend.registry import Registry
from duha_backend.runoff.live import SwmmModel
from duha_sim.load import Load
from duha_sim.sewer import sewer
from duha_sim.streets import generate, geojson
from tests import servers
from tests.backend.test_registry import fresh_database, stopped
from tests.system.conftest import OUTAGE_S

pytestmark = [pytest.mark.drill, pytest.mark.system, pytest.mark.timeout(900)]
KILLS = int(os.environ.get("DUHA_TEST_KILLS", "8"))
POISON = int(os.environ.get("DUHA_TEST_POISON", "20000"))
WAVE = 2000
LAMPS = 40


class Backend:
    """A process `duha backend run`."""

    def __init__(self, folder, port, *words, city="load"):
        self.log = folder / f"backend-{time.monotonic_ns()}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "duha", "backend", "run", "--city", city,
                 "--data", str(folder / "data"), "--broker", f"127.0.0.1:{port}", *words],
                stderr=log, stdout=log,
            )  # fmt: skip

    def ready(self, word="connected to"):
        until(lambda: word in self.log.read_text(), 30, self.log)
        return self

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)

    def rss_mib(self):
        with contextlib.suppress(OSError):
            for line in (
                Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            ):
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1024
        return 0.0


def until(true, seconds, what=""):
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            said = what.read_text()[-2000:] if isinstance(what, Path) else what
            raise AssertionError(f"not within {seconds} s: {said}")
        time.sleep(0.05)


@pytest.fixture
def broker(tmp_path, free_port):
    with servers.mosquitto(free_port, tmp_path, "max_queued_messages 200000"):
        yield free_port


@contextlib.contextmanager
def flowing(load, rows_per_s):
    """A load that goes on until the block is left."""
    stop = threading.Event()

    def send():
        while not stop.is_set():
            load.at_rate(rows_per_s, 1.0)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield load
    finally:
        stop.set()
        sending.join()


@pytest.fixture
def load(broker):
    made = Load(broker, 25, LAMPS)
    yield made
    made.close()


def in_duckdb(folder):
    """Rows and different rows of luminaires."""
    with duckdb.connect(str(folder / "data" / "readings.duckdb"), read_only=True) as db:
        return db.execute(
            "SELECT count(*), count(DISTINCT (device, ts)) FROM luminaire"
        ).fetchall()[0]


async def in_influx(url):
    store = InfluxReadings(Influx(url))
    counts = await store.counts()
    await store.close()
    return counts["luminaire"]


def test_ingest_is_killed_under_load(tmp_path, broker, load):
    """`kill -9` at random instants; every reading is stored, and once."""
    chance = random.Random()
    with flowing(load, 4000):
        for _ in range(KILLS):
            worker = Backend(tmp_path, broker, "--role", "ingest").ready()
            time.sleep(chance.uniform(0.0, 1.0))
            worker.kill()
    worker = Backend(tmp_path, broker, "--role", "ingest").ready()
    assert load.drain(60)
    worker.stop()
    assert in_duckdb(tmp_path) == (load.sent * LAMPS,) * 2
    assert load.sent > 50


def test_poison_is_mixed_in(tmp_path, broker, load):
    worker = Backend(tmp_path, broker, "--role", "ingest").ready()
    with flowing(load, 4000):
        registry = Registry.in_folder(tmp_path / "data")
        books = Books(registry.engine)
        # In waves: nobody sends poison again, and what is too much at once is dropped.
        for sent in range(WAVE, POISON + 1, WAVE):
            load.poison(WAVE, random.Random(sent))
            until(lambda n=sent: books.count()["quarantine"] == n, 60, worker.log)
        registry.close()
    assert load.drain(60)
    assert worker.rss_mib() < 400
    worker.stop()
    assert in_duckdb(tmp_path) == (load.sent * LAMPS,) * 2


def test_the_disk_is_full_for_a_while(tmp_path, broker, load):
    """The file may not grow any more: nothing is acknowledged, and later everything is."""
    worker = Backend(tmp_path, broker, "--role", "ingest").ready()
    with flowing(load, 4000):
        until(lambda: load.acknowledged > 20, 30, worker.log)
        before = load.acknowledged
        resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (4096, -1))
        until(lambda: "store:" in worker.log.read_text(), 30, worker.log)
        time.sleep(3)
        assert load.acknowledged - before < 100
        assert worker.process.poll() is None
        resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (-1, -1))
        until(lambda: "store: works again" in worker.log.read_text(), 60, worker.log)
    assert load.drain(60), worker.log.read_text()[-3000:]
    worker.stop()
    assert in_duckdb(tmp_path) == (load.sent * LAMPS,) * 2


def test_influxdb_is_gone_for_a_while(tmp_path, broker, load):
    port = servers.free_port()
    influx = tmp_path / "influx"
    with servers.influxd(influx, port) as url:
        init(url)
        worker = Backend(tmp_path, broker, "--role", "ingest", "--influx", url).ready()
        with flowing(load, 1000):
            until(lambda: load.acknowledged > 5, 30, worker.log)
    with flowing(load, 1000):
        time.sleep(OUTAGE_S)
        sizes = [worker.rss_mib()]
    with servers.influxd(influx, port):
        assert load.drain(120), worker.log.read_text()[-3000:]
        sizes.append(worker.rss_mib())
        assert asyncio.run(in_influx(url)) == load.sent * LAMPS
        worker.stop()
    assert max(sizes) < 400


def test_two_workers_share_and_one_dies(tmp_path, broker, load):
    with servers.influxd(tmp_path / "influx") as url:
        init(url)
        words = ("--role", "ingest", "--influx", url)
        one = Backend(tmp_path, broker, *words).ready()
        two = Backend(tmp_path, broker, *words).ready()
        with flowing(load, 4000):
            time.sleep(3)
            one.kill()
            time.sleep(2)
        assert load.drain(60), two.log.read_text()[-3000:]
        assert asyncio.run(in_influx(url)) == load.sent * LAMPS
        two.stop()


def init(url):
    words = ("backend", "init-influx", "--influx", url)
    subprocess.run(
        [sys.executable, "-m", "duha", *words], check=True, capture_output=True
    )


def test_the_leader_is_killed_and_the_other_controls(tmp_path, broker):
    """API and two controllers as processes of their own, on PostgreSQL and InfluxDB."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(servers.postgres(tmp_path / "pg"))
        influx = stack.enter_context(servers.influxd(tmp_path / "influx"))
        databases = fresh_database(server)
        stack.callback(lambda: list(databases))
        url = next(databases)
        init(influx)
        registry = Registry(url)
        found = parse(json.dumps(geojson(generate(1, 4, 1))).encode())
        registry.put_assets(found.assets, found.streets)
        token = registry.new_token("tester")
        registry.close()
        port = servers.free_port()
        words = ("--registry", url, "--influx", influx)
        api = Backend(tmp_path, broker, "--role", "api", "--port", str(port), *words, city="plzen")  # fmt: skip
        stack.callback(api.stop)
        first = Backend(tmp_path, broker, "--role", "control", *words, city="plzen")
        stack.callback(first.process.wait, 5)
        first.ready("leads now")
        second = Backend(tmp_path, broker, "--role", "control", *words, city="plzen")
        stack.callback(second.stop)
        second.ready()
        api.ready("http://")

        assert ask(port, token, "GET", "/system")["leads"] is False
        made = override(port, token, 33)
        assert retained(broker, made)["overrides"][0]["level"] == 33
        first.kill()
        made = override(port, token, 44)
        second.ready("leads now")
        after = retained(broker, made)
        assert sorted(o["level"] for o in after["overrides"]) == [33, 44]
        assert "leads now" not in api.log.read_text()


def override(port, token, level):
    body = {"target": {"kind": "city"}, "level": level, "minutes": 30}
    return ask(port, token, "POST", "/overrides", body)["id"]


def ask(port, token, method, path, body=None):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1{path}", method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def retained(port, name, seconds=30):
    """The retained document of the cabinet, as soon as it holds an override."""
    deadline = time.monotonic() + seconds
    while True:
        message = paho.mqtt.subscribe.simple(
            "duha/v1/plzen/RVO-001/desired", hostname="127.0.0.1", port=port
        )
        document = json.loads(message.payload)
        if name in [o["id"] for o in document.get("overrides", ())]:
            return document
        assert time.monotonic() < deadline, "the document was not published"
        time.sleep(0.1)


def test_what_hangs_does_not_hold_up_the_end(tmp_path, broker):
    """A webhook and a mail server that take the connection and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        (tmp_path / "data").mkdir()
        registry = Registry.in_folder(tmp_path / "data")
        web = Channel("web", "webhook", f"http://127.0.0.1:{port}/")
        mail = Channel("mail", "email", "dispatch@example.org")
        registry.save(web)
        registry.save(mail)
        queue = Deliveries(registry.engine, lambda: (web, mail), None, "x", time.time)
        Book(registry.engine).take(
            [News("lampFailure", "L1", "R1", True, 1)], queue.queue
        )
        registry.close()
        words = ("--smtp", f"127.0.0.1:{port}", "--smtp-plain")
        backend = Backend(tmp_path, broker, "--port", str(servers.free_port()), *words)
        try:
            backend.ready()
            silent.settimeout(20)
            held = [silent.accept()[0] for _ in range(2)]  # both are being told
            began = time.monotonic()
            backend.process.terminate()
            assert backend.process.wait(20) == 0
            assert time.monotonic() - began < 10
        finally:
            backend.kill()
        for connection in held:
            connection.close()


def test_a_registry_that_is_stopped_does_not_hold_up_the_end(tmp_path, broker):
    with servers.postgres(tmp_path / "pg") as url:
        backend = Backend(tmp_path, broker, "--registry", url)
        backend.ready("leads now")
        processes = stopped(url)
        try:
            for pid in processes:
                os.kill(pid, signal.SIGSTOP)
            backend.ready("does not answer")
            began = time.monotonic()
            backend.process.terminate()
            assert backend.process.wait(20) == 0
            assert time.monotonic() - began < 10
        finally:
            for pid in processes:
                os.kill(pid, signal.SIGCONT)
            backend.kill()


def test_a_registry_that_is_not_there_yet_is_waited_for(tmp_path, broker):
    port = servers.free_port()
    url = f"postgresql+psycopg://duha@127.0.0.1:{port}/postgres"
    backend = Backend(tmp_path, broker, "--registry", url)
    try:
        backend.ready("again in")
        assert backend.process.poll() is None
    finally:
        backend.stop()


def test_a_study_that_runs_does_not_hold_up_the_end_and_ends_with_it(tmp_path, broker):
    (tmp_path / "data").mkdir()
    registry = Registry.in_folder(tmp_path / "data")
    raw = sewer(300, ("A",), routing_s=1).encode()
    registry.save(SwmmModel("m", "M", raw, running=False))
    depths = ((6.0, 8.5), (10.1, 14.6), (33.0, 45.0))
    registry.save(DesignRain("d", "D", (5.0, 60.0, 1440.0), (2.0, 5.0), depths, "test"))
    token = registry.new_token("tester")
    registry.close()
    port = servers.free_port()
    backend = Backend(tmp_path, broker, "--port", str(port))
    try:
        backend.ready("http://")
        body = {"name": "s", "models": ["m"], "design": [{"table": "d"}], "tail_h": 200}
        until(lambda: ask(port, token, "GET", "/system")["leads"], 20)
        ask(port, token, "POST", "/studies", body)
        until(lambda: children(backend.process.pid), 30, backend.log)
        time.sleep(1)
        began = time.monotonic()
        ask(port, token, "GET", "/city")  # signing in waits for no study
        assert time.monotonic() - began < 3
        theirs = children(backend.process.pid)
        assert theirs
        backend.process.terminate()
        assert backend.process.wait(20) == 0
        assert time.monotonic() - began < 12
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in theirs), 20)
    finally:
        backend.kill()


def children(pid):
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(status.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found
