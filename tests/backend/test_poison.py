"""Thousands of damaged messages among good ones, over real stores."""

import asyncio
import time

from duha_backend.books import Books
from duha_backend.duck import DuckReadings
from duha_backend.ingest import Ingest
from duha_backend.lighting.inventory import Asset
from duha_backend.live import Live
from duha_backend.registry import Registry
from duha_contract.clock import Clock
from duha_contract.errors import ContractError
from duha_contract.messages import Batch, Status, Table, decode, encode
from duha_contract.topics import parse
from duha_runtime.supervision import Supervisor
from tests.mutants import mutated_messages

GOOD = [f"RVO-{n:03d}" for n in range(1, 21)]
COLUMNS = ("device", "ts", "quality", "power_w")


def good(name, seq, ts):
    table = Table("luminaire", COLUMNS, ((f"{name}-L001", ts, "good", 30.0),))
    return f"duha/v1/plzen/{name}/data", encode(Batch(1, "b", "box", seq, "trusted", (table,)))  # fmt: skip


def hand_on(topic, payload, ingest, live):
    """Do what the link does with a message."""
    try:
        where = parse(topic)
        if where.leaf == "data":
            ingest.offer(where, payload)
        elif where.leaf == "status" and payload:
            live.told(where.controller, decode(payload, Status), 1)
    except ContractError:
        return


async def test_every_good_reading_is_acknowledged_among_damaged_messages(tmp_path):
    store, registry = DuckReadings(tmp_path / "r.duckdb"), Registry.in_folder(tmp_path)
    assets = [Asset(name, "cabinet", "", "", "", 49, 13) for name in GOOD]
    assets += [Asset(f"{name}-L001", "luminaire", name, "", "", 49, 13) for name in GOOD]  # fmt: skip
    registry.put_assets(assets)
    live, owners = Live(registry.assets()), registry.owners()
    acknowledged: dict[tuple[str, str], set[int]] = {}

    async def acknowledge(controller, ack):
        for first, last in ack.ranges:
            known = acknowledged.setdefault((controller, ack.outbox), set())
            known.update(range(first, last + 1))

    supervisor = Supervisor()
    books, clock = Books(registry.engine), Clock(time.time)
    ingest = Ingest(
        store, books, live, lambda: owners, clock, acknowledge,
        keep_days=31, supervisor=supervisor,
    )  # fmt: skip
    task = asyncio.create_task(ingest.run())
    now = clock.now_ms()
    senders = [*GOOD[:5], *(f"MUT-{n}" for n in range(30))]  # some forge good names
    damaged = list(mutated_messages(11, 2000, controllers=senders))
    sent: dict[tuple[str, str], set[int]] = {}
    for n, (topic, payload, _) in enumerate(damaged):
        hand_on(topic, payload, ingest, live)
        if n % 20 == 0:
            seq = n // 20 + 1
            for name in GOOD:
                sent.setdefault((name, "box"), set()).add(seq)
                where, fine = good(name, seq, now - seq * 10)
                hand_on(where, fine, ingest, live)
        if n % 100 == 0:
            await asyncio.sleep(0.01)
            await live.tick(now + n)
    async with asyncio.timeout(20):
        while any(not seqs <= acknowledged.get(key, set()) for key, seqs in sent.items()):  # fmt: skip
            await asyncio.sleep(0.02)
    for name in GOOD:
        found = await store.window("luminaire", f"{name}-L001", 0, 2**42)
        assert set(range(now - 1000, now, 10)) <= set(found["ts"].tolist())
    assert supervisor.failures == {}
    assert ingest.alarms == {}
    assert ingest.counts.failed_commits == 0
    assert ingest.counts.dropped == 0
    assert books.count()["quarantine"] > 500
    assert not task.done()
    await live.tick(now + 5000)
    assert len(live.tick_now.event) < 8192
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.close()
    registry.close()
