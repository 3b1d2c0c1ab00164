"""Nothing is acknowledged before its commit, and a sink that fails loses nothing."""

import asyncio
import contextlib
import time
from itertools import pairwise

import duckdb
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_backend import fair
from duha_backend import ingest as ingest_module
from duha_backend.acks import ranges
from duha_backend.books import Books
from duha_backend.duck import DuckReadings
from duha_backend.errors import StoreDown
from duha_backend.fair import FORGOTTEN_S, FairQueue, Strangers
from duha_backend.ingest import Ingest
from duha_backend.keeper import Keeper
from duha_backend.live import Live
from duha_backend.readings import DAY_MS, LATE, QUARTER_MS, USUAL
from duha_backend.registry import Registry
from duha_backend.sinks import Part, Sink
from duha_backend.validate import Examined, Reject
from duha_contract.clock import Clock
from duha_contract.messages import Batch, Event, Report, Table, encode

TOPIC = "duha/v1/plzen/RVO-001/data"
COLUMNS = ("device", "ts", "quality", "power_w")


def message(seq, *rows, events=(), topic=TOPIC):
    rows = rows or (("L1", round(time.time() * 1000), "good", 30),)
    tables = () if events else (Table("luminaire", COLUMNS, rows),)
    return topic, encode(Batch(1, "boot", "box", seq, "trusted", tables, events))


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


class Running:
    """Ingest over real stores, with what it acknowledged."""

    def __init__(self, folder, **options):
        self.path = folder / "r.duckdb"
        self.store = DuckReadings(self.path)
        self.registry = Registry.in_folder(folder)
        self.books = Books(self.registry.engine)
        self.acks = []
        self.owners: dict[str, str] = {}
        self.clock = Clock(time.time)
        self.live = Live([])
        self.ingest = Ingest(
            self.store, self.books, self.live, lambda: self.owners, self.clock,
            self.acknowledge, **options,
        )  # fmt: skip

    async def acknowledge(self, controller, ack):
        self.acks.append((controller, ack.outbox, ack.ranges, ack.resend))

    async def rows(self):
        return (await self.store.window("luminaire", "L1", 0, 2**42))["ts"].tolist()


@pytest.fixture
async def running(tmp_path):
    made = Running(tmp_path)
    task = asyncio.create_task(made.ingest.run())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await made.store.close()
    made.registry.close()


async def test_a_store_that_fails_is_not_acknowledged_and_asks_again_when_it_works(
    running,
):
    with duckdb.connect(str(running.path)) as beside:
        beside.execute("ALTER TABLE luminaire RENAME TO away")
        running.ingest.offer(*message(1))
        await until(lambda: running.ingest.counts.failed_commits == 1)
        running.ingest.offer(*message(9, events=(Event(1, "hello"),)))
        await until(lambda: running.acks)  # a dead store holds up no event
        assert running.acks == [("RVO-001", "box", ((9, 9),), False)]
        assert "luminaire" in running.ingest.alarms["store"]
        beside.execute("ALTER TABLE away RENAME TO luminaire")
    del running.acks[:]
    await asyncio.sleep(1.1)  # it is left alone for a second
    running.ingest.offer(*message(2))
    await until(lambda: len(running.acks) == 2)
    assert ("RVO-001", "", (), True) in running.acks  # what was missed may come again
    assert ("RVO-001", "box", ((2, 2),), False) in running.acks
    assert running.ingest.alarms == {}
    assert len(await running.rows()) == 1


async def test_a_dead_book_holds_up_only_what_needs_it(running):
    running.ingest.offer(*message(3))  # whose quarter is marked from now on
    await until(lambda: running.acks)
    del running.acks[:]
    with running.registry.engine.begin() as db:
        db.exec_driver_sql("ALTER TABLE event RENAME TO away")
    running.ingest.offer(*message(1, events=(Event(1, "hello"),)))
    running.ingest.offer(*message(2))
    await until(lambda: running.acks)
    assert running.acks == [("RVO-001", "box", ((2, 2),), False)]
    assert "event" in running.ingest.alarms["books"]


