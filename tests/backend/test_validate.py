import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_backend import validate
from duha_backend.validate import examine
from duha_contract.messages import (
    Batch,
    Envelope,
    Event,
    Report,
    Table,
    decode,
    encode,
)
from tests.mutants import mutated_messages

NOW = 1_800_000_000_000
TOPIC = "duha/v1/plzen/RVO-001/data"
COLUMNS = ("device", "ts", "quality", "power_w", "level_actual_pct")
GOOD = ("L1", NOW, "good", 30.5, 50)


def batch(*rows, kind="luminaire", columns=COLUMNS):
    return encode(Batch(1, "boot", "box", 7, "trusted", (Table(kind, columns, rows),)))


def run(payload, topic=TOPIC, owners=None):
    return examine(topic, payload, NOW, owners or {})


def test_good_rows_become_columns():
    found = run(batch(GOOD, ("L2", NOW - 5, "no_answer", None, None)))
    (table,) = found.tables
    assert table.values["device"].tolist() == ["L1", "L2"]
    assert table.values["power_w"][0] == 30.5
    assert np.isnan(table.values["power_w"][1])
    assert not found.rejects


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("L1", NOW + 61_000, "good", 1, 1), "in the future"),
        (("L1", 1_000_000_000_000, "good", 1, 1), "before 2020"),
        (("L1", 1.5, "good", 1, 1), "before 2020"),
        (("L1", True, "good", 1, 1), "before 2020"),
        (("L1", NOW, "good", 99_999, 1), "power_w = 99999 is outside 0 to 2000"),
        (("L1", NOW, "good", 1, -1), "level_actual_pct = -1"),
        (("L1", NOW, "good", "much", 1), "power_w = 'much'"),
        (("L1", NOW, "good", True, 1), "power_w = True"),
        (("L1", NOW, "fine", 1, 1), "quality 'fine'"),
        (("L 1", NOW, "good", 1, 1), "no device id"),
        ((["L1"], NOW, "good", 1, 1), "no device id"),
        (("X9", NOW, "good", 1, 1), "belongs to RVO-002"),
        (("L1", NOW, [], 1, 1), "quality []"),
        (("L1", NOW, {"a": 1}, 1, 1), "quality {'a': 1}"),
        (("L1", 10**400, "good", 1, 1), "in the future"),
        (("L1", -(10**400), "good", 1, 1), "before 2020"),
        (("L1", NOW, "good", 10**400, 1), "power_w = 1000"),
        (("L1", NOW, "good", [[1]], 1), "power_w = [[1]]"),
        (("L\0", NOW, "good", 1, 1), "'L\\x00' is no device id"),
        ((1, NOW, "good", 1, 1), "1 is no device id"),
        (("L" * 65, NOW, "good", 1, 1), "is no device id"),
    ],
)
def test_an_impossible_row_is_refused_alone_and_named(row, reason):
    found = run(batch(GOOD, row), owners={"X9": "RVO-002", "L1": "RVO-001"})
    assert len(found.tables[0]) == 1
    (reject,) = found.rejects
    assert reason in reject.reason
    assert reject.raw
    assert found.batch is not None  # it is acknowledged all the same


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\x00\x01poison", "no batch"),
        (b"{}", "no batch"),
        (batch(GOOD, kind="toaster"), "no kind 'toaster'"),
        (batch(GOOD[:4]), "another length"),
        (batch(GOOD, columns=("ts", "device", "quality", "a", "b")), "columns begin"),
        (batch(GOOD, columns=(*COLUMNS[:4], "power_w")), "twice"),
        (batch(GOOD, columns=(*COLUMNS[:4], "x" * 65)), "longer than 64"),
        (
            batch(
                (*GOOD[:3], *range(98)),
                columns=(*COLUMNS[:3], *(f"c{n}" for n in range(98))),
            ),
            "101 columns",
        ),
        (batch(GOOD, kind="k" * 100_000), "there is no kind 'kkk"),
        (batch(GOOD).replace(b'"box"', b'"b\\u0000x"'), "control characters"),
        (
            encode(Batch(1, "b", "o", 1, "trusted", (Table("lux", (), ()),) * 65)),
            "65 tables",
        ),
        (b'{"x":' + b"[" * 60_000 + b"]" * 60_000 + b"}", "nested too deeply"),
        (b'{"v":1,"seq":1' + b"0" * 400 + b"}", "no batch"),
        (b"\xed\xa0\x80", "no batch"),
        (b'"\\ud800"', "no batch"),
        (b" " * 200_000, "bytes are more than"),
    ],
)
def test_what_cannot_be_read_is_kept_with_its_bytes(payload, reason):
    found = run(payload)
    assert all(len(reject.reason) <= 301 for reject in found.rejects)
    assert not found.tables
    (reject,) = found.rejects
    assert reason in reject.reason
    assert reject.raw


def test_a_foreign_topic_is_refused():
    assert "duha/v1" in run(batch(GOOD), topic="zigbee/lamp").rejects[0].reason


def test_a_column_from_the_future_is_passed_over():
    found = run(batch((*GOOD, 5), columns=(*COLUMNS, "sparkle")))
    assert "sparkle" not in found.tables[0].values
    assert not found.rejects


