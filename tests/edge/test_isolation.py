"""A part of the agent that fails is reported and started again; the others go on."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest

from duha_contract.clock import Clock
from duha_contract.lighting import Override
from duha_contract.messages import Batch, Desired, Status, decode, encode
from duha_contract.programmes import Place
from duha_edge import control, document_queue, executor
from duha_edge.agent import Agent
from duha_edge.control import truncated
from duha_edge.errors import ConfigError, OutboxError
from duha_edge.site import Source
from duha_sim.city import SimulatedCity
from duha_sim.storm import Replay
from duha_sim.streets import generate
from duha_sim.trouble import Troubles

SITE = """
[site]
city = "plzen"
controller = "RVO-001"
latitude = 49.7475
longitude = 13.3776
zone = "Europe/Prague"
period_s = 0.2
data = "{folder}/agent"
[broker]
port = 1
password_file = "{folder}/password"
"""
LINE = """
[[bus]]
name = "line{n}"
type = "tcp"
host = "127.0.0.1"
port = {port}
[[device]]
id = "L{n}"
bus = "line{n}"
unit = {n}
profile = "luminaire-generic"
writes = ["level_in_effect_pct"]
"""
PLZEN = Place(49.7475, 13.3776, "Europe/Prague")
NIGHT = 1_795_561_200.0  # 2026-11-24 23:00 in Plzeň


class Cabinet:
    """An agent with two lines, a lamp on each, and no broker."""

    def __init__(self, agent, city):
        self.agent = agent
        self.city = city

    def level(self, number):
        lamp = self.city.luminaires[f"RVO-001-L00{number}"].lamp
        return round(lamp.setpoint * 100)

    def batches(self):
        return [decode(b.payload, Batch) for b in self.agent.outbox.due((), 0, 10_000)]

    def events(self):
        return [event for batch in self.batches() for event in batch.events]

    def codes(self):
        return [event.code for event in self.events()]

    def reports(self):
        return [report for batch in self.batches() for report in batch.reports]

    def read(self, device):
        """How often a device has been read well."""
        tables = [table for batch in self.batches() for table in batch.tables]
        rows = [row for table in tables for row in table.rows]
        return sum(row[0] == device and row[2] == "good" for row in rows)

    def alarmed(self, *words):
        """Whether one alarm holds all of these words."""
        alarms = self.agent.status().alarms
        return any(all(word in alarm for word in words) for alarm in alarms)


@contextlib.asynccontextmanager
async def cabinet(folder, before=lambda _: None):
    (folder / "password").write_text("secret", "utf-8")
    city = SimulatedCity(
        generate(1, 2, 1, rtu=0), Clock(time.time), Replay((0.0,), (0.0,)),
        Troubles(folder / "trouble.json"), folder,
    )  # fmt: skip
    await city.start()
    port = city.ports["RVO-001", "line1"]
    lines = "".join(LINE.format(n=n, port=port) for n in (1, 2))
    (folder / "site.toml").write_text(SITE.format(folder=folder) + lines, "utf-8")
    source = Source(folder / "site.toml")
    began = time.time()
    agent = Agent(source.load(), Clock(lambda: NIGHT + time.time() - began), source)
    agent.parts._first_pause_s, agent.parts._healthy_s = 0.1, 0.4
    before(agent)
    running = asyncio.create_task(agent.run())
    try:
        yield Cabinet(agent, city)
        assert not running.done()
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await city.close()
        await asyncio.sleep(0.02)


async def until(so):
    async with asyncio.timeout(10):
        while not so():
            await asyncio.sleep(0.02)


def dimmed(level, revision=1, term=0):
    start, end = round(NIGHT * 1000) - 1000, round(NIGHT * 1000) + 10_000_000
    return Desired(
        1, revision, f"h{level}", 0, PLZEN, term=term,
        overrides=(Override("o", level, start, end),),
    )  # fmt: skip


async def test_a_line_that_fails_is_an_alarm_and_the_other_goes_on(tmp_path):
    async with cabinet(tmp_path) as made:
        line = made.agent.lines["line1"]
        healthy = line.cycle

        async def broken():
            raise ZeroDivisionError("a bug")

        await until(lambda: made.read("L1"))
        line.cycle = broken
        await until(lambda: made.alarmed("part line line1 failed", "a bug"))
        before = made.read("L2")
        made.agent.documents.submit(dimmed(50))
        await until(lambda: made.level(1) == made.level(2) == 50)
        await until(lambda: made.read("L2") > before + 1)
        line.cycle = healthy
        before = made.read("L1")
        await until(lambda: made.read("L1") > before + 1)
        await until(lambda: "part_recovered" in made.codes())
        assert not made.alarmed("line1")
        details = {event.detail for event in made.events()}
        assert "line line1: ZeroDivisionError: a bug" in details


async def test_a_write_that_fails_is_an_alarm_and_is_made_again(tmp_path):
    async with cabinet(tmp_path) as made:
        await until(lambda: made.level(1) == made.level(2) == 100)
        line = made.agent.lines["line1"]
        healthy = line.write

        async def broken(levels):
            raise OverflowError("a bug")

        line.write = broken
        made.agent.documents.submit(dimmed(50))
        await until(lambda: made.level(2) == 50)
        await until(lambda: made.alarmed("part writes line1 failed", "a bug"))
        assert made.level(1) == 100
        line.write = healthy
        await until(lambda: made.level(1) == 50)
        await until(lambda: not made.alarmed("writes"))


async def test_a_password_that_goes_missing_costs_no_light(tmp_path):
    def gone(_agent):
        (tmp_path / "password").unlink()

    async with cabinet(tmp_path, gone) as made:
        made.agent.documents.submit(dimmed(50))
        await until(lambda: made.level(1) == made.level(2) == 50)
        assert "link" in made.agent.parts.parts  # tried again until the file is there


async def test_a_site_file_that_names_a_missing_password_changes_nothing(tmp_path):
    async with cabinet(tmp_path) as made:
        lines = dict(made.agent.lines)
        path = tmp_path / "site.toml"
        text = path.read_text("utf-8")
        path.write_text(text.replace("/password", "/passwort"), "utf-8")
        made.agent.look_again()
        await until(lambda: "password_file" in made.agent.status().site_error)
        assert made.agent.lines == lines
        assert made.agent.file.broker.password() == "secret"


async def test_control_that_fails_is_an_alarm_and_is_tried_again(tmp_path):
    async with cabinet(tmp_path) as made:
        healthy = made.agent.executor.to_write

        def broken(*_arguments, **_named):
            raise RuntimeError("a bug")

        made.agent.executor.to_write = broken
        await until(lambda: made.alarmed("part decisions failed"))
        made.agent.executor.to_write = healthy
        made.agent.documents.submit(dimmed(50))
        await until(lambda: made.level(1) == made.level(2) == 50)
        assert not made.alarmed("decisions")


async def test_a_luminaire_that_cannot_be_decided_is_reported(tmp_path, monkeypatch):
    healthy, failing = Desired.decide, {"L1"}

    def decide(self, device, t, *local):
        if local and device in failing:  # it passed its trial all the same
            raise ZeroDivisionError("a bug")
        return healthy(self, device, t, *local)

    monkeypatch.setattr(Desired, "decide", decide)
    monkeypatch.setattr(executor, "AGAIN_S", 0.1)
    async with cabinet(tmp_path) as made:
        made.agent.documents.submit(dimmed(50))
        await until(lambda: made.level(2) == 50)
        await until(lambda: made.alarmed("document in force fails for L1"))
        assert made.level(1) == 100
        failing.clear()
        await until(lambda: made.level(1) == 50)
        await until(
            lambda: {"decision_failed", "decision_recovered"} <= {*made.codes()}
        )
        assert not made.alarmed("document")


async def test_refused_and_older_documents_are_events_and_change_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(document_queue, "NOTE_S", 0.0)
    async with cabinet(tmp_path) as made:
        made.agent.documents.submit(dimmed(50, revision=7, term=2))
        made.agent.documents.submit(dimmed(float("inf"), revision=8, term=2))
        made.agent.documents.submit(dimmed(20, revision=900, term=1))
        await until(lambda: made.level(1) == made.level(2) == 50)
        await until(lambda: {"desired_refused", "desired_outdated"} <= {*made.codes()})
        assert made.alarmed("revision 8", "refused")
        assert made.agent.executor.revision == 7
        made.agent.documents.submit(dimmed(60, revision=9, term=2))
        await until(lambda: made.level(1) == made.level(2) == 60)
        assert not made.alarmed("refused")


async def test_a_flood_of_refused_documents_is_one_event(tmp_path):
    async with cabinet(tmp_path) as made:
        for revision in range(1, 80):
            made.agent.documents.submit(dimmed(float("nan"), revision))
        made.agent.documents.submit(dimmed(50, revision=80))
        await until(lambda: made.level(1) == made.level(2) == 50)
        await until(lambda: "desired_refused" in made.codes())
        assert made.codes().count("desired_refused") == 1


async def test_a_document_that_the_disk_refuses_is_in_force_and_kept_later(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(document_queue, "STORE_AGAIN_S", 0.1)
    in_the_way = tmp_path / "agent" / "desired.new"
    async with cabinet(tmp_path) as made:
        in_the_way.mkdir()
        made.agent.documents.submit(dimmed(50))
        await until(lambda: made.level(1) == made.level(2) == 50)
        await until(lambda: made.alarmed("cannot be stored"))
        in_the_way.rmdir()
        await until((tmp_path / "agent" / "desired.json").exists)
        await until(lambda: not made.alarmed("cannot be stored"))


async def test_a_disk_that_hangs_keeps_no_document_from_being_in_force(tmp_path):
    released = threading.Event()

    def hang(_desired):
        released.wait(20)

    async with cabinet(tmp_path) as made:
        made.agent.executor.store = hang
        for revision, level in ((1, 50), (2, 60)):
            made.agent.documents.submit(dimmed(level, revision))
            await until(lambda level=level: made.level(1) == made.level(2) == level)
        released.set()


async def test_a_document_whose_validation_fails_by_a_bug_costs_no_other(tmp_path):
    async with cabinet(tmp_path) as made:
        healthy = made.agent.executor.validate

        def broken(desired, now):
            if desired.revision == 1:
                raise ZeroDivisionError("a bug")
            healthy(desired, now)

        made.agent.executor.validate = broken
        made.agent.documents.submit(dimmed(20, 1))
        await until(lambda: made.alarmed("refused", "a bug"))
        made.agent.documents.submit(dimmed(50, 2))
        await until(lambda: made.level(1) == made.level(2) == 50)


async def test_a_report_that_the_disk_refused_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "REPORT_AGAIN_S", 0.1)
    async with cabinet(tmp_path) as made:
        await until(made.reports)
        outbox, refused = made.agent.outbox, []
        healthy = outbox.put

        def full(contents, *more):
            if any(content.reports for content in contents):
                refused.append(contents)
                raise OutboxError("disk full")
            return healthy(contents, *more)

        outbox.put = full
        made.agent.documents.submit(dimmed(50, revision=7))
        await until(lambda: len(refused) > 1)
        assert 7 not in {report.revision for report in made.reports()}
        outbox.put = healthy
        await until(lambda: 7 in {report.revision for report in made.reports()})


async def test_an_agent_starts_with_a_document_on_disk_that_cannot_be_used(tmp_path):
    folder = tmp_path / "agent"
    folder.mkdir()
    (folder / "desired.json").write_bytes(encode(dimmed(-1e9)))
    async with cabinet(tmp_path) as made:
        await until(lambda: made.level(1) == made.level(2) == 100)
    assert [path.name for path in folder.glob("desired.json.rejected-*")]


async def test_a_stuck_line_is_an_alarm_and_only_stuck_control_stops_the_heartbeat(
    tmp_path, monkeypatch
):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")

        def heard():
            with contextlib.suppress(BlockingIOError):
                return systemd.recv(100) == b"WATCHDOG=1"
            return False

        async with cabinet(tmp_path) as made:
            made.agent.pulse.beat("another line", -1.0)
            await until(lambda: made.alarmed("another line is stuck"))
            while heard():
                pass
            await until(heard)
            made.agent.pulse.stuck = lambda: ["control"]
            await asyncio.sleep(0.2)
            while heard():
                pass
            await asyncio.sleep(0.3)
            assert not heard()


async def test_a_status_is_one_that_the_backend_reads_whatever_fails(tmp_path):
    async with cabinet(tmp_path) as made:
        for n in range(200):
            made.agent.parts.failed(f"part {n}", RuntimeError("x" * 9000))
        status = made.agent.status()
        assert decode(encode(status), Status) == status
        assert len(status.alarms) == 50


def test_alarms_are_as_many_and_as_long_as_a_status_carries():
    assert truncated(["a", "b"], most=2) == ["a", "b"]
    assert truncated(["a", "b", "c"], most=2) == ["a", "and 2 more"]
    assert truncated(["abc"], characters=2) == ["ab"]


def test_a_data_folder_that_cannot_be_made_is_one_clear_sentence(tmp_path):
    (tmp_path / "password").write_text("", "utf-8")
    (tmp_path / "agent").write_text("a file", "utf-8")
    path = tmp_path / "site.toml"
    path.write_text(SITE.format(folder=tmp_path) + LINE.format(n=1, port=1), "utf-8")
    with pytest.raises(ConfigError, match="data folder"):
        Agent(Source(path).load(), Clock(time.time))
