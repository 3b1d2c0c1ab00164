"""What the embedded store remembers of batches: pure."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from duha_backend import held
from duha_backend.held import NEAR_MS, Held, cover, fingerprint, meets
from duha_backend.validate import Columns, Examined, examine
from duha_contract.messages import Batch, Table, encode

T0 = 1_800_000_000_000
HOUR = 3_600_000


def batch(seq, ts, devices=("L1",), power=1.0, controller="RVO-001"):
    n = len(devices)
    columns = {
        "device": devices, "ts": [ts] * n, "quality": ["good"] * n,
        "power_w": [power] * n,
    }  # fmt: skip
    return Examined(
        controller,
        Batch(1, "boot", "box", seq, "trusted"),
        [Columns.of("luminaire", columns)],
    )


def keep(book, *batches):
    found = book.sort(batches)
    book.keep(found)
    return found


@given(st.lists(st.tuples(st.integers(0, 10**10), st.integers(0, 10**8)), max_size=40))
def test_spans_cover_all_that_was_put_into_them(found):
    spans: list[tuple[int, int]] = []
    for first, long in found:
        cover(spans, (first, first + long))
        assert len(spans) <= held.MOST_SPANS
        assert all(b[0] - a[1] > NEAR_MS for a, b in pairwise(spans))
    for first, long in found:
        assert any(a <= first and first + long <= b for a, b in spans)


def test_one_time_of_the_far_future_leaves_later_batches_fresh():
    book = Held()
    keep(book, batch(1, T0))
    keep(book, batch(2, T0 + 70 * 365 * 24 * HOUR))
    for n in range(3, 50):
        assert len(keep(book, batch(n, T0 + n * 60_000)).fresh) == 1


def test_a_gap_that_is_filled_later_is_appended_and_a_second_time_compared():
    book = Held()
    keep(book, batch(1, T0), batch(2, T0 + 10 * HOUR))
    assert len(keep(book, batch(3, T0 + 5 * HOUR)).fresh) == 1
    assert len(keep(book, batch(4, T0 + 5 * HOUR, power=2.0)).known) == 1


def test_only_the_same_content_is_passed_over():
    book = Held()
    keep(book, batch(1, T0))
    assert keep(book, batch(1, T0)).lines == []
    other = keep(book, batch(1, T0, power=2.0))
    assert len(other.known) == 1
    assert other.repeated == {0}
    later = keep(book, batch(1, T0 + HOUR))
    assert len(later.fresh) == 1
    assert later.reused == ["RVO-001"]


def test_a_batch_that_is_twice_in_one_group_is_stored_once():
    found = Held().sort([batch(1, T0), batch(1, T0)])
    assert len(found.fresh + found.known) == 1
    found = Held().sort([batch(1, T0), batch(2, T0, power=2.0)])
    assert (len(found.fresh), len(found.known)) == (1, 1)


def test_every_value_is_part_of_the_content():
    seen = {
        fingerprint(batch(1, T0, *more))
        for more in [(), (("L2",),), (("L1",), 2.0), (("L1",), None), (("L1", "L2"),)]
    }
    seen |= {fingerprint(batch(1, T0 + 1)), fingerprint(batch(1, T0, controller="R2"))}
    assert len(seen) == 7
    assert fingerprint(batch(1, T0)) == fingerprint(batch(2, T0))


def test_the_bytes_of_a_message_stand_for_it_where_all_of_it_is_stored():
    def message(controller, *rows):
        table = Table("luminaire", ("device", "ts", "quality", "power_w"), rows)
        raw = encode(Batch(1, "boot", "box", 1, "trusted", (table,)))
        topic = f"duha/v1/plzen/{controller}/data"
        return examine(topic, raw, T0, {"L9": "RVO-9"})

    first = message("RVO-1", ("L1", T0, "good", 1))
    assert first.digest
    assert fingerprint(first) == fingerprint(message("RVO-1", ("L1", T0, "good", 1)))
    others = [
        message("RVO-1", ("L1", T0, "good", 2)),
        message("RVO-2", ("L1", T0, "good", 1)),
        message("RVO-1", ("L1", T0, "good", 1), ("L9", T0, "good", 1)),
        message("RVO-9", ("L1", T0, "good", 1), ("L9", T0, "good", 1)),
    ]
    assert len({fingerprint(one) for one in (first, *others)}) == 5


def test_what_outlives_the_process_is_enough_to_go_on():
    book = Held()
    for n in range(1, 30):
        keep(book, batch(n, T0 + n * 1000))
    again = Held(book.lines())
    assert again.lines() == book.lines()
    assert len(again.lines()) == 2
    assert len(again.sort([batch(30, T0 + 30_000)]).fresh) == 1
    assert len(again.sort([batch(29, T0 + 29_000)]).known) == 1


def test_lines_without_an_oldest_time_cover_everything_before_their_newest():
    book = Held([("RVO-001", "box", 1, 1, "luminaire", T0, 0)])
    assert len(book.sort([batch(2, T0 - 1000 * HOUR)]).known) == 1
    assert len(book.sort([batch(2, T0 + 1)]).fresh) == 1


def test_memory_is_bounded_and_what_is_forgotten_is_compared(monkeypatch):
    monkeypatch.setattr(held, "MOST_KEYS", 10)
    monkeypatch.setattr(held, "MOST_RECENT", 10)
    book = Held()
    for n in range(200):
        keep(book, batch(1, T0 + n, controller=f"R{n}"))
    assert len(book.lines()) <= 2 * 10 + 1
    assert len(book._recent) == 10
    for known in (book, Held(book.lines())):
        assert len(known.sort([batch(1, T0, controller="R0")]).known) == 1
        assert len(known.sort([batch(1, T0 + HOUR, controller="R0")]).fresh) == 1


def test_numbers_with_gaps_are_bounded(monkeypatch):
    monkeypatch.setattr(held, "MOST_RANGES", 5)
    book = Held()
    for n in range(1, 100):
        keep(book, batch(2 * n, T0 + n))
    assert len(book.lines()) == 5 + 1
    assert book.has("RVO-001", "box", 198)
    assert not book.has("RVO-001", "box", 2)


def test_spans_meet_at_their_ends():
    assert meets([(1, 3)], (3, 9))
    assert not meets([(1, 3), (10, 12)], (4, 9))
