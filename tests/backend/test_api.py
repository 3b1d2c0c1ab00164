"""The API on its real port: a backend process in this loop, without a broker."""

import asyncio
import contextlib
import json
import time
from typing import Any

import httpx
import pytest

from duha_backend.app import Backend, Settings
from duha_backend.link import Broker
from duha_backend.registry import Registry
from duha_contract.clock import Clock
from duha_contract.messages import Batch, Table, encode
from duha_sim.streets import generate, geojson

ROW = ("device", "ts", "quality", "level_actual_pct", "power_w")


class Running:
    def __init__(self, backend, client, token):
        self.backend = backend
        self.client = client
        self.token = token

    def offer(self, *rows, controller="RVO-001", seq=1, kind="luminaire", columns=ROW):
        batch = Batch(1, "boot", "box", seq, "trusted", (Table(kind, columns, rows),))
        topic = f"duha/v1/plzen/{controller}/data"
        self.backend.ingest.offer(topic, encode(batch))

    async def ask(self, method, path, expect=200, **more):
        answer = await self.client.request(method, path, **more)
        assert answer.status_code == expect, answer.text
        return answer.json() if answer.content else None


@contextlib.asynccontextmanager
async def started(folder, port):
    """A backend over a folder, and a client of it."""
    backend = Backend(Settings(folder, Broker(port=1), port=port), Clock(time.time))
    token = backend.registry.new_token("tester")
    running = asyncio.create_task(backend.run())
    base = f"http://127.0.0.1:{port}/api/v1"
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=base, headers=headers) as client:
        for _ in range(100):
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/health")).status_code == 200:
                    break
            await asyncio.sleep(0.05)
        yield Running(backend, client, token)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.fixture
def city_folder(tmp_path):
    registry = Registry.in_folder(tmp_path)
    registry.import_geojson(geojson(generate(2, 5, 2)))
    registry.close()
    return tmp_path


@pytest.fixture
async def api(city_folder, free_port):
    async with started(city_folder, free_port) as running:
        yield running


def now_ms():
    return round(time.time() * 1000)


async def until(condition, limit=5.0):
    deadline = time.monotonic() + limit
    while not await condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.05)


async def test_nothing_is_told_without_a_token(api):
    for method, path in (
        ("GET", "/city"),
        ("GET", "/state"),
        ("POST", "/overrides"),
        ("GET", "/nothing"),
    ):
        answer = await api.client.request(method, path, headers={"Authorization": ""})
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["title"] == "Unauthorized"
    answer = await api.client.get("/city", headers={"Authorization": "Bearer guess"})
    assert answer.status_code == 401


async def test_a_session_is_a_cookie_for_this_site_only(api):
    plain = httpx.AsyncClient(base_url=api.client.base_url)
    async with plain:
        assert (
            await plain.post("/session", json={"token": "guess"})
        ).status_code == 401
        answer = await plain.post("/session", json={"token": api.token})
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert api.token.lower() not in cookie
        assert (await plain.get("/city")).json()["who"] == "tester"
        assert (await plain.delete("/session")).status_code == 204
        assert (await plain.get("/city")).status_code == 401


async def test_a_reading_comes_out_as_it_went_in(api):
    ts = now_ms()
    api.offer(("RVO-001-L001", ts, "good", 55, 31.5))
    path = "/readings/luminaire/RVO-001-L001"

    async def stored():
        return bool((await api.ask("GET", path))["items"])

    await until(stored)
    (row,) = (await api.ask("GET", path))["items"]
    assert (row["level_actual_pct"], row["power_w"], row["controller"]) == (
        55,
        31.5,
        "RVO-001",
    )
    found = await api.ask("GET", "/luminaires/RVO-001-L001")
    assert found["actual"] == 55
    assert found["reason"][-1]["code"] == "default"
    assert 0 <= found["age_s"] < 10


async def test_poison_is_quarantined_and_the_rest_goes_on(api):
    api.backend.ingest.offer("duha/v1/plzen/RVO-001/data", b"\xffpoison")
    api.offer(
        ("RVO-001-L001", now_ms(), "good", 500, 1),
        ("RVO-001-L002", now_ms(), "good", 5, 1),
    )

    async def kept():
        return len((await api.ask("GET", "/quarantine"))["items"]) == 2

    await until(kept)
    reasons = " ".join(
        i["reason"] for i in (await api.ask("GET", "/quarantine"))["items"]
    )
    assert "level_actual_pct = 500" in reasons
    assert "no batch" in reasons
    assert (await api.ask("GET", "/system"))["stored"]["luminaire"] == 1