async def test_a_refused_row_is_kept_once_although_its_message_comes_again(running):
    now = round(time.time() * 1000)
    both = message(1, ("L1", now, "good", 30), ("L2", now, "good", 9e9))
    with duckdb.connect(str(running.path)) as beside:
        beside.execute("ALTER TABLE luminaire RENAME TO away")
        running.ingest.offer(*both)
        await until(lambda: running.ingest.counts.failed_commits == 1)
        beside.execute("ALTER TABLE away RENAME TO luminaire")
    await asyncio.sleep(1.1)
    running.ingest.offer(*both)
    await until(lambda: running.ingest.counts.messages == 1)
    assert running.books.count()["quarantine"] == 1


async def test_memory_is_bounded_by_dropping(running, monkeypatch):
    monkeypatch.setattr(ingest_module, "WAITING_BYTES", 1000)
    for n in range(1, 101):
        running.ingest.offer(*message(n))
    assert running.ingest.waiting_bytes <= 1000
    dropped = running.ingest.counts.dropped
    assert 80 < dropped < 100
    await until(lambda: running.ingest.counts.messages == 100 - dropped)


async def test_poison_is_kept_and_the_rest_goes_on(running):
    for n in range(300):
        running.ingest.offer(TOPIC, b"\xff poison %d" % n)
        if n % 100 == 0:
            row = ("L1", round(time.time() * 1000) - n, "good", 30)
            running.ingest.offer(*message(n + 1, row))
    await until(lambda: len(running.acks) and running.ingest.counts.messages == 303)
    assert running.books.count()["quarantine"] == 300
    assert len(await running.rows()) == 3


async def test_what_was_refused_is_stored_when_the_rules_allow_it(running):
    now = round(time.time() * 1000)
    running.owners = {"L1": "RVO-002"}
    running.ingest.offer(*message(1, ("L1", now, "good", 30), ("L2", now, "good", 9e9)))
    await until(lambda: running.ingest.counts.messages)
    waiting = {row["reason"].split()[0]: row["id"] for row in running.books.quarantine(None, 9)}  # fmt: skip
    assert waiting.keys() == {"L1", "L2:"}
    numbers = list(waiting.values())
    still = await running.ingest.replay(numbers)
    assert "belongs to RVO-002" in still[waiting["L1"]]
    running.owners = {"L1": "RVO-001"}
    for _ in range(2):  # the second time there is nothing left to do for L1
        found = await running.ingest.replay(numbers)
        assert found.get(waiting["L1"], "") == ""
        assert "outside" in found[waiting["L2:"]]
    assert await running.rows() == [now]
    assert running.books.count()["quarantine"] == 1


async def test_a_refused_message_is_played_again_whole(running):
    topic, payload = message(5)
    running.ingest.offer(topic, payload.replace(b'"v":1', b'"v":9'))
    await until(lambda: running.ingest.counts.messages)
    (row,) = running.books.quarantine(None, 9)
    assert "version 9" in row["reason"]
    found = await running.ingest.replay([row["id"]])
    assert "version 9" in found[row["id"]]


async def test_quarters_and_days_are_worked_out_when_they_are_over(running):
    start = round(time.time() * 1000) // DAY_MS * DAY_MS - DAY_MS
    rows = [("L1", start + n * 60_000, "good", n) for n in range(45)]
    running.ingest.offer(*message(1, *rows[:20]))
    running.ingest.offer(*message(2, *rows[20:]))
    await until(lambda: running.ingest.counts.messages == 2)
    assert len(running.books.marked()) == 3
    shown = Clock(lambda: start / 1000 + 1100)  # a quarter of an hour into that day
    keeper = Keeper(running.store, running.books, USUAL, shown)
    await keeper.tend()
    assert [(step, begun - start) for _, step, begun, _ in running.books.marked()] == [
        ("15m", 2 * QUARTER_MS),  # the newest first
        ("15m", QUARTER_MS),
        ("1d", 0),
    ]
    keeper = Keeper(running.store, running.books, USUAL, running.clock)
    for _ in range(2):  # the day is due when its quarters are done
        await keeper.tend()
    assert running.books.marked() == []
    day = await running.store.window("luminaire", "L1", start, start + 1, "1d")
    assert day["n"].tolist() == [45]
    assert day["power_w"].tolist() == [22]


