"""Real processes are killed while readings flow; afterwards everything is there once."""

import contextlib
import random
import sqlite3
import time

import duckdb
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from duha_contract.messages import Batch, decode
from duha_contract.quantities import KINDS
from tests.system.conftest import OUTAGE_S, Visitor

pytestmark = [pytest.mark.drill, pytest.mark.system]


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
    """Whatever went over the wire is in the store, once; every batch is acknowledged."""
    outage = OUTAGE_S if broker == "mosquitto" else min(OUTAGE_S, 8.0)
    town = start(
        "--cabinets", "3", "--luminaires", "12", "--gauges", "3", "--now", "--broker", broker
    )  # fmt: skip
    visitor = Visitor(town)
    cabinets = [cabinet.id for cabinet in town.city.cabinets]
    recorder = Recorder(town.broker_port)

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
    # What an agent sends while it stops is seen on the wire, and needs a moment to the store.
    for cabinet in cabinets:
        town.children[cabinet].terminate()
        town.children[cabinet].wait(timeout=10)
    time.sleep(2)
    town.stop()

    recorder.stop()
    with duckdb.connect(
        str(town.folder / "backend" / "readings.duckdb"), read_only=True
    ) as db:
        stored = {
            kind: db.execute(f"SELECT device, epoch_ms(ts) FROM {kind}").fetchall()
            for kind in KINDS
        }
    for kind, seen in recorder.seen.items():
        assert seen <= set(stored[kind])
        assert len(stored[kind]) == len(set(stored[kind]))
    assert sum(len(seen) for seen in recorder.seen.values()) > 100
    with contextlib.closing(
        sqlite3.connect(town.folder / "backend" / "registry.db")
    ) as books:
        assert books.execute("SELECT reason FROM quarantine").fetchall() == []


class Recorder:
    """A second listener at the broker: whatever it has heard must be in the store."""

    def __init__(self, port):
        self.seen: dict[str, set[tuple[str, int]]] = {kind: set() for kind in KINDS}
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="recorder")
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(
            "duha/v1/plzen/+/data", 1
        )
        self._client.on_message = self._take
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def _take(self, _client, _data, message):
        if not message.topic.endswith("/data"):
            return  # the embedded broker takes a wildcard for more than it is
        for table in decode(bytes(message.payload), Batch).tables:
            self.seen[table.kind] |= {(row[0], row[1]) for row in table.rows}

    def stop(self):
        self._client.disconnect()
        self._client.loop_stop()
        del self._client  # its last sockets close when nobody holds it any more
