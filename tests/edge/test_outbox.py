import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_contract.messages import MAX_BYTES, Batch, Event, Table, decode
from duha_contract.quantities import KINDS
from duha_edge import outbox as outbox_module
from duha_edge.errors import OutboxError
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
    outbox.put([telemetry(), telemetry()])
    assert [b.seq for b in batches(outbox)] == [1, 2]
    outbox.acknowledge([(1, 1)])
    assert [b.seq for b in batches(outbox)] == [2]
    outbox.acknowledge([(1, 99)])
    assert len(outbox) == 0


def test_numbers_go_on_after_a_restart_and_the_name_stays(tmp_path):
    first = Outbox(tmp_path / "o.db")
    first.put([telemetry()])
    first.acknowledge([(1, 1)])
    name = first.id
    first.close()
    second = Outbox(tmp_path / "o.db")
    second.put([telemetry()])
    assert second.id == name
    assert second.boot == first.boot  # of the machine, not of the process
    assert [b.seq for b in batches(second)] == [2]
    second.close()


def test_live_before_backlog_and_vital_first_in_each(outbox):
    outbox.put([telemetry(), telemetry(), event(), telemetry()])
    assert [b.seq for b in batches(outbox, live_from=4)] == [4, 3, 1, 2]
    assert [b.seq for b in batches(outbox, live_from=4, in_flight=[3, 4], limit=1)] == [
        1
    ]


def test_the_cap_drops_the_oldest_telemetry_and_says_how_much(tmp_path):
    outbox = Outbox(tmp_path / "o.db", max_bytes=60_000)
    outbox.put([event("first")])
    for _ in range(40):
        outbox.put([telemetry(100)])
    kept = batches(outbox)
    assert kept[0].events[0].code == "first"
    assert kept[-1].seq == 41
    assert outbox.take_lost() == 41 - len(kept) > 0
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


def test_a_full_disk_is_said_loses_no_number_and_heals(outbox):
    outbox.put([telemetry()])
    (pages,) = outbox._db.execute("PRAGMA page_count").fetchone()
    outbox._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutboxError, match="full"):
        outbox.put([telemetry(2000)], counters={"SR-01": CounterState(9, 9)})
    assert [b.seq for b in batches(outbox)] == [1]
    assert outbox.counters() == {}
    outbox._db.execute("PRAGMA max_page_count = 100000")
    outbox.put([telemetry()])
    assert [b.seq for b in batches(outbox)] == [1, 2]


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


@given(st.lists(st.one_of(st.booleans(), st.integers(1, 40)), max_size=60))
def test_nothing_is_lost_whatever_the_order_of_puts_and_acks(tmp_path_factory, steps):
    outbox = Outbox(tmp_path_factory.mktemp("o") / "o.db")
    put, acked = 0, set()
    for step in steps:
        if isinstance(step, bool):
            outbox.put([Content(vital=step, events=(Event(1, "e"),))])
            put += 1
        else:
            outbox.acknowledge([(step, step + 2)])
            acked |= {s for s in range(step, step + 3) if s <= put}
    left = {b.seq for b in outbox.due((), 0, 1000)}
    assert left == set(range(1, put + 1)) - acked
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
    assert {b.outbox for b in found} == {opened.id}
    assert opened.counters() == {"SR-01": CounterState(65530, 1_790_000_001_000)}
    opened.put([telemetry()], Stamp("trusted", BOOTED))
    assert opened.next_seq == 5
    opened.close()
    again = Outbox(path)
    assert sorted(b.seq for b in batches(again)) == [2, 3, 4]
    again.close()


def test_there_is_a_file_of_every_version():
    newest = len(outbox_module._MIGRATIONS)
    stems = {path.stem for path in OUTBOXES.glob("v*.db")}
    assert stems == {f"v{n}" for n in range(1, newest + 1)}


def test_what_was_recorded_before_the_clock_was_set_waits_and_is_put_right(outbox):
    wrong = Stamp("unset", 7_000)  # the clock said 1970
    row = ("L1", 9_000, "good")  # two seconds after the boot
    table = Table("luminaire", ("device", "ts", "quality"), (row,))
    outbox.put([Content(False, (table,)), event()], wrong)
    outbox.put([telemetry()], Stamp("trusted", BOOTED))
    assert [b.seq for b in batches(outbox)] == [3]
    assert outbox.rebase(BOOTED) == 2
    assert outbox.rebase(BOOTED) == 0
    first, second = sorted(batches(outbox), key=lambda b: b.seq)[:2]
    assert first.clock == "rebased"
    assert first.tables[0].rows[0][1] == BOOTED + 2_000
    assert first.since == BOOTED
    assert second.events[0].ts == BOOTED + 1 - 7_000


def test_a_thousand_batches_are_put_right_and_none_twice(outbox):
    outbox.put([telemetry() for _ in range(1000)], Stamp("unset", 5))
    assert outbox.rebase(BOOTED) == 1000
    found = batches(outbox, limit=2000)
    assert {b.clock for b in found} == {"rebased"}
    assert {b.tables[0].rows[0][1] for b in found} == {1_800_000_000_000 + BOOTED - 5}


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