@given(st.binary(max_size=400))
def test_no_bytes_can_hurt(payload):
    found = run(payload)
    assert found.rejects
    assert not found.tables


json = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(max_size=5),
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.lists(st.tuples(json, json, json, json, json), min_size=1, max_size=6))
def test_every_row_is_either_kept_or_refused(rows):
    raw = msgspec.json.encode(
        {"v": 1, "boot": "b", "outbox": "o", "seq": 1, "clock": "trusted",
         "tables": [{"kind": "luminaire", "columns": COLUMNS, "rows": [*rows, GOOD]}]}
    )  # fmt: skip
    found = run(raw)
    kept = sum(len(table) for table in found.tables)
    assert kept + len(found.rejects) == len(rows) + 1
    assert kept >= 1


@pytest.mark.parametrize(
    ("notes", "reason"),
    [
        ({"events": (Event(2**62, "door"),)}, "event: time 4611686018427387904 is"),
        ({"events": (Event(-1, "door"),)}, "event: time -1 is before 1970"),
        ({"events": (Event(NOW, ""),)}, "event: '' is no code"),
        ({"events": (Event(NOW, "a\0"),)}, "is no code"),
        ({"events": (Event(NOW, "door", "L 1"),)}, "is no device id"),
        ({"events": (Event(NOW, "door", "L1", "a\0b"),)}, "control characters"),
        ({"reports": (Report(NOW + 10**9, 1, "h", 1),)}, "report: time"),
        ({"reports": (Report(NOW, 1, "\0", 1),)}, "its hash"),
        ({"reports": (Report(NOW, 1, "h", 1, ("L\0",)),)}, "is no device id"),
        ({"reports": (Report(NOW, 1, "h", 1, ("L1",) * 5001),)}, "5001 diverged"),
    ],
)
def test_an_impossible_event_or_report_is_refused_alone(notes, reason):
    good = {
        "events": (Event(1, "clock_unset"), Event(NOW, "door", "L1", "open")),
        "reports": (Report(NOW, 1, "h", 1, ("L1",)),),
    }
    events, reports = ((*good[n], *notes.get(n, ())) for n in ("events", "reports"))
    found = run(encode(Batch(1, "boot", "box", 7, "trusted", (), events, reports)))
    assert found.batch is not None
    assert (found.batch.events, found.batch.reports) == (good["events"], good["reports"])  # fmt: skip
    (reject,) = found.rejects
    assert reason in reject.reason
    again = decode(reject.raw, Batch)  # it can be replayed, and holds nothing else
    assert (again.events, again.reports) == (notes.get("events", ()), notes.get("reports", ()))  # fmt: skip
    assert not again.tables


def test_what_is_refused_whole_can_still_be_acknowledged():
    found = run(batch(GOOD).replace(b'"boot"', b"5", 1))
    assert found.batch is None
    found = run(batch(GOOD).replace(b'"clock":"trusted"', b'"clock":5'))
    assert found.envelope == Envelope(1, "box", 7)
    assert found.rejects[0].raw
    assert run(b'{"v":1,"outbox":"\\u0000","seq":1}').envelope is None


def test_what_no_rule_foresees_is_refused_with_the_name_of_the_error():
    class Broken(dict[str, int]):
        def get(self, *_):
            raise LookupError("out of order")

    found = run(batch(GOOD), owners=Broken(a=1))
    assert [reject.reason for reject in found.rejects] == ["could not be examined: LookupError"]  # fmt: skip
    assert found.rejects[0].raw == batch(GOOD)
    assert found.envelope == Envelope(1, "box", 7)
    assert not found.tables


def test_readings_from_before_what_is_kept_are_refused():
    payload = batch(GOOD, ("L2", NOW - 1001, "good", 1, 1))
    found = examine(TOPIC, payload, NOW, {}, NOW - 1000)
    assert [table.values["device"].tolist() for table in found.tables] == [["L1"]]
    assert "older than readings are kept" in found.rejects[0].reason


def test_thousands_of_bad_rows_are_refused_together():
    rows = [(f"L{n}", NOW, "bad", 1, 1) for n in range(2000)]
    found = run(batch(*rows, GOOD))
    assert len(found.tables[0]) == 1
    assert len(found.rejects) == validate.MOST_REJECTS + 1
    assert found.rejects[-1].reason.startswith(
        "1900 rows more; the first: L100: quality"
    )
    assert len(decode(found.rejects[-1].raw, Batch).tables[0].rows) == 1900


def test_damaged_messages_are_never_more_than_refused():
    handled = 0
    for topic, payload, _ in mutated_messages(7, 4000, now_ms=NOW):
        found = examine(topic, payload, NOW, {"RVO-001-L001": "RVO-001"})
        handled += bool(found.batch or found.envelope)
        assert found.batch or found.rejects
        assert "examined" not in "".join(r.reason for r in found.rejects)
        for reject in found.rejects:
            assert len(reject.raw) <= 2 * len(payload) + 1000
            reject.reason.encode()
    assert handled > 400
