"""Events and quarantine are bounded, whatever controllers send."""

import pytest

from duha_backend import books as books_module
from duha_backend import trim as trim_module
from duha_backend.books import Books
from duha_backend.errors import StoreDown
from duha_backend.readings import DAY_MS
from duha_backend.registry import Registry
from duha_backend.trim import Caps
from duha_backend.validate import Examined, Reject
from duha_contract.messages import Batch, Event

NOW = 1_800_000_000_000


@pytest.fixture
def books(tmp_path, monkeypatch):
    registry = Registry.in_folder(tmp_path)
    monkeypatch.setattr(trim_module, "STEP", 7)
    monkeypatch.setattr(books_module, "_TRIM_EVERY", 1)
    yield Books(registry.engine)
    registry.close()


def refused(name, n, size=100):
    return [Reject(name, f"reason {i}", b"x" * size) for i in range(n)]


def kept(books, name=None):
    return [row["reason"] for row in books.quarantine(None, 5000, name)]


def test_one_controller_cannot_fill_the_quarantine(books, monkeypatch):
    monkeypatch.setattr(books_module, "QUARANTINED_EACH", Caps(20, 10**6))
    books.refuse(refused("RVO-002", 5), NOW)
    books.refuse(refused("RVO-001", 90), NOW)
    assert kept(books, "RVO-001") == [f"reason {i}" for i in range(89, 69, -1)]
    assert len(kept(books, "RVO-002")) == 5
    assert books.deleted == {"quarantine": 70, "event": 0}


def test_quarantine_is_bounded_by_bytes_of_a_controller_and_in_all(books, monkeypatch):
    monkeypatch.setattr(books_module, "QUARANTINED_EACH", Caps(1000, 12_000))
    monkeypatch.setattr(books_module, "MOST_QUARANTINED_BYTES", 30_000)
    for n in range(4):
        books.refuse(refused(f"RVO-{n}", 40, 800), NOW)
    assert kept(books, "RVO-0") == []  # the oldest went first
    assert len(kept(books, "RVO-1")) == 6
    assert len(kept(books, "RVO-3")) == 12
    assert len(kept(books)) == 30


def test_one_refused_thing_is_cut_and_says_so(books):
    books.refuse([Reject("RVO-001", "r\0" * 500, b"x" * 100_000)], NOW)
    (row,) = books.quarantine(None, 9)
    assert len(row["raw"]) == books_module.MOST_RAW
    assert row["reason"].endswith("[65536 of 100000 bytes kept]")
    assert "\0" not in row["reason"]
    assert len(row["reason"]) < 400


def events(name, *times):
    batch = Batch(1, "b", "o", 1, "trusted", events=tuple(Event(t, "door") for t in times))  # fmt: skip
    return Examined(name, batch)


def test_events_are_bounded_by_number_and_age(books, monkeypatch):
    monkeypatch.setattr(books_module, "EVENTS_EACH", Caps(20, 10**6))
    books.write([events("RVO-002", *range(NOW, NOW + 5))], NOW)
    books.write([events("RVO-001", *range(NOW, NOW + 90))], NOW)
    found = books.events(0, 2 * NOW, "RVO-001", 99)
    assert [e["ts"] - NOW for e in found] == list(range(89, 69, -1))
    assert len(books.events(0, 2 * NOW, "RVO-002", 99)) == 5
    later = NOW + books_module.EVENT_DAYS * DAY_MS
    books.write([events("RVO-002", later)], later + 80)
    assert [e["ts"] - NOW for e in books.events(0, later, None, 99)] == list(range(89, 79, -1))  # fmt: skip


def test_a_database_that_is_away_is_said_as_the_store_being_down(books):
    with books._engine.begin() as db:
        db.exec_driver_sql("ALTER TABLE event RENAME TO away")
    with pytest.raises(StoreDown, match="no such table"):
        books.write([events("RVO-001", NOW)], NOW)
    with pytest.raises(StoreDown):
        books.count()