async def test_old_rain_that_is_to_be_judged_again_is_left_to_whoever_judges(running):
    now = running.clock.now_ms() // QUARTER_MS * QUARTER_MS
    times = [now - 300 * DAY_MS, now - DAY_MS]
    running.books.mark([("again", LATE, start) for start in times])
    await Keeper(running.store, running.books, USUAL, running.clock).tend()
    assert [start for _, _, start, _ in running.books.marked()] == times


async def test_a_dead_book_holds_up_no_reading(running):
    with running.registry.engine.begin() as db:
        db.exec_driver_sql("ALTER TABLE unrolled RENAME TO away")
        db.exec_driver_sql("ALTER TABLE quarantine RENAME TO gone")
    batch = message(1)
    running.ingest.offer(*batch)
    async with asyncio.timeout(10):
        while not await running.rows():
            await asyncio.sleep(0.02)
    await until(lambda: "books" in running.ingest.alarms)
    assert running.acks == []  # nobody would roll its quarter up
    with running.registry.engine.begin() as db:
        db.exec_driver_sql("ALTER TABLE away RENAME TO unrolled")
        db.exec_driver_sql("ALTER TABLE gone RENAME TO quarantine")
    await asyncio.sleep(1.1)
    running.ingest.offer(*batch)
    await until(lambda: ("RVO-001", "box", ((1, 1),), False) in running.acks)
    assert len(await running.rows()) == 1
    assert len(running.books.marked()) == 1


POISON = (
    "CREATE TRIGGER poison BEFORE INSERT ON event WHEN NEW.code = 'poison'"
    " BEGIN SELECT RAISE(ABORT, 'this row never goes in'); END"
)


async def test_an_event_that_no_commit_takes_stands_alone_in_quarantine(running):
    with running.registry.engine.begin() as db:
        db.exec_driver_sql(POISON)
    for n in range(1, 41):
        code = "poison" if n in (7, 30) else "hello"
        event = Event(n, code)
        topic = f"duha/v1/plzen/RVO-{n:03d}/data"
        running.ingest.offer(*message(n, events=(event,), topic=topic))
    await until(lambda: running.ingest.counts.messages == 40)
    await until(lambda: len(running.acks) == 40)  # poison is handled, too
    assert len(running.books.events(0, 99, None, 99)) == 38
    kept = running.books.quarantine(None, 9)
    assert {row["controller"] for row in kept} == {"RVO-007", "RVO-030"}
    assert all("could not be stored" in row["reason"] for row in kept)
    assert running.ingest.alarms == {}


async def test_a_sink_that_takes_nothing_is_broken_and_no_message_is_blamed():
    seen: list[int] = []
    missed: list[Part] = []
    poisoned: list[Part] = []

    async def commit(parts):
        seen.append(len(parts))
        raise TypeError("wrong in every case")

    sink = Sink(
        "store", commit, lambda _: None, lambda part, _: poisoned.append(part),
        missed.extend, lambda: None,
    )  # fmt: skip
    for n in range(100):
        sink.put(Part(Examined("RVO-001", digest=b"%d" % n), []))
    task = asyncio.create_task(sink.run())
    await until(lambda: len(missed) == 100)
    task.cancel()
    assert poisoned == []
    assert "TypeError: wrong in every case" in sink.alarm
    assert len(seen) < 40  # it is not tried for ever, either
    sink.put(Part(Examined("RVO-001"), []))
    assert len(missed) == 101  # it is left alone for a while


async def test_a_sink_that_worked_a_moment_ago_and_breaks_blames_no_message():
    broken: list[bool] = []
    poisoned: list[Part] = []
    missed: list[Part] = []
    settled: list[Part] = []

    async def commit(parts):
        if broken or any(part.message.controller == "BAD" for part in parts):
            raise TypeError("wrong")

    sink = Sink(
        "store", commit, settled.extend, lambda part, _: poisoned.append(part),
        missed.extend, lambda: None,
    )  # fmt: skip
    task = asyncio.create_task(sink.run())
    sink.put(Part(Examined("BAD"), []))
    await until(lambda: missed)
    assert poisoned == []  # nothing else has come, so nobody knows whose fault it was
    sink.put(Part(Examined("RVO-001"), []))
    await until(lambda: settled)
    sink.put(Part(Examined("BAD"), []))  # it is sent again
    await until(lambda: poisoned)
    assert [part.message.controller for part in settled] == ["RVO-001"]
    assert sink.alarm == ""
    missed.clear()
    broken.append(True)
    for n in range(50):
        sink.put(Part(Examined("RVO-001", digest=b"%d" % n), []))
    await until(lambda: len(missed) == 50)
    assert len(poisoned) == 1
    assert sink.alarm
    task.cancel()


