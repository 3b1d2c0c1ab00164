import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_contract.messages import MAX_BYTES, Batch, Event, Table, decode
from duha_contract.quantities import KINDS
from duha_edge.errors import OutboxError
from duha_edge.outbox import Content, CounterState, Outbox


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
    assert second.boot != first.boot
    assert [b.seq for b in batches(second)] == [2]
    second.close()


def test_vital_before_live_before_backlog(outbox):
    outbox.put([telemetry(), telemetry(), event(), telemetry()])
    assert [b.seq for b in batches(outbox, live_from=4)] == [3, 4, 1, 2]
    assert [b.seq for b in batches(outbox, live_from=4, in_flight=[3, 4], limit=1)] == [
        1
    ]


def test_the_cap_drops_the_oldest_telemetry_and_says_how_much(tmp_path):
    outbox = Outbox(tmp_path / "o.db", max_bytes=6000)
    outbox.put([event("first")])
    for _ in range(40):
        outbox.put([telemetry(5)])
    kept = batches(outbox)
    assert kept[0].events[0].code == "first"
    assert kept[-1].seq == 41
    assert outbox.take_lost() == 41 - len(kept) > 0
    assert outbox.take_lost() == 0
    assert sum(len(b.payload) for b in outbox.due((), 0, 1000)) <= 6000
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
