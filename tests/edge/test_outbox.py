import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_contract.messages import MAX_BYTES, Batch, Event, Table, decode
from duha_contract.quantities import KINDS
from duha_edge import outbox as outbox_module
from duha_edge import outbox_file
from duha_edge.errors import ConfigError, OutboxError
from duha_edge.outbox import Content, CounterState, Outbox, Stamp


def telemetry(n=1):
    rows = tuple((f"L{i}", 1_800_000_000_000 + i, "good") for i in range(n))
    return Content(
        vital=False, tables=(Table("luminaire", ("device", "ts", "quality"), rows),)
    )


def event(text="e"):
    return Content(vital=True, events=(Event(1, text),))


@pytest.fixture
def outbox(tmp_path):
    made = Outbox(tmp_path / "outbox.db")
    yield made
    made.close()


def batches(outbox, limit=1000, in_flight=(), live_from=0):
    return [decode(b.payload, Batch) for b in outbox.due(in_flight, live_from, limit)]


def test_what_is_put_is_due_until_it_is_acknowledged(outbox):
    for _ in range(2):
        outbox.put([telemetry()])
        batches(outbox)
    assert [b.seq for b in batches(outbox)] == [1, 2]
    outbox.acknowledge(outbox.id, [(1, 1)])
    assert [b.seq for b in batches(outbox)] == [2]
    outbox.acknowledge(outbox.id, [(1, 2)])
    outbox.put([])
    assert len(outbox) == 0


def test_numbers_go_on_after_a_restart_and_the_name_stays(tmp_path):
    first = Outbox(tmp_path / "o.db")
    first.put([telemetry()])
    batches(first)
    first.acknowledge(first.id, [(1, 1)])
    name = first.id
    first.close()
    second = Outbox(tmp_path / "o.db")
    second.put([telemetry()])
    assert second.id == name
    assert second.boot == first.boot  # of the machine, not of the process
    assert [b.seq for b in batches(second)] == [2]
    second.close()


def test_live_before_backlog_and_vital_first_in_each(outbox):
    outbox.put([telemetry(), telemetry(), event("old")])
    live_from = outbox.next_seq
    outbox.put([telemetry(3), event("new")])
    found = batches(outbox, live_from=live_from)
    assert [[e.code for e in b.events] for b in found] == [["new"], [], ["old"], []]
    assert [b.seq for b in found] == [1, 2, 3, 4]
    assert [len(b.tables[0].rows) for b in found if b.tables] == [3, 2]
    flying = [(outbox.id, n) for n in (1, 2, 3)]
    assert [b.seq for b in batches(outbox, live_from=live_from, in_flight=flying)] == [
        4
    ]
    assert batches(outbox, live_from=live_from, limit=0) == []


def test_the_cap_drops_the_oldest_telemetry_and_says_how_much(tmp_path):
    outbox = Outbox(tmp_path / "o.db", max_bytes=60_000)
    outbox.put([event("first")])
    for _ in range(40):
        outbox.put([telemetry(100)])
    kept = len(outbox)
    first, *others = batches(outbox)
    assert first.events[0].code == "first"
    assert sum(len(b.tables[0].rows) for b in others) == 100 * (kept - 1)
    assert outbox.take_lost() == 41 - kept > 0
    assert outbox.take_lost() == 0
    outbox.close()


def test_a_corrupt_file_is_set_aside_and_a_new_one_begun(tmp_path):
    path = tmp_path / "o.db"
    first = Outbox(path)
    first.put([telemetry(50)] * 20)
    first.close()
    data = bytearray(path.read_bytes())
    data[0:16] = b"not a database!!"
    path.write_bytes(data)
    second = Outbox(path)
    second.put([telemetry()])
    assert [b.seq for b in batches(second)] == [1]
    assert second.id != first.id
    second.close()
    assert [p.name for p in tmp_path.iterdir() if "corrupt" in p.name]