async def test_assets_come_page_by_page(api):
    cursor, seen = "", []
    while True:
        page = await api.ask("GET", f"/assets?kind=luminaire&limit=4&cursor={cursor}")
        seen += [item["id"] for item in page["items"]]
        if page["cursor"] is None:
            break
        cursor = page["cursor"]
    assert len(seen) == len(set(seen)) == 10
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "named"),
    [
        ("GET", "/luminaires/L9", None, 404, "L9"),
        ("GET", "/nowhere", None, 404, "nowhere"),
        ("GET", "/readings/toaster/x", None, 404, "toaster"),
        ("GET", "/readings/luminaire/x?cursor=soon", None, 422, "soon"),
        ("GET", "/quarantine?cursor=x", None, 422, "cursor"),
        ("GET", "/assets?limit=0", None, 422, "limit"),
        (
            "POST",
            "/overrides",
            {"target": {"kind": "city"}, "level": 30},
            422,
            "always ends",
        ),
        ("POST", "/overrides", {"target": {"kind": "moon"}, "level": 30}, 422, "kind"),
        (
            "POST",
            "/overrides",
            {"target": {"kind": "city"}, "level": 300, "minutes": 1},
            422,
            "level",
        ),
        (
            "POST",
            "/overrides",
            {"target": {"kind": "city"}, "level": 3, "minutes": 99999},
            422,
            "7 days",
        ),
        ("DELETE", "/overrides/none", None, 404, "none"),
        (
            "PUT",
            "/programmes/p",
            {"name": "P", "steps": [{"at": "late", "level": 1}]},
            422,
            "late",
        ),
        ("PUT", "/calendars/c", {"name": "C", "default": "p"}, 409, "no programme"),
        ("PUT", "/assignments/*", {"calendar": "c"}, 404, "no calendar"),
        ("PUT", "/groups/g", {"name": "G", "members": ["Z9"]}, 404, "Z9"),
        ("DELETE", "/city", None, 404, "city"),
    ],
)
async def test_a_mistake_is_a_problem_document_that_names_it(
    api, method, path, body, status, named
):
    answer = await api.client.request(method, path, json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert named in problem["detail"]


async def test_an_override_is_compiled_recorded_and_cancelled(api):
    body = {
        "target": {"kind": "cabinet", "id": "RVO-001"},
        "level": 20,
        "minutes": 30,
        "reason": "festival",
    }
    made = await api.ask("POST", "/overrides", 201, json=body)
    assert (made["state"], made["luminaires"], made["who"]) == ("pending", 5, "tester")
    found = await api.ask("GET", "/luminaires/RVO-001-L003")
    assert found["wanted"] == 20
    assert found["reason"][0] | {"until": 0} == {
        "code": "override", "name": "festival", "level": 20.0, "until": 0,
    }  # fmt: skip
    await api.ask("DELETE", f"/overrides/{made['id']}", 204)
    (after,) = await api.ask("GET", "/overrides")
    assert after["state"] == "cancelled"
    actions = [line["action"] for line in (await api.ask("GET", "/audit"))["items"]]
    assert actions == ["cancel_override", "override"]


async def test_programme_calendar_and_assignment(api):
    programme = {
        "name": "P",
        "steps": [{"at": "sunset", "level": 70}, {"at": "sunrise", "level": 0}],
    }
    await api.ask("PUT", "/programmes/p", json=programme)
    await api.ask(
        "PUT",
        "/calendars/c",
        json={
            "name": "C",
            "default": "p",
            "rules": [{"programme": "p", "weekdays": ["sat"]}],
        },
    )
    await api.ask("PUT", "/assignments/*", json={"calendar": "c"})
    assert [p["id"] for p in await api.ask("GET", "/programmes")] == ["p"]
    assert await api.ask("GET", "/assignments") == {"*": "c"}
    found = await api.ask("GET", "/luminaires/RVO-001-L003")
    assert found["reason"][-1]["code"] in {"programme", "daylight"}


async def test_changes_are_streamed_in_columns(api):
    api.offer(("RVO-001-L002", now_ms(), "good", 44, 20.0))
    snapshot = await api.client.get("/state")
    assert len(snapshot.content) == 10
    seq = int(snapshot.headers["x-seq"])
    tick: dict[str, Any] = {}
    async with api.client.stream("GET", "/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        async for line in stream.aiter_lines():
            if not line.startswith("data:"):
                continue
            tick = json.loads(line.removeprefix("data:"))
            assert tick["seq"] > seq
            if tick["i"]:
                break
    assert dict(zip(tick["i"], tick["s"], strict=True)) == {1: 44}
    assert tick["figures"]["luminaires"] == 10


async def test_the_page_and_the_description_of_the_api_are_served(api):
    root = str(api.client.base_url).removesuffix("/api/v1/")
    page = await api.client.get(f"{root}/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    described = (await api.client.get(f"{root}/api/openapi.json")).json()
    assert "/api/v1/overrides" in described["paths"]


async def test_what_was_known_is_known_again_after_a_restart(city_folder, free_port):
    async with started(city_folder, free_port) as api:
        api.offer(("RVO-001-L004", now_ms(), "good", 33, 20.0))

        async def stored():
            return (await api.ask("GET", "/system"))["stored"]["luminaire"] == 1

        await until(stored)
    async with started(city_folder, free_port) as api:
        assert (await api.ask("GET", "/luminaires/RVO-001-L004"))["actual"] == 33
