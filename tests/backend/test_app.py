"""The parts of a backend: one that fails or hangs leaves the others alone."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time

import httpx
import pytest
import uvicorn

from duha_backend import app
from duha_backend.alarms.book import Book
from duha_backend.alarms.engine import News
from duha_backend.alarms.parts import Parts
from duha_backend.duck import DuckReadings
from duha_backend.errors import RegistryDown, StoreDown
from duha_backend.link import Broker
from duha_backend.registry import Registry, SetAside
from duha_contract.clock import Clock
from duha_runtime.supervision import Supervisor
from tests import servers
from tests.backend.test_api import started, until
from tests.backend.test_registry import stopped


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(app, "TICK_S", 0.05)


async def test_a_part_that_fails_is_told_of_and_the_others_go_on(
    tmp_path, free_port, monkeypatch
):
    async with started(tmp_path, free_port) as api:

        def fail(*_, **__):
            raise IndexError("unforeseen")

        monkeypatch.setattr(api.backend.control.overrides, "look", fail)
        monkeypatch.setattr(api.backend.alarms, "tick", fail)

        async def told():
            failing = (await api.ask("GET", "/system"))["failing"]
            return "overrides" in failing and "alarms" in failing

        await until(told)
        seq = api.backend.live.tick_now.seq

        async def ticked():
            return api.backend.live.tick_now.seq > seq + 3

        await until(ticked)
        base = str(api.client.base_url).removesuffix("/api/v1/")
        text = (await api.client.get(f"{base}/metrics")).text
        assert 'duha_part_failing{part="overrides"} 1.0' in text
        assert 'duha_part_failures_total{part="overrides"}' in text


async def test_a_registry_that_hangs_does_not_stop_the_pages_tick(
    tmp_path, free_port, monkeypatch
):
    hanging = threading.Event()
    async with started(tmp_path, free_port) as api:
        change = api.backend.registry.change

        def hang(name):
            hanging.wait(20)
            return change(name)

        monkeypatch.setattr(api.backend.registry, "change", hang)
        await asyncio.sleep(0.3)
        seq = api.backend.live.tick_now.seq

        async def ticked():
            return api.backend.live.tick_now.seq > seq + 5

        await until(ticked)
        assert (await api.client.get("/health")).status_code == 200
        assert await api.ask("GET", "/city")  # signing in has threads of its own
        hanging.set()


@pytest.mark.parametrize("how", ["down", "hung", "broken"])
async def test_a_store_that_is_away_at_the_start_does_not_hold_it_up(
    tmp_path, free_port, monkeypatch, how
):
    monkeypatch.setattr(app, "RESTORE_S", 0.3)

    async def latest(*_):
        if how == "hung":
            await asyncio.sleep(60)
        raise StoreDown("away") if how == "down" else ZeroDivisionError

    monkeypatch.setattr(DuckReadings, "latest", latest)
    began = time.monotonic()
    async with started(tmp_path, free_port) as api:
        assert time.monotonic() - began < 10
        assert (await api.ask("GET", "/system"))["failing"] == {}


async def test_a_port_that_is_taken_ends_the_start_with_its_name(tmp_path, free_port):
    with socket.create_server(("127.0.0.1", free_port)):
        settings = app.Settings(tmp_path, Broker(port=1), port=free_port)
        backend = app.Backend(settings, Clock(time.time))
        with pytest.raises(OSError, match="in use"):
            await backend.run()


async def test_the_page_is_served_again_after_its_server_has_failed(
    tmp_path, free_port
):
    async with started(tmp_path, free_port) as api:
        api.backend.supervisor._first_pause_s = 0.05
        server = next(
            found for found in _servers() if found.started and not found.should_exit
        )
        server.should_exit = True  # it returns, although it should go on

        async def again():
            with contextlib.suppress(httpx.TransportError):
                return (await api.client.get("/health")).status_code == 200
            return False

        await until(again, 10)


def _servers():
    import gc

    return [one for one in gc.get_objects() if isinstance(one, uvicorn.Server)]


@pytest.fixture
def registry(tmp_path):
    made = Registry.in_folder(tmp_path)
    yield made
    made.close()


class Told:
    """Writes alarms into the book, and can be out of order."""

    def __init__(self, registry):
        self.book = Book(registry.engine)
        self.down = False

    async def tell(self, news):
        if self.down:
            raise RegistryDown("away")
        self.book.take(news, lambda _db, _rows: None)

    def standing(self):
        return sorted(self.book.standing())


async def test_a_failing_part_is_an_alarm_until_it_works_again(registry):
    told, supervisor = Told(registry), Supervisor()
    problems: dict[str, str] = {}
    aside: list[SetAside] = []

    def parts():
        return Parts(
            told, "backend", lambda: supervisor.failing, lambda: aside, lambda: problems
        )

    made = parts()
    supervisor.failed("link", OSError("gone"))
    aside.append(SetAside("programme", "p", "no steps"))
    problems["RVO-001"] = "too large"
    await made.tick(0)
    assert told.standing() == []  # for a moment is no alarm
    told.down = True
    with pytest.raises(RegistryDown):
        await made.tick(60_000)
    told.down = False
    await made.tick(61_000)  # what could not be written down is not lost
    assert told.standing() == [
        ("documentFailed", "backend:cabinet:RVO-001"),
        ("documentFailed", "backend:programme:p"),
        ("partFailed", "backend:link"),
    ]
    again = parts()  # after a restart, the same alarms stand
    supervisor.succeeded("link")
    aside.clear()
    await again.tick(62_000)
    await again.tick(200_000)
    assert told.standing() == [("documentFailed", "backend:cabinet:RVO-001")]


async def test_one_cause_in_many_cabinets_is_one_alarm(registry):
    told = Told(registry)
    problems = dict.fromkeys(("RVO-002", "RVO-001", "RVO-003"), "no such country 'XX'")
    parts = Parts(told, "backend", list, list, lambda: problems)
    await parts.tick(0)
    await parts.tick(60_000)
    (row,) = told.book.page(60_000)
    assert row["object"] == "backend:cabinet:RVO-001"
    assert row["detail"] == "3 cabinets: no such country 'XX'"


async def test_what_one_process_finds_another_does_not_end(registry):
    told = Told(registry)
    await told.tell([News("partFailed", "ingest:link", "", True, 0)])
    parts = Parts(told, "runoff", list, list, dict)
    await parts.tick(0)
    await parts.tick(10**9)
    assert told.standing() == [("partFailed", "ingest:link")]


@pytest.mark.system
async def test_with_a_stopped_registry_the_api_says_so_at_once_and_is_back_by_itself(
    tmp_path_factory, tmp_path, free_port, monkeypatch, caplog
):
    caplog.set_level("CRITICAL")  # a record keeps the connection of its traceback
    with servers.postgres(tmp_path_factory.mktemp("hung")) as url:
        settings = app.Settings
        monkeypatch.setattr(
            "tests.backend.test_api.Settings",
            lambda *args, **more: settings(*args, **(more | {"registry": url})),
        )
        async with started(tmp_path, free_port) as api:
            assert await api.ask("GET", "/city")
            processes = stopped(url)
            for pid in processes:
                os.kill(pid, signal.SIGSTOP)
            try:
                for _ in range(3):
                    began = time.monotonic()
                    answers = await asyncio.gather(
                        *(api.client.get("/city", timeout=30) for _ in range(20))
                    )
                    assert time.monotonic() - began < 6
                    assert {answer.status_code for answer in answers} == {503}
                    kind = answers[0].headers["content-type"]
                    assert kind == "application/problem+json"
                seq = api.backend.live.tick_now.seq
                await asyncio.sleep(1)
                assert api.backend.live.tick_now.seq > seq
            finally:
                for pid in processes:
                    os.kill(pid, signal.SIGCONT)

            async def back():
                return (await api.client.get("/city", timeout=30)).status_code == 200

            await until(back, 10)