def test_counters_are_kept_with_the_batch_of_their_rain(tmp_path):
    outbox = Outbox(tmp_path / "o.db")
    outbox.put([telemetry()], counters={"SR-01": CounterState(65_530, 5)})
    outbox.put([telemetry()], counters={"SR-01": CounterState(3, 9)})
    outbox.close()
    again = Outbox(tmp_path / "o.db")
    assert again.counters() == {"SR-01": CounterState(3, 9)}
    again.close()


def test_what_a_full_disk_refuses_waits_in_memory_and_goes_to_disk_later(outbox):
    outbox.put([telemetry()])
    with outbox._file.reading() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
    assert not outbox.put([telemetry(2000)], counters={"SR-01": CounterState(9, 9)})
    assert "full" in outbox.trouble
    assert outbox.counters() == {"SR-01": CounterState(9, 9)}
    assert len(outbox) == 6
    with outbox._file.reading() as db:
        db.execute("PRAGMA max_page_count = 100000")
    assert outbox.put([telemetry()])
    assert outbox.trouble == ""
    assert sum(len(b.tables[0].rows) for b in batches(outbox)) == 2002
    assert {b.seq for b in batches(outbox)} == set(range(1, len(batches(outbox)) + 1))


def test_what_waits_in_memory_is_bounded_and_the_loss_is_counted(outbox, monkeypatch):
    monkeypatch.setattr(outbox_module, "HELD_BYTES", 20_000)
    blocker = sqlite3.connect(outbox.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with outbox._file.reading() as db:
        db.execute("PRAGMA busy_timeout = 1")
    outbox.put([event("first")])
    for _ in range(20):
        outbox.put([telemetry(100)])
    assert "locked" in outbox.trouble
    assert outbox.lost == 21 - len(outbox) > 10
    blocker.execute("COMMIT")
    blocker.close()
    kept = len(outbox)
    assert batches(outbox)[0].events[0].code == "first"
    assert outbox.take_lost() == 21 - kept


def test_a_large_cabinet_keeps_to_the_size_limit(outbox):
    names = ("device", "ts", "quality", *(q.name for q in KINDS["luminaire"]))
    row = (
        "RVO-001-LUMINAIRE-00001",
        1_800_000_000_000,
        "good",
        *([1234.5678] * (len(names) - 3)),
    )
    outbox.put(
        [Content(vital=False, tables=(Table("luminaire", names, (row,) * 2000),))]
    )
    due = outbox.due((), 0, 100)
    assert len(due) == 5
    assert max(len(b.payload) for b in due) <= MAX_BYTES
    assert sum(len(decode(b.payload, Batch).tables[0].rows) for b in due) == 2000


@given(st.lists(st.one_of(st.booleans(), st.none(), st.integers(1, 40)), max_size=60))
def test_nothing_is_lost_whatever_the_order_of_puts_and_acks(tmp_path_factory, steps):
    """Only what was sent and acknowledged goes, and a number has one content for ever."""
    outbox = Outbox(tmp_path_factory.mktemp("o") / "o.db")
    put, acked = 0, set()
    content: dict[tuple[str, int], set[int]] = {}
    for step in steps:
        if isinstance(step, bool):
            outbox.put([Content(vital=step, events=(Event(put, "e"),))])
            put += 1
        elif step is None:
            for batch in batches(outbox):
                told = {e.ts for e in batch.events}
                assert content.setdefault((batch.outbox, batch.seq), told) == told
        else:
            name = outbox.id
            outbox.acknowledge(name, [(step, step + 2)])
            if (name, step + 2) in content:
                acked |= {(name, n) for n in range(step, step + 3)}
    gone = set().union(*(content.get(name, set()) for name in acked))
    outbox.put([])
    left = {e.ts for b in batches(outbox) for e in b.events}
    assert left >= set(range(put)) - gone
    assert not gone & left or outbox._overtaken
    outbox.close()


OUTBOXES = Path(__file__).parent / "outboxes"
BOOTED = 1_795_000_000_000


@pytest.mark.parametrize(
    "version", sorted(OUTBOXES.glob("v*.db")), ids=lambda p: p.stem
)
def test_a_file_of_every_released_version_is_taken_over(version, tmp_path):
    path = tmp_path / "outbox.db"
    shutil.copy(version, path)
    opened = Outbox(path)
    found = batches(opened)
    assert sorted(b.seq for b in found) == [2, 3]
    names = {b.outbox for b in found}
    assert opened.id not in names  # of another boot: its numbers stay as they were
    assert len(names) == 1
    assert opened.counters() == {"SR-01": CounterState(65530, 1_790_000_001_000)}
    opened.put([telemetry()], Stamp("trusted", BOOTED))
    assert opened.next_seq == 5
    opened.close()
    again = Outbox(path)
    found = {(b.outbox, b.seq) for b in batches(again)}
    assert found == {*((name, n) for name in names for n in (2, 3)), (again.id, 1)}
    again.acknowledge(names.pop(), [(2, 3)])
    again.put([])
    assert {(b.outbox, b.seq) for b in batches(again)} == {(again.id, 1)}
    assert len(again) == 1
    again.close()


def test_there_is_a_file_of_every_version():
    newest = len(outbox_file.MIGRATIONS)
    stems = {path.stem for path in OUTBOXES.glob("v*.db")}
    assert stems == {f"v{n}" for n in range(1, newest + 1)}


def test_what_was_recorded_before_the_clock_was_set_waits_and_is_put_right(outbox):
    wrong = Stamp("unset", 7_000)  # the clock said 1970
    row = ("L1", 9_000, "good")  # two seconds after the boot
    table = Table("luminaire", ("device", "ts", "quality"), (row,))
    outbox.put([Content(False, (table,)), event()], wrong)
    outbox.put([telemetry()], Stamp("trusted", BOOTED))
    assert [b.seq for b in batches(outbox)] == [1]
    assert outbox.rebase(BOOTED) == 2
    assert outbox.rebase(BOOTED) == 0
    second, first = sorted(batches(outbox), key=lambda b: b.seq)[1:]
    assert first.clock == "rebased"
    assert first.tables[0].rows[0][1] == BOOTED + 2_000
    assert first.since == BOOTED
    assert second.events[0].ts == BOOTED + 1 - 7_000


def test_a_thousand_batches_are_put_right_and_none_twice(outbox):
    outbox.put([telemetry() for _ in range(1000)], Stamp("unset", 5))
    assert outbox.rebase(BOOTED) == 1000
    found = batches(outbox, limit=2000)
    assert sum(len(b.tables[0].rows) for b in found) == 1000
    assert {b.clock for b in found} == {"rebased"}
    assert {row[1] for b in found for row in b.tables[0].rows} == {
        1_800_000_000_000 + BOOTED - 5
    }


def test_times_of_an_earlier_boot_are_sent_as_they_are_and_say_so(tmp_path):
    first = Outbox(tmp_path / "o.db")
    first.boot = "another-boot"
    first.put([telemetry()], Stamp("unset", 5))
    first.close()
    second = Outbox(tmp_path / "o.db")
    assert second.rebase(BOOTED) == 0
    assert [b.clock for b in batches(second)] == ["unset"]
    second.close()


def test_a_loss_is_remembered_over_a_restart(tmp_path):
    small = Outbox(tmp_path / "o.db", max_bytes=40_000)
    for _ in range(20):
        small.put([telemetry(100)])
    lost = small.lost
    assert lost > 0
    small.close()
    again = Outbox(tmp_path / "o.db", max_bytes=40_000)
    assert again.take_lost() == lost
    assert again.take_lost() == 0
    again.close()
    third = Outbox(tmp_path / "o.db")
    assert third.take_lost() == 0
    assert third.lost == lost
    third.close()


def test_a_file_stays_within_its_cap_for_ever(tmp_path):
    """A week without a backend at the cap: old batches go, the file does not grow."""
    path = tmp_path / "o.db"
    capped = Outbox(path, max_bytes=400_000)
    for _ in range(300):
        capped.put([telemetry(100)])
        assert path.stat().st_size <= 400_000 + 64 * 1024  # a transaction of slack
    for _ in range(300):
        capped.put([telemetry(100)])
    assert path.stat().st_size <= 400_000 + 64 * 1024
    assert len(capped) + capped.lost == 600
    capped.close()


# -- numbers and merging -----------------------------------------------------------


def test_a_backlog_of_small_cycles_leaves_in_few_large_batches(outbox):
    for _ in range(500):
        outbox.put([telemetry(25)])
    found = outbox.due((), outbox.next_seq, 1000)
    assert sum(len(decode(b.payload, Batch).tables[0].rows) for b in found) == 12_500
    assert len(found) < 10
    assert max(len(b.payload) for b in found) <= MAX_BYTES
    assert not any(b.live for b in found)


def test_what_was_sent_is_never_merged_again(outbox):
    outbox.put([telemetry(2)])
    (first,) = outbox.due((), 1, 10)
    outbox.put([telemetry(3)])
    again, fresh = outbox.due((), 1, 10)
    assert again == first
    assert [len(decode(b.payload, Batch).tables[0].rows) for b in (again, fresh)] == [
        2,
        3,
    ]


def test_what_was_sent_is_the_same_after_a_restart(tmp_path):
    first = Outbox(tmp_path / "o.db")
    for _ in range(5):
        first.put([telemetry(2), event()])
    sent = first.due((), 1, 10)
    first.put([telemetry(7)])
    first.close()
    second = Outbox(tmp_path / "o.db")
    assert second.due((), 1, 10)[: len(sent)] == sent
    assert second.id == first.id
    second.close()


def test_batches_of_another_kind_of_time_are_not_merged(outbox):
    outbox.put([telemetry()], Stamp("trusted", BOOTED))
    outbox.put([telemetry()], Stamp("trusted", BOOTED + 60))
    outbox.put([telemetry()], Stamp("trusted", BOOTED + 5000))
    outbox.put([telemetry()], Stamp("rebased", BOOTED + 5000))
    found = batches(outbox)
    assert [(len(b.tables[0].rows), b.clock, b.since) for b in found] == [
        (2, "trusted", BOOTED),
        (1, "trusted", BOOTED + 5000),
        (1, "rebased", BOOTED + 5000),
    ]


def test_a_merged_batch_is_what_its_parts_were(outbox):
    names = ("device", "ts", "quality", "power_w")
    rows = [
        ("L1", 5, "good", 1.5),
        ("L2", 6, "no_answer", None),
        ("Ž", 7, "good", 1e300),
    ]
    for row in rows:
        table = Table("luminaire", names, (row,))
        outbox.put([Content(vital=True, tables=(table,), events=(Event(row[1], "e"),))])
    outbox.put(
        [Content(vital=True, tables=(Table("meter", names, (("M", 1, "good", 2),)),))]
    )
    (batch,) = batches(outbox)
    assert [t.kind for t in batch.tables] == ["luminaire", "meter"]
    assert batch.tables[0].rows == tuple(rows)
    assert [e.ts for e in batch.events] == [5, 6, 7]
    assert (batch.outbox, batch.seq, batch.boot) == (outbox.id, 1, outbox.boot)


def test_a_batch_that_cannot_be_read_does_not_hold_up_the_others(outbox):
    for _ in range(3):
        outbox.put([telemetry(2)])
    with outbox._file.transaction() as db:
        db.execute("UPDATE batch SET payload = ? WHERE seq = 2", (b"\xff{",))
    (batch,) = batches(outbox)
    assert len(batch.tables[0].rows) == 4


# -- acknowledgements --------------------------------------------------------------


@pytest.mark.parametrize(
    "ranges", [[(1, 1)], [(1, 2**53)], [(2**53 - 1, 2**53)], [(5, 1)], []]
)
def test_an_acknowledgement_for_what_was_never_sent_deletes_nothing(outbox, ranges):
    outbox.put([telemetry()])
    outbox.put([telemetry()])
    outbox.acknowledge(outbox.id, ranges)
    outbox.acknowledge("another", [(1, 2)])
    outbox.put([])
    assert len(outbox) == 2
    assert sum(len(b.tables[0].rows) for b in batches(outbox)) == 2


def test_a_thousand_huge_ranges_are_read_at_once(outbox):
    outbox.put([telemetry()])
    batches(outbox)
    began = time.monotonic()
    outbox.acknowledge("another", [(n, 2**53 - n) for n in range(1, 1001)])
    outbox.acknowledge(outbox.id, [(2 + n, 2**53 - n) for n in range(1000)])
    assert time.monotonic() - began < 1.0


def test_an_older_copy_of_the_disk_put_back_gives_out_no_number_twice(tmp_path):
    path = tmp_path / "o.db"
    first = Outbox(path)
    first.put([event("a")])
    batches(first)
    first.close()
    shutil.copy(path, tmp_path / "image")
    first = Outbox(path)
    first.put([event("b")])
    sent = {(b.outbox, b.seq): b.events[0].code for b in batches(first)}
    assert sent == {(first.id, 1): "a", (first.id, 2): "b"}
    first.close()
    path.rename(tmp_path / "broken")
    shutil.copy(tmp_path / "image", path)
    second = Outbox(path)
    second.put([event("c")])
    found = {(b.outbox, b.seq): b.events[0].code for b in batches(second)}
    assert found == {(first.id, 1): "a", (second.id, 1): "c"}
    assert second.id != first.id
    second.close()


def test_each_boot_has_a_name_of_its_own(tmp_path, monkeypatch):
    names = set()
    for boot in ("one", "one", "two"):
        monkeypatch.setattr(outbox_module, "boot_id", lambda boot=boot: boot)
        opened = Outbox(tmp_path / "o.db")
        names.add(opened.id)
        opened.close()
    assert len(names) == 2


def test_an_acknowledgement_from_the_future_begins_a_new_name_and_loses_nothing(
    tmp_path, caplog
):
    """An older content was put into the same file: the backend is ahead of us."""
    outbox = Outbox(tmp_path / "o.db")
    for code in ("a", "b"):
        outbox.put([event(code)])
        batches(outbox)
    old = outbox.id
    assert outbox.acknowledge(old, [(1, 7)]) == set()
    outbox.put([event("c")])
    assert outbox.id != old
    found = batches(outbox)
    assert {b.outbox for b in found} == {outbox.id}
    assert [e.code for b in found for e in b.events] == ["a", "b", "c"]
    assert "older copy" in caplog.text
    outbox.acknowledge(old, [(1, 2)])
    outbox.put([])
    assert len(outbox) == 3
    outbox.acknowledge(outbox.id, [(1, 1)])
    outbox.put([])
    assert len(outbox) == 0
    outbox.close()


def test_acknowledgements_that_the_disk_refuses_are_applied_later(outbox):
    outbox.put([telemetry()])
    batches(outbox)
    blocker = sqlite3.connect(outbox.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with outbox._file.reading() as db:
        db.execute("PRAGMA busy_timeout = 1")
    assert outbox.acknowledge(outbox.id, [(1, 1)]) == {(outbox.id, 1)}
    outbox._settle_at = 0.0
    assert batches(outbox) == []  # what is acknowledged is not sent again
    assert outbox.unsettled
    blocker.execute("COMMIT")
    blocker.close()
    assert batches(outbox) == []
    assert not outbox.unsettled
    assert len(outbox) == 0


def test_many_acknowledgements_are_one_commit(outbox):
    for n in range(40):
        outbox.put([event(str(n))])
        outbox.due((), 0, 100)
    with outbox._file.reading() as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (before,) = db.execute("PRAGMA data_version").fetchone()
    for n in range(1, 41):
        outbox.acknowledge(outbox.id, [(n, n)])
        assert outbox.due((), 0, 100, 0) is not None
    assert outbox.unsettled
    assert len(outbox) == 40
    outbox._settle_at = 0.0
    outbox.due((), 0, 100)
    assert len(outbox) == 0
    assert before


# -- a file that cannot be used ----------------------------------------------------


def test_a_file_that_is_locked_stays_and_is_opened_later(tmp_path, monkeypatch):
    path = tmp_path / "o.db"
    first = Outbox(path)
    first.put([event("kept")], counters={"SR-01": CounterState(3, 4)})
    first.close()
    monkeypatch.setattr(outbox_file, "BUSY_S", 0.01)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("PRAGMA locking_mode = EXCLUSIVE")
    blocker.execute("BEGIN EXCLUSIVE")
    blocker.execute("UPDATE meta SET value = value")
    now = [0.0]
    second = Outbox(path, monotonic=lambda: now[0])
    assert "locked" in second.trouble
    assert (len(second), second.lost, second.newest_ms(), second.id) == (0, 0, 0, "")
    with pytest.raises(OutboxError, match="locked"):
        second.counters()
    with pytest.raises(OutboxError, match="locked"):
        second.due((), 0, 10)
    assert not second.put([event("held")])
    assert second.acknowledge("", [(1, 1)]) == set()
    blocker.execute("COMMIT")
    blocker.close()
    assert not second.put([event("held too")])  # not tried again at once
    now[0] = 10.0
    assert second.put([])
    assert [e.code for b in batches(second) for e in b.events] == [
        "kept", "held", "held too",
    ]  # fmt: skip
    assert second.counters() == {"SR-01": CounterState(3, 4)}
    assert second.trouble == ""
    second.close()
    assert [p.name for p in tmp_path.iterdir() if "corrupt" in p.name] == []


def test_a_second_agent_is_refused_with_one_sentence(tmp_path):
    first = Outbox(tmp_path / "o.db")
    with pytest.raises(ConfigError, match="another agent runs on folder"):
        Outbox(tmp_path / "o.db")
    first.put([telemetry()])
    first.close()
    Outbox(tmp_path / "o.db").close()


def test_a_file_that_breaks_while_it_is_used_is_replaced(tmp_path):
    now = [0.0]
    outbox = Outbox(tmp_path / "o.db", monotonic=lambda: now[0])
    for _ in range(50):
        outbox.put([telemetry(50)])
    with outbox._file.reading() as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(outbox.path.read_bytes())
    for page in range(1, len(data) // 4096):
        data[4096 * page : 4096 * page + 4096] = bytes(4096)
    with outbox.path.open("r+b") as file:
        file.write(data)
    with outbox._file.reading() as db:
        db.execute("PRAGMA cache_size = 0")
        db.execute("PRAGMA shrink_memory")
    kept = False
    for _ in range(30):
        now[0] += 10
        if kept := outbox.put([event("on")]):
            break
    assert kept
    outbox.close()
    assert [p for p in tmp_path.iterdir() if "corrupt" in p.name]


def test_threads_put_and_send_at_once(outbox):
    """Lines, link and control have threads of their own."""
    errors = []

    def put():
        for n in range(40):
            outbox.put([event(str(n))])

    def send():
        for _ in range(80):
            for batch in outbox.due((), 0, 5):
                outbox.acknowledge(batch.outbox, [(batch.seq, batch.seq)])

    def run(work):
        try:
            work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(w,)) for w in (put, put, send)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    while batches(outbox) and not errors:
        send()
    outbox._settle_at = 0.0
    batches(outbox)
    assert len(outbox) == 0
