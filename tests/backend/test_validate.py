import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_backend.validate import examine
from duha_contract.messages import Batch, Table, encode

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
    ],
)
def test_what_cannot_be_read_is_kept_with_its_bytes(payload, reason):
    found = run(payload)
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