async def test_a_sink_that_goes_away_while_it_is_sifted_is_asked_no_more():
    asked: list[int] = []
    missed: list[Part] = []

    async def commit(parts):
        asked.append(len(parts))
        if len(asked) == 1:
            raise TypeError("perhaps one of these")
        raise StoreDown("away")

    sink = Sink(
        "store", commit, lambda _: None, lambda *_: None, missed.extend, lambda: None
    )
    for n in range(64):
        sink.put(Part(Examined("RVO-001", digest=b"%d" % n), []))
    task = asyncio.create_task(sink.run())
    await until(lambda: len(set(map(id, missed))) == 64)
    assert asked == [64, 32]
    assert sink.alarm == "away"
    task.cancel()


async def test_a_batch_that_cannot_be_decoded_is_acknowledged_by_its_envelope(running):
    topic, payload = message(5)
    running.ingest.offer(topic, payload.replace(b'"tables":[', b'"tables":[7,'))
    await until(lambda: running.acks)
    assert running.acks == [("RVO-001", "box", ((5, 5),), False)]
    (row,) = running.books.quarantine(None, 9)
    assert "no batch" in row["reason"]


async def test_a_bad_event_and_a_bad_row_are_refused_and_all_else_is_stored(running):
    now = round(time.time() * 1000)
    table = Table("luminaire", COLUMNS, (("L1", now, "good", 30), ("L2", now, ["x"], 30)))  # fmt: skip
    events = (Event(now, "hello"), Event(2**62, "late"), Event(now, "a\0b"))
    reports = (Report(now, 1, "h", 1, ("L1",)), Report(now, 2, "h", 1, ("L\0",)))
    batch = Batch(1, "boot", "box", 1, "trusted", (table,), events, reports)
    running.ingest.offer(TOPIC, encode(batch))
    await until(lambda: running.acks)
    assert await running.rows() == [now]
    assert [e["code"] for e in running.books.events(0, 2**62, None, 9)] == ["hello"]
    reasons = sorted(row["reason"] for row in running.books.quarantine(None, 9))
    assert [reason.split(":")[0] for reason in reasons] == ["L2", "event", "event", "report"]  # fmt: skip
    known = running.live.unregistered["RVO-001"]
    assert known.report.revision == 1


async def test_a_table_of_an_unknown_kind_is_replayed_with_its_events_once_it_is_known(
    running, monkeypatch
):
    now = round(time.time() * 1000)
    table = Table("luminaire", COLUMNS, (("L1", now, "good", 30),))
    batch = Batch(1, "boot", "box", 1, "trusted", (table,), (Event(now, "hello"),))
    with monkeypatch.context() as older:
        older.setattr("duha_backend.validate.KINDS", {})
        running.ingest.offer(TOPIC, encode(batch))
        await until(lambda: running.acks)
    (row,) = running.books.quarantine(None, 9)
    assert "no kind 'luminaire'" in row["reason"]
    assert await running.ingest.replay([row["id"]]) == {row["id"]: ""}
    assert await running.rows() == [now]
    bare = Reject("RVO-001", "no kind", encode(table))  # as older versions kept it
    whole = Reject("RVO-001", "no batch", encode(msgspec.structs.replace(batch, events=(Event(now, "again"),))))  # fmt: skip
    running.books.refuse([bare, whole], now)
    numbers = [row["id"] for row in running.books.quarantine(None, 2)]
    assert await running.ingest.replay(numbers) == dict.fromkeys(numbers, "")
    assert {e["code"] for e in running.books.events(0, 2**62, None, 9)} == {"hello", "again"}  # fmt: skip


