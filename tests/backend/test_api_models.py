"""Models and studies over the API: tried in turn, audited, within a quota, cancelled."""

import asyncio
import os
import pathlib

import pytest

from duha_backend.lighting.inventory import Asset
from duha_sim.sewer import sewer
from tests.backend.test_api import started
from tests.backend.test_study_runs import LONG, workers_of

pytestmark = pytest.mark.system

TABLE = {
    "name": "Example", "source": "example, no city's", "durations_min": [5, 15, 60, 1440],
    "periods_a": [2, 5, 10],
    "depth_mm": [[6, 8.5, 10.2], [10.1, 14.6, 17.5], [14.8, 21.6, 26], [33, 45, 53]],
}  # fmt: skip


@pytest.fixture
async def api(tmp_path, free_port):
    async with started(tmp_path, free_port) as api:
        assets = [
            Asset("R1", "cabinet", "", "", "", 49.75, 13.38),
            Asset("A", "rain_gauge", "R1", "", "", 49.75, 13.38),
        ]
        await asyncio.to_thread(api.backend.registry.put_assets, assets)
        yield api


async def audited(api):
    found = await api.ask("GET", "/audit")
    rows = found["items"] if isinstance(found, dict) else found
    return {(row["action"], row["target"]) for row in rows}


async def test_trying_a_model_is_audited_and_a_file_in_it_refused(api, tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("all of the city")
    text = sewer(3, ("A",))
    body = {"name": "Sewer", "inp": text, "running": False}
    await api.ask("PUT", "/models/sewer?dry_run=true", json=body)
    hostile = f"{text}\n[file_s]\nSAVE OUTFLOWS {precious}\n"
    answer = await api.ask(
        "PUT", "/models/evil?dry_run=true", expect=422, json=body | {"inp": hostile}
    )
    assert f"line {len(hostile.splitlines())}: [FILES]" in answer["detail"]
    assert precious.read_text() == "all of the city"
    await api.ask("PUT", "/models/sewer", json=body)
    assert {
        ("try model", "sewer"), ("refused model", "evil"), ("model", "sewer")
    } <= await audited(api)  # fmt: skip


async def test_many_models_at_once_wait_for_their_turn(api):
    text = sewer(3, ("A",))
    most = 0

    async def watch():
        nonlocal most
        while True:
            most = max(most, len(workers_of(os.getpid())))
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    answers = await asyncio.gather(
        *(
            api.client.put(
                f"/models/m{n}?dry_run=true",
                json={"name": "x", "inp": text},
                timeout=60,
            )
            for n in range(40)
        )
    )
    watching.cancel()
    codes = [answer.status_code for answer in answers]
    assert set(codes) <= {200, 429}
    assert codes.count(200) >= 20
    assert 1 <= most <= len(os.sched_getaffinity(0))


async def test_models_that_run_have_a_number(api, monkeypatch):
    monkeypatch.setattr("duha_backend.api.models.MOST_RUNNING", 1)
    body = {"name": "x", "inp": sewer(3, ("A",)), "replay_days": 1}
    await api.ask("PUT", "/models/one", json=body)
    answer = await api.ask("PUT", "/models/two", expect=409, json=body)
    assert "1 models run already" in answer["detail"]
    await api.ask("PUT", "/models/two", json=body | {"running": False})
    await api.ask("PUT", "/models/two", expect=409, json=body)
    await api.ask("PUT", "/models/one", json=body | {"name": "y"})
    await api.ask("DELETE", "/models/one", expect=204)
    async with asyncio.timeout(10):
        while api.backend.drainage.runners:
            await asyncio.sleep(0.05)


async def test_a_study_is_cancelled_by_a_call(api):
    await api.ask("PUT", "/design-rain/city", json=TABLE)
    body = {"name": "Long", "inp": LONG.decode(), "running": False}
    await api.ask("PUT", "/models/long", json=body)
    asked = {"name": "x", "models": ["long"], "design": [{"table": "city"}], "tail_h": 240}  # fmt: skip
    names = [
        (await api.ask("POST", "/studies", expect=202, json=asked))["id"]
        for _ in range(4)
    ]
    await api.ask("POST", "/studies", expect=429, json=asked)
    async with asyncio.timeout(20):
        while not workers_of(os.getpid()):
            await asyncio.sleep(0.05)
    for name in reversed(names):  # the first one is under way
        await api.ask("DELETE", f"/studies/{name}", expect=204)
    async with asyncio.timeout(10):
        while workers_of(os.getpid()):
            await asyncio.sleep(0.05)
    found = await api.ask("GET", f"/studies/{names[0]}")
    assert (found["state"], found["outcomes"]) == ("cancelled", [])
    assert found["detail"].startswith("cancelled by ")
    await api.ask("DELETE", f"/studies/{names[0]}", expect=204)
    await api.ask("DELETE", "/studies/none", expect=404)
    assert ("cancel study", names[0]) in await audited(api)
    folder = pathlib.Path(api.backend.settings.data) / "studies"
    assert not list(folder.glob("*.json"))
    too_many = asked | {"design": [{"table": "city"}] * 50, "members": [1.0] * 11}
    answer = await api.ask("POST", "/studies", expect=422, json=too_many)
    assert "500 runs at most" in answer["detail"]
