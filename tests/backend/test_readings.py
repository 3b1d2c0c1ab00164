import duckdb
import pytest

from duha_backend.readings import Readings
from duha_backend.validate import Columns, Examined, Reject
from duha_contract.messages import Batch, Event

T0 = 1_800_000_000_000


def message(seq=1, devices=("L1", "L2"), ts=T0, power=30.0, rejects=(), events=()):
    values = {
        "device": list(devices),
        "ts": [ts] * len(devices),
        "quality": ["good"] * len(devices),
        "power_w": [power] * len(devices),
        "level_actual_pct": [None] * len(devices),
    }
    batch = Batch(1, "boot", "box", seq, "trusted", events=events)
    return Examined("RVO-001", batch, [Columns("luminaire", values)], list(rejects))


def rain(device, ts, mm):
    values = {"device": [device], "ts": [ts], "quality": ["good"], "rain_mm": [mm]}
    return Examined(
        "RVO-001", Batch(1, "b", "box", ts, "trusted"), [Columns("rain_gauge", values)]
    )


@pytest.fixture
def store(tmp_path):
    made = Readings(tmp_path / "readings.duckdb")
    yield made
    made.close()


def test_writing_twice_changes_nothing(store):
    for _ in range(3):
        store.write([message(1), message(2, ts=T0 + 1000)], T0)
    counts = {table: n for table, n in store.counts().items() if n}
    assert counts == {"luminaire": 4, "batch": 2}


def test_a_file_from_before_a_quantity_was_known_gets_its_column(tmp_path):
    with duckdb.connect(str(tmp_path / "r.duckdb")) as old:
        old.execute(
            "CREATE TABLE luminaire (device VARCHAR, ts TIMESTAMP, controller VARCHAR,"
            " quality VARCHAR, power_w DOUBLE, PRIMARY KEY (device, ts))"
        )
        old.execute(
            "INSERT INTO luminaire VALUES ('L9', '2026-01-01', 'RVO-001', 'good', 5)"
        )
    store = Readings(tmp_path / "r.duckdb")
    store.write([message(1)], T0)
    powers = {row["device"]: row["power_w"] for row in store.latest("luminaire", 0)}
    assert powers == {"L9": 5, "L1": 30, "L2": 30}
    store.close()


def test_a_batch_twice_in_one_commit_is_stored_once(store):
    store.write([message(1), message(1)], T0)
    assert store.counts()["luminaire"] == 2
    assert store.counts()["batch"] == 1


def test_a_failed_commit_leaves_nothing(store):
    broken = message(2, ts=T0 + 1)
    broken.tables[0].values["power_w"] = ["not a number"] * 2
    with pytest.raises(duckdb.Error):
        store.write([message(1), broken], T0)
    assert store.counts()["luminaire"] == 0
    store.write([message(1)], T0)
    assert store.counts()["luminaire"] == 2


def test_the_latest_reading_of_each_device(store):
    store.write([message(1), message(2, ("L1",), T0 + 5000, 99.0)], T0)
    latest = {row["device"]: row["power_w"] for row in store.latest("luminaire", 0)}
    assert latest == {"L1": 99.0, "L2": 30.0}
    assert store.latest("luminaire", T0 + 6000) == []


def test_a_window_comes_page_by_page_without_gap_or_overlap(store):
    store.write([message(n, ("L1",), T0 + n * 1000, n) for n in range(10)], T0)
    cursor, seen = None, []
    while True:
        page = store.window("luminaire", "L1", T0 + 1000, T0 + 9000, cursor, 3)
        seen += [row["power_w"] for row in page.rows]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]


def test_rain_in_bins(store):
    day = 1_799_971_200_000  # midnight UTC
    store.write([rain("SR-01", day + m * 60_000, 0.2) for m in (1, 2, 7)], T0)
    rows = store.rain(day, day + 3_600_000, 300)
    assert [(r["start"].minute, r["rain_mm"]) for r in rows] == [(0, 0.4), (5, 0.2)]


def test_quarantine_keeps_reason_and_bytes(store):
    rejects = [Reject("RVO-001", f"reason {n}", b"\x00raw") for n in range(3)]
    store.write([message(1, rejects=rejects)], T0)
    first = store.quarantine(None, 2)
    assert [row["reason"] for row in first.rows] == ["reason 2", "reason 1"]
    assert bytes(first.rows[0]["raw"]) == b"\x00raw"
    assert [row["reason"] for row in store.quarantine(first.cursor, 2).rows] == [
        "reason 0"
    ]


def test_events_are_kept_once(store):
    events = (Event(T0, "counter_reset", "SR-01"), Event(T0, "outbox_full"))
    store.write([message(1, events=events)], T0)
    store.write([message(1, events=events)], T0)
    assert store.counts()["event"] == 2


def test_the_file_is_plain_duckdb_with_an_obvious_schema(tmp_path):
    store = Readings(tmp_path / "r.duckdb")
    store.write([message(1)], T0)
    store.close()
    with duckdb.connect(str(tmp_path / "r.duckdb"), read_only=True) as plain:
        row = plain.execute(
            "SELECT device, controller, quality, power_w FROM luminaire ORDER BY 1"
        ).fetchone()
        assert row == ("L1", "RVO-001", "good", 30.0)
        (moment,) = plain.execute("SELECT DISTINCT ts FROM luminaire").fetchone() or (
            None,
        )
        assert str(moment) == "2027-01-15 08:00:00"
