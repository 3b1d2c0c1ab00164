"""What the registry only adds to stays within bounds."""

import time

import pytest
import sqlalchemy as sa

from duha_backend import records, tables
from duha_backend.lighting.inventory import Group
from duha_backend.lighting.wanted import Sensed
from duha_backend.records import DAY_MS, KEPT, Records
from duha_backend.registry import Registry

NOW = 5000 * DAY_MS


@pytest.fixture
def registry(tmp_path):
    made = Registry.in_folder(tmp_path)
    yield made
    made.close()


def count(registry, table):
    with registry.engine.connect() as db:
        return db.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def test_what_is_too_old_goes_and_what_is_not_stays(registry):
    registry.record(NOW - 6 * 366 * DAY_MS, "eva", "old", "", "")
    registry.record(NOW - DAY_MS, "eva", "new", "", "")
    for age in (500, 10):
        end = NOW - age * DAY_MS
        registry.add_sensed(Sensed("wet_road", "gauges", f"g{age}", end - 1, end))
    assert Records(registry.engine).tend(NOW) == 2
    assert [line["action"] for line in registry.audit_page(None, 9)] == ["new"]
    assert [one.target for one in registry.sensed(0)] == ["g10"]


def test_the_present_version_of_a_document_stays_however_old(registry):
    for n in range(3):
        registry.save(Group("g", f"G{n}"), n, "eva")
    Records(registry.engine).tend(NOW)
    (version,) = registry.history(Group, "g")
    assert version.since == 2
    assert [group.name for group in registry.all_at(Group, NOW)] == ["G2"]


def test_rows_are_capped_and_go_a_few_at_a_time(registry, monkeypatch):
    monkeypatch.setattr(records, "STEP_ROWS", 50)
    monkeypatch.setattr(records, "STEPS", 2)
    audit = KEPT[0]._replace(rows=100)
    rows = [
        {"ts": NOW, "who": "x", "action": str(n), "target": "", "detail": ""}
        for n in range(400)
    ]
    with registry.engine.begin() as db:
        db.execute(sa.insert(tables.audit), rows)
    tended = Records(registry.engine, (audit,))
    assert tended.tend(NOW) == 100
    assert count(registry, tables.audit) == 300
    while tended.tend(NOW):
        pass
    assert count(registry, tables.audit) == 100
    assert registry.audit_page(None, 1)[0]["action"] == "399"


def test_alarms_that_stand_and_messages_that_wait_stay(registry):
    alarm = {
        "code": "lampFailure", "object": "L1", "cabinet": "R1", "severity": "high",
        "detail": "", "affected": 1, "times": 1, "raised": 0,
    }  # fmt: skip
    message = {
        "alarm": 1, "channel": "c", "what": "raised", "ts": 0, "attempts": 0,
        "due": time.time(), "detail": "",
    }  # fmt: skip
    with registry.engine.begin() as db:
        db.execute(
            sa.insert(tables.alarm), [alarm | {"cleared": at} for at in (None, 1)]
        )
        states = ("waiting", "sent")
        db.execute(sa.insert(tables.delivery), [message | {"state": s} for s in states])
    assert Records(registry.engine).tend(NOW) == 2
    assert (count(registry, tables.alarm), count(registry, tables.delivery)) == (1, 1)