async def test_readings_older_than_they_are_kept_are_refused(tmp_path):
    made = Running(tmp_path, keep_days=31)
    task = asyncio.create_task(made.ingest.run())
    now = made.clock.now_ms()
    rows = [("L1", now - days * DAY_MS, "good", 30) for days in (30, 32)]
    made.ingest.offer(*message(1, *rows))
    await until(lambda: made.acks)
    assert await made.rows() == [rows[0][1]]
    (row,) = made.books.quarantine(None, 9)
    assert "older than readings are kept (31 days)" in row["reason"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await made.store.close()
    made.registry.close()


async def test_one_that_floods_does_not_starve_the_others(running):
    others = [f"RVO-{n:03d}" for n in range(2, 101)]
    running.owners = {f"{name}-L1": name for name in others}
    now = round(time.time() * 1000)
    many = [(f"X{i % 50}", now - i, "good", 30) for i in range(2500)]
    sent: dict[str, float] = {}
    flood = [message(n, *many)[1] for n in range(1, 60)]
    for n in range(120):
        running.ingest.offer(TOPIC, flood[n % len(flood)])
    for name in others:
        sent[name] = time.monotonic()
        running.ingest.offer(*message(1, topic=f"duha/v1/plzen/{name}/data"))
    times: dict[str, float] = {}

    def all_answered():
        for name, *_ in running.acks:
            times.setdefault(name, time.monotonic())
        return times.keys() >= set(others)

    await until(all_answered)
    assert max(times[name] - sent[name] for name in others) < 4.0
    assert running.ingest.counts.dropped > 60  # the flood waits for itself


def test_the_longest_queue_gives_way_and_all_are_served_in_turn():
    queue = FairQueue()
    for n in range(30):
        assert queue.put(("FLOOD", b"x%03d" % n), 10**6, 10**6) == []
        assert queue.put((f"RVO-{n}", b"y" * 500), 10**6, 10**6) == []
    assert queue.put(("NEW", b"z"), queue.bytes, 10**6) == [("FLOOD", b"x029")]
    assert queue.put(("FLOOD", b"again"), queue.bytes, 10**6) == [("FLOOD", b"again")]
    assert queue.put(("BIG", b"b" * 600), 10**6, 1000) == [("BIG", b"b" * 600)]
    first = [name for name, _ in queue.take(32, 10**9)]
    assert first == ["FLOOD", *(f"RVO-{n}" for n in range(30)), "NEW"]
    assert [payload for _, payload in queue.take(99, 10**9)] == [b"x%03d" % n for n in range(1, 29)]  # fmt: skip
    assert (queue.bytes, len(queue)) == (0, 0)


def test_strangers_have_places_until_they_are_silent_for_a_day():
    strangers = Strangers()
    assert all(strangers.admit(f"X{n}", n) for n in range(1000))
    assert strangers.admit("X0", 2000)
    assert not strangers.admit("Y", 3000)
    assert strangers.admit("Y", FORGOTTEN_S + 1)  # X1 was silent for longest
    assert not strangers.admit("X1", FORGOTTEN_S + 1)
    assert len(strangers) == 1000


async def test_what_too_many_strangers_send_is_not_taken(running, monkeypatch):
    monkeypatch.setattr(fair, "MOST_STRANGERS", 2)
    running.owners = {"L1": "RVO-001"}
    for name in ("X1", "X2", "X3", "RVO-001", "X1"):
        running.ingest.offer(*message(1, topic=f"duha/v1/plzen/{name}/data"))
    await until(lambda: running.ingest.counts.messages == 4)
    assert running.ingest.counts.strangers == 1
    assert {controller for controller, *_ in running.acks} == {"X1", "X2", "RVO-001"}


def test_a_step_that_is_marked_again_meanwhile_stays_marked(tmp_path):
    registry = Registry.in_folder(tmp_path)
    books = Books(registry.engine)
    books.mark([("luminaire", "15m", 0)])
    ((kind, step, start, mark),) = books.marked()
    books.mark([("luminaire", "15m", 0)])  # a late reading, while it is rolled up
    books.unmark(kind, step, start, mark)
    assert len(books.marked()) == 1
    registry.close()


@given(st.lists(st.integers(1, 60)))
def test_ranges_hold_just_the_numbers(numbers):
    found = ranges(numbers)
    assert {n for first, last in found for n in range(first, last + 1)} == set(numbers)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(found))
