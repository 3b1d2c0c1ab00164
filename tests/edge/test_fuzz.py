"""Documents and acknowledgements of any kind: nothing raises, and lights are decided.

Each is valid first, then changed one to three times: wrong types, huge and non-finite
numbers, depth, counts, foreign names, bytes.
"""

import asyncio
import contextlib
import os
import random
import sys
import time

import aiomqtt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.edge.mutants import ACK, DOCUMENT, NOW, NOW_MS, PLZEN, payload
from tests.servers import mosquitto

from duha_contract.errors import ContractError, MessageError
from duha_contract.messages import Ack, Desired, Status, decode, encode
from duha_edge.executor import Executor
from duha_edge.outbox import Outbox


def obeyed(folder, chance):
    executor = Executor(["L1", "L2"], PLZEN, folder / "desired.json", NOW)
    executor.accept(DOCUMENT, NOW)
    for _ in range(3):
        try:
            executor.accept(decode(payload(DOCUMENT, chance), Desired), NOW)
        except ContractError:
            continue
    for hours in (0, 3, 13, 24 * 200):
        t = NOW + 3600 * hours
        executor.rained("G1", 0.2, t, 5.0)
        executor.bright(chance.choice([1.0, 1e6]), t, t)
        due = executor.to_write(t, t)
        for name in ("L1", "L2"):
            assert 0 <= executor.decide(name, t).level <= 100
        for name, level in due.items():
            assert 0 <= level <= 100
            executor.told(name, level, t)
    assert executor.failing == {}
    executor.report(NOW_MS)
    again = Executor(["L1", "L2"], PLZEN, folder / "desired.json", NOW)
    assert again.desired == executor.desired


def acknowledged(outbox, chance):
    try:
        ack = decode(payload(ACK, chance), Ack)
    except MessageError:
        return
    outbox.acknowledge(ack.outbox, ack.ranges)


MUTANTS = int(os.environ.get("DUHA_TEST_MUTANTS", "1000"))
MANY = [pytest.mark.system, pytest.mark.timeout(900)]
COUNTS = [
    pytest.param(60, id="some"),
    pytest.param(MUTANTS, id="more", marks=MANY),
]


@pytest.mark.parametrize("count", COUNTS)
def test_no_document_raises_and_lights_are_decided(count, tmp_path):
    @settings(max_examples=count, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    @example(random.Random(1))
    def run(chance):
        for old in tmp_path.iterdir():
            old.unlink()
        obeyed(tmp_path, chance)

    run()


@pytest.mark.parametrize("count", COUNTS)
def test_no_acknowledgement_raises(count, tmp_path):
    outbox = Outbox(tmp_path / "outbox.db")

    @settings(max_examples=count, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def run(chance):
        acknowledged(outbox, chance)

    try:
        run()
    finally:
        outbox.close()


SITE = """
[site]
city = "plzen"
controller = "RVO-001"
latitude = 49.7475
longitude = 13.3776
zone = "Europe/Prague"
period_s = 1
data = "{folder}/agent"
[broker]
port = {port}
[[bus]]
name = "line1"
type = "tcp"
host = "127.0.0.1"
port = 1
[[device]]
id = "L1"
bus = "line1"
unit = 1
profile = "luminaire-generic"
writes = ["level_in_effect_pct"]
"""
TOPIC = "duha/v1/plzen/RVO-001"


@contextlib.asynccontextmanager
async def running(site):
    command = (sys.executable, "-m", "duha", "edge", "run", str(site))
    agent = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield agent
        assert agent.returncode is None, "the agent has ended"
    finally:
        if agent.returncode is None:
            agent.terminate()
        await agent.wait()


async def on_line(client, since_ms):
    """A status that is newer than a time [ms]."""
    async with asyncio.timeout(20):
        async for message in client.messages:
            status = decode(message.payload, Status)
            if status.online and status.ts >= since_ms:
                return status
    raise AssertionError("no status")


@pytest.mark.system
async def test_an_agent_lives_through_mutants_and_restarts_with_them_retained(
    tmp_path, free_port
):
    chance = random.Random(15)
    site = tmp_path / "site.toml"
    site.write_text(SITE.format(folder=tmp_path, port=free_port), "utf-8")
    with mosquitto(free_port, tmp_path):
        async with aiomqtt.Client("127.0.0.1", free_port) as client:
            await client.subscribe(f"{TOPIC}/status")
            async with running(site):
                await on_line(client, 0)
                for _ in range(1000):
                    leaf, valid = chance.choice([("ack", ACK), ("desired", DOCUMENT)])
                    mutant = payload(valid, chance)
                    await client.publish(f"{TOPIC}/{leaf}", mutant, 1, retain=True)
                await on_line(client, round(time.time() * 1000))
            for leaf, mutant in (
                ("ack", b'{"v":1,"outbox":"x","ranges":[[1,1' + b"0" * 30 + b"]]}"),
                ("ack", b'{"v":1,"ranges":' + b"[" * 50_000),
                ("desired", b'{"v":1,"place":' + b"[" * 50_000),
                ("desired", encode(DOCUMENT).replace(b"Europe/Prague", b"No/Where")),
                ("desired", encode(DOCUMENT).replace(b"50.0", b"-1e9")),
            ):
                await client.publish(f"{TOPIC}/{leaf}", mutant, 1, retain=True)
                async with running(site):
                    await on_line(client, round(time.time() * 1000))
