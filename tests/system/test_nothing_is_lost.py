"""Real processes are killed while readings flow; afterwards everything is there once."""

import random
import sqlite3
import time

import duckdb
import pytest

from duha_contract.quantities import KINDS
from tests.system.conftest import OUTAGE_S, Visitor

pytestmark = pytest.mark.system


def outbox(town, cabinet):
    """Name of an outbox, the number of its next batch, and the oldest that waits."""
    path = town.folder / cabinet / "outbox.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10) as db:
        meta = dict(db.execute("SELECT name, value FROM meta").fetchall())
        (oldest,) = db.execute("SELECT min(seq) FROM batch").fetchone()
    db.close()
    return meta["id"], int(meta["next"]), oldest


@pytest.mark.timeout(420)
@pytest.mark.parametrize("broker", ["mosquitto", "embedded"])
def test_backend_broker_and_agent_are_killed_and_no_reading_is_lost_or_doubled(
    start, broker
):
    """Counted by sequence: every batch of every outbox is in the store exactly once."""
    outage = OUTAGE_S if broker == "mosquitto" else min(OUTAGE_S, 8.0)
    town = start(
        "--cabinets", "3", "--luminaires", "12", "--gauges", "3", "--now", "--broker", broker
    )  # fmt: skip
    visitor = Visitor(town)
    cabinets = [cabinet.id for cabinet in town.city.cabinets]

    for name in ("backend", "broker"):
        before = {c: outbox(town, c)[1] for c in cabinets}
        town.kill(name)
        time.sleep(outage)
        gone = {c: outbox(town, c)[1] for c in cabinets}
        assert all(
            gone[c] > before[c] for c in cabinets
        )  # the agents went on measuring
        town.again(name)
    chance = random.Random(time.time_ns())
    victim = cabinets[0]
    time.sleep(chance.uniform(0, 3))
    town.kill(victim)
    time.sleep(min(outage, 5))
    town.again(victim)
    time.sleep(4)

    promised = {c: outbox(town, c) for c in cabinets}
    visitor.until(
        "every batch that was promised is acknowledged",
        lambda: all((outbox(town, c)[2] or 10**9) >= promised[c][1] for c in cabinets),
        limit=60,
    )
    town.stop()

    with duckdb.connect(
        str(town.folder / "backend" / "readings.duckdb"), read_only=True
    ) as db:
        for cabinet, (name, following, _) in promised.items():
            found = db.execute(
                "SELECT seq FROM batch WHERE controller = ? AND outbox = ? AND seq < ? ORDER BY seq",
                [cabinet, name, following],
            ).fetchall()
            assert [seq for (seq,) in found] == list(range(1, following))
        (announced,) = db.execute("SELECT sum(row_count) FROM batch").fetchone() or (0,)
        stored = sum(
            (db.execute(f"SELECT count(*) FROM {kind}").fetchone() or (0,))[0]
            for kind in KINDS
        )
        assert announced == stored > 100
        (refused,) = db.execute("SELECT count(*) FROM quarantine").fetchone() or (0,)
        assert refused == 0
