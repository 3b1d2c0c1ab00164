"""The API on its real port: a backend process in this loop, without a broker."""

import asyncio
import contextlib
import datetime as dt
import json
import socket
import time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from duha_backend.app import Backend, Settings
from duha_backend.assets import parse
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
    settings = Settings(folder, Broker(port=1), port=port, grafana="https://g.example")
    backend = Backend(settings, Clock(time.time))
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
    found = parse(json.dumps(geojson(generate(2, 5, 2))).encode())
    registry.put_assets(found.assets, found.streets)
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
    found = await api.ask("GET", "/system")
    assert found["ingest"]["rows"] == 1
    assert found["books"]["quarantine"] == 2


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
            {
                "target": {"kind": "city"},
                "level": 30,
                "minutes": 5,
                "until": "2099-01-01T00:00:00Z",
            },
            422,
            "not both",
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
        ("PUT", "/groups/g", {"name": "G", "rule": {"colour": ["red"]}}, 422, "colour"),
        ("PUT", "/stretches/s", {"name": "S", "normal": "M9"}, 422, "M9"),
        (
            "PUT",
            "/stretches/s",
            {"name": "S", "normal": "M4", "adaptive": ["M3"]},
            422,
            "more than the normal",
        ),
        ("PUT", "/types/t", {"name": "T", "rated_w": 0}, 422, "rated_w"),
        ("PUT", "/tariffs/energy", {"price_per_kwh": 5}, 422, "source"),
        ("DELETE", "/programmes/none", None, 404, "none"),
        ("GET", "/luminaires/none/explain", None, 404, "none"),
        ("POST", "/preview", {"target": {"kind": "street", "id": "none"}}, 404, "none"),
        (
            "POST",
            "/inputs",
            {
                "kind": "motion",
                "target": {"kind": "luminaire", "id": "Z9"},
                "hold_s": 9,
            },
            404,
            "Z9",
        ),
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


RAIN = ("device", "ts", "quality", "rain_mm")
PROGRAMME = {
    "name": "P",
    "steps": [{"at": "sunset", "level": 70}, {"at": "sunrise", "level": 0}],
}


async def calendar_in_force(api, programme=None):
    await api.ask("PUT", "/programmes/p", json=programme or PROGRAMME)
    await api.ask("PUT", "/calendars/c", json={"name": "C", "default": "p"})
    await api.ask("PUT", "/assignments/*", json={"calendar": "c"})


async def test_an_override_without_an_end_is_over_at_the_next_noon(api):
    body = {"target": {"kind": "city"}, "level": 20}
    made = await api.ask("POST", "/overrides", 201, json=body)
    end = dt.datetime.fromisoformat(made["end"]).astimezone(ZoneInfo("Europe/Prague"))
    assert (end.hour, end.minute) == (12, 0)
    assert dt.timedelta(0) < end - dt.datetime.now(dt.UTC) <= dt.timedelta(hours=25)


async def test_an_emergency_is_one_call_and_goes_before_everything(api):
    await calendar_in_force(api)
    dim = {"target": {"kind": "city"}, "level": 5, "minutes": 60}
    await api.ask("POST", "/overrides", 201, json=dim)
    made = await api.ask("POST", "/emergency", 201, json={"reason": "flood"})
    assert (made["emergency"], made["luminaires"]) == (True, 10)
    found = await api.ask("GET", "/luminaires/RVO-001-L003")
    assert found["wanted"] == 100
    assert found["reason"][0]["code"] == "emergency"
    await api.ask("DELETE", f"/overrides/{made['id']}", 204)
    assert (await api.ask("GET", "/luminaires/RVO-001-L003"))["wanted"] == 5


async def test_a_calendar_that_would_leave_a_street_dark_is_refused_with_nights(api):
    await calendar_in_force(api)
    gap = PROGRAMME | {
        "steps": [{"at": "sunset", "level": 70}, {"at": "02:00", "level": 0}]
    }
    for dry_run in ("true", "false"):
        answer = await api.client.put(
            "/programmes/p", json=gap, params={"dry_run": dry_run}
        )
        assert answer.status_code == 422
        (reason,), (parts,) = answer.json()["reasons"], answer.json()["refusals"]
        assert "no light from 02:00" in reason
        assert (parts["calendar"], parts["programme"], parts["rule"]) == ("c", "p", 0)
        assert (parts["code"], parts["sentence"]) == ("dark", "no-light")
        assert parts["values"] == {"at": "02:00"}
        assert len(parts["nights"]) == 3
        assert reason.count("-") >= 6  # three dates
    (programme,) = await api.ask("GET", "/programmes")
    assert programme["steps"][1]["at"] == "sunrise"
    assert await api.ask("GET", "/calendars/c/check") == []


async def test_a_class_of_a_stretch_is_a_floor(api):
    lamp = (await api.ask("GET", "/assets?kind=luminaire&limit=1"))["items"][0]
    header = "id,kind,cabinet,latitude,longitude,stretch\n"
    row = f"{lamp['id']},luminaire,RVO-001,{lamp['latitude']},{lamp['longitude']},main"
    await api.ask("POST", "/assets/import?dry_run=false", content=header + row)
    await until(lambda: _has_stretch(api, lamp["id"]))
    await calendar_in_force(api)
    stretch = {"name": "Main", "normal": "M4", "adaptive": ["M5"], "levels": {"M5": 75}}
    answer = await api.client.put("/stretches/main", json=stretch)
    assert answer.status_code == 422
    assert "the lighting class needs 75 %" in answer.json()["detail"]
    fine = stretch | {"levels": {"M5": 60}}
    await api.ask("PUT", "/stretches/main", json=fine)
    body = {"target": {"kind": "stretch", "id": "main"}, "level": 30}
    assert (await api.ask("POST", "/overrides", 201, json=body))["below_class"] == 1


async def _has_stretch(api, name):
    return (await api.ask("GET", f"/luminaires/{name}"))["stretch"] == "main"


async def test_two_who_edit_one_calendar_do_not_overwrite_each_other(api):
    await calendar_in_force(api)
    url = "/calendars/c"
    tag = (await api.client.get(url)).headers["etag"]
    mine = {"name": "Mine", "default": "p"}
    answer = await api.client.put(url, json=mine, headers={"If-Match": tag})
    assert answer.status_code == 200
    late = await api.client.put(url, json=mine, headers={"If-Match": tag})
    assert late.status_code == 412
    tried = {"dry_run": "true"}
    late = await api.client.put(url, json=mine, headers={"If-Match": tag}, params=tried)
    assert late.status_code == 412, "said before it is published, too"
    assert "look again" in late.json()["detail"]
    fresh = answer.headers["etag"]
    assert fresh == (await api.client.get(url)).headers["etag"] != tag
    history = await api.ask("GET", f"{url}/history")
    assert [v["document"]["name"] for v in history] == ["Mine", "C"]
    line = (await api.ask("GET", "/audit"))["items"][0]
    assert '"C"' in line["before"]
    assert '"Mine"' in line["after"]
    assert line["source"] == "127.0.0.1"


async def test_two_who_assign_a_calendar_do_not_overwrite_each_other(api):
    await calendar_in_force(api)
    tag = (await api.client.get("/assignments/*")).headers["etag"]
    assert tag == '"c"'
    nothing = {"calendar": None}
    wrong = {"If-Match": '"other"'}
    answer = await api.client.put("/assignments/*", json=nothing, headers=wrong)
    assert (answer.status_code, "meanwhile" in answer.text) == (412, True)
    await api.ask("PUT", "/assignments/*", json=nothing, headers={"If-Match": tag})
    assert await api.ask("GET", "/assignments") == {}


async def test_roads_are_told_by_cabinet_and_gauges(api):
    api.offer(("SR-01", now_ms() - 5000, "good", 0.0), kind="rain_gauge", columns=RAIN)
    api.offer(("SR-01", now_ms(), "good", 0.2), seq=2, kind="rain_gauge", columns=RAIN)

    async def wet():
        found = await api.ask("GET", "/roads")
        return {a["state"] for a in found if "SR-01" in a["gauges"]} == {"wet"}

    await until(wet)
    found = await api.ask("GET", "/roads")
    assert {area["cabinet"] for area in found} == {"RVO-001", "RVO-002"}
    assert all(a["wet_until"] for a in found if "SR-01" in a["gauges"])


async def test_what_others_need_is_not_taken_away(api):
    await calendar_in_force(api)
    for path, named in (("/programmes/p", "calendar c"), ("/calendars/c", "*")):
        answer = await api.client.delete(path)
        assert answer.status_code == 409
        assert named in answer.json()["detail"]
    await api.ask("PUT", "/assignments/*", json={"calendar": None})
    await api.ask("DELETE", "/calendars/c", 204)
    await api.ask("DELETE", "/programmes/p", 204)
    assert await api.ask("GET", "/programmes") == []


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("viewer", [200, 403, 403, 403]),
        ("operator", [200, 201, 403, 403]),
        ("engineer", [200, 201, 200, 403]),
        ("admin", [200, 201, 200, 201]),
    ],
)
async def test_a_role_may_do_what_its_work_needs(api, role, may):
    token = api.backend.registry.new_token("somebody", role=role)
    calls = [
        ("GET", "/city", None),
        ("POST", "/overrides", {"target": {"kind": "city"}, "level": 20}),
        ("PUT", "/programmes/p", PROGRAMME),
        ("POST", "/backups", None),
    ]
    found = []
    for method, path, body in calls:
        answer = await api.client.request(
            method, path, json=body, headers={"Authorization": f"Bearer {token}"}
        )
        found.append(answer.status_code)
        if answer.status_code == 403:
            assert f"somebody is {role}" in answer.json()["detail"]
    assert found == may


async def test_a_preview_shows_curves_sun_energy_and_money(api):
    await calendar_in_force(api)
    lamps = (await api.ask("GET", "/assets?kind=luminaire"))["items"]
    rows = [
        f"{a['id']},luminaire,{a['cabinet']},{a['latitude']},{a['longitude']},LED62"
        for a in lamps
    ]
    text = "id,kind,cabinet,latitude,longitude,type\n" + "\n".join(rows)
    await api.ask("POST", "/assets/import?dry_run=false", content=text)
    kind = {"name": "LED 62 W", "rated_w": 62, "standby_w": 0}
    await api.ask("PUT", "/types/LED62", json=kind)
    tariff = {"price_per_kwh": 5.0, "co2_kg_per_kwh": 0.4, "source": "contract 2026"}
    await api.ask("PUT", "/tariffs/energy", json=tariff)
    await asyncio.sleep(1.2)
    half = PROGRAMME | {
        "steps": [{"at": "sunset", "level": 35}, {"at": "sunrise", "level": 0}]
    }
    body = {
        "target": {"kind": "city"}, "programme": half, "first": "2026-12-21", "nights": 2,
    }  # fmt: skip
    found = await api.ask("POST", "/preview", json=body)
    (course,) = found["courses"]
    assert course["luminaires"] == 10
    assert len(course["level"]) == 2 * 288
    assert set(course["level"]) == {0, 35}
    usual = await api.ask("POST", "/preview", json={"target": {"kind": "city"}})
    assert [c["calendar"] for c in usual["courses"]] == ["c"]
    assert usual["total"]["kwh"] == usual["total"]["now_kwh"] > 0
    night = found["nights"][0]
    hours = (
        dt.datetime.fromisoformat(night["sunrise"])
        - dt.datetime.fromisoformat(night["sunset"])
    ).total_seconds() / 3600
    assert 15.5 < hours < 16.2
    # Proportional power, no curve: 10 lamps x 62 W x share x hours
    for name, share in (("kwh", 0.35), ("now_kwh", 0.7), ("baseline_kwh", 1.0)):
        assert night[name] == pytest.approx(0.62 * share * hours, rel=0.01)
    total = found["total"]
    assert total["cost"] == pytest.approx(5 * total["kwh"], abs=0.01)
    assert total["baseline_co2_kg"] == pytest.approx(
        0.4 * total["baseline_kwh"], abs=0.01
    )
    assert found["without_type"] == 0


async def test_without_a_tariff_nothing_is_invented(api):
    found = await api.ask("POST", "/preview", json={"target": {"kind": "city"}})
    assert found["total"]["cost"] is None
    assert found["total"]["co2_kg"] is None
    assert found["without_type"] == 10
    assert found["total"]["kwh"] == 0


async def test_a_lamp_is_explained_at_any_instant(api):
    await calendar_in_force(api)
    path = "/luminaires/RVO-001-L003/explain"
    coming = await api.ask("GET", path, params={"at": "2027-01-15T22:00:00Z"})
    assert coming["level"] == 70
    assert [c["code"] for c in coming["reason"]] == ["programme"]
    changed = now_ms() + 1
    await asyncio.sleep(0.05)
    body = {"target": {"kind": "street", "id": "nowhere"}, "level": 20}
    await api.ask("POST", "/overrides", 404, json=body)
    body["target"] = {"kind": "cabinet", "id": "RVO-001"}
    made = await api.ask("POST", "/overrides", 201, json=body)
    during = now_ms()
    await asyncio.sleep(0.05)
    await api.ask("DELETE", f"/overrides/{made['id']}", 204)
    await asyncio.sleep(0.05)

    async def codes(t):
        at = dt.datetime.fromtimestamp(t / 1000, dt.UTC).isoformat()
        found = await api.ask("GET", path, params={"at": at})
        return [cause["code"] for cause in found["reason"]][:1]

    assert await codes(during) == ["override"]
    assert await codes(changed) != ["override"]
    assert await codes(now_ms()) != ["override"]
    assert await codes(changed - 3_600_000) == [
        "default"
    ]  # nobody had assigned anything


async def test_programme_calendar_and_assignment(api):
    programme = PROGRAMME
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
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "blob:" not in policy
    described = (await api.client.get(f"{root}/api/openapi.json")).json()
    assert "/api/v1/overrides" in described["paths"]


async def test_what_was_known_is_known_again_after_a_restart(city_folder, free_port):
    async with started(city_folder, free_port) as api:
        api.offer(("RVO-001-L004", now_ms(), "good", 33, 20.0))

        async def stored():
            return (await api.ask("GET", "/system"))["ingest"]["rows"] == 1

        await until(stored)
    async with started(city_folder, free_port) as api:
        assert (await api.ask("GET", "/luminaires/RVO-001-L004"))["actual"] == 33


async def test_a_span_in_steps_in_gaps_and_as_files(api):
    now = now_ms()
    start = now - 3_600_000
    rows = [("RVO-001-L001", start + n * 60_000, "good", 50, 30.0) for n in range(60)]
    del rows[20:40]
    api.offer(*rows)

    async def stored():
        return (await api.ask("GET", "/system"))["ingest"]["rows"] == 40

    await until(stored)
    path = "/readings/luminaire/RVO-001-L001"
    page = await api.ask("GET", f"{path}?limit=25&since={at(start)}")
    rest = await api.ask("GET", f"{path}?cursor={page['cursor']}")
    assert len(page["items"]) == 25
    assert len({r["ts"] for r in page["items"] + rest["items"]}) == 40
    steps = await api.ask("GET", f"{path}?step=15m&since={at(start - 900_000)}")
    assert sum(row["n"] for row in steps["items"]) == 40
    (gap,) = await api.ask("GET", "/gaps/luminaire/RVO-001-L001?longest_s=300"
                                  f"&since={at(start)}")  # fmt: skip
    assert gap["seconds"] == 21 * 60
    since = f"since={at(start)}"
    text = (await api.client.get(f"/download/luminaire.csv?{since}")).text
    assert text.splitlines()[0].startswith("device,ts,controller,quality,")
    assert len(text.splitlines()) == 41
    lines = (
        await api.client.get(f"/download/luminaire.json?{since}")
    ).text.splitlines()
    assert len(lines) == 40
    assert json.loads(lines[0])["power_w"] == 30
    parquet = await api.client.get(f"/download/luminaire.parquet?{since}")
    assert parquet.content[:4] == parquet.content[-4:] == b"PAR1"
    empty = await api.client.get("/download/luminaire.parquet?device=nobody")
    assert empty.content[:4] == b"PAR1"


def at(ms):
    return (
        dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat().replace("+00:00", "Z")
    )


async def test_a_curve_of_the_city(api):
    start = now_ms() // 900_000 * 900_000 - 900_000
    rows = [(f"RVO-001-L00{n}", start + 5, "good", 50, 30.0) for n in (1, 2, 3)]
    api.offer(*rows)

    async def stored():
        return (await api.ask("GET", "/system"))["ingest"]["rows"] == 3

    await until(stored)
    await api.backend.readings.roll("luminaire", "15m", start)
    found = await api.ask("GET", "/curve/luminaire?quantities=power_w,level_actual_pct")
    assert found["columns"]["power_w"] == [90]
    assert found["columns"]["level_actual_pct"] == [50]
    assert found["columns"]["devices"] == [3]
    await api.ask("GET", "/curve/luminaire?quantities=charm", 422)


async def test_the_latest_of_everything_in_one_call(api):
    api.offer(("RVO-001-L002", now_ms(), "good", 44, 20.0))

    async def known():
        found = await api.ask("GET", "/latest/luminaire?columns=level_actual_pct")
        return found["columns"]["level_actual_pct"][1] == 44

    await until(known)
    found = await api.ask("GET", "/latest/luminaire?columns=power_w")
    assert len(found["columns"]["device"]) == 10
    assert found["columns"]["power_w"][:2] == [None, 20]
    await api.ask("GET", "/latest/luminaire?columns=charm", 422)
    await api.ask("GET", "/latest/toaster", 404)


async def test_figures_for_monitoring(api):
    api.offer(("RVO-001-L002", now_ms(), "good", 44, 20.0))

    async def stored():
        return (await api.ask("GET", "/system"))["ingest"]["rows"] == 1

    await until(stored)
    root = str(api.client.base_url).removesuffix("/api/v1/")
    answer = await api.client.get(f"{root}/metrics")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = {f.name: f for f in text_string_to_metric_families(answer.text)}
    assert families["duha_ingest_rows"].samples[0].value == 1
    assert families["duha_city_luminaires"].samples[0].value == 10
    assert families["duha_ingest_lag_seconds"].samples[-1].value == 1
    plain = await api.client.get(f"{root}/metrics", headers={"Authorization": ""})
    assert plain.status_code == 401


async def test_an_import_is_tried_first_and_then_seen_at_once(api):
    header = "id,kind,cabinet,latitude,longitude,type\n"
    good = "RVO-009,cabinet,,49.7,13.3,\nX1,luminaire,RVO-009,49.7,13.3,LED-40\n"
    bad = "X2,luminaire,nowhere,49.7,13.3,\n"
    found = await api.ask("POST", "/assets/import", content=header + good + bad)
    assert (found["taken"], found["assets"]) == (False, 2)
    assert found["problems"] == [
        {"row": 4, "id": "X2", "reason": "there is no cabinet 'nowhere'"}
    ]
    path = "/assets/import?dry_run=false"
    assert not (await api.ask("POST", path, content=header + bad))["taken"]
    assert (await api.ask("POST", path, content=header + good))["taken"]

    async def seen():
        return (await api.client.get("/luminaires/X1")).status_code == 200

    await until(seen)
    assert "X1,luminaire,RVO-009" in (await api.client.get("/assets.csv")).text
    features = (await api.ask("GET", "/assets.geojson"))["features"]
    assert "X1" in [f["properties"].get("id") for f in features]
    (line,) = (await api.ask("GET", "/audit"))["items"]
    assert line["action"] == "import"


async def test_a_backup_can_be_started_from(api, tmp_path):
    api.offer(("RVO-001-L002", now_ms(), "good", 44, 20.0))

    async def stored():
        return (await api.ask("GET", "/system"))["ingest"]["rows"] == 1

    await until(stored)
    made = await api.ask("POST", "/backups", 201)
    assert made["files"] == ["readings.duckdb", "registry.db"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with started(Path(made["folder"]), port) as copy:
        assert (await copy.ask("GET", "/luminaires/RVO-001-L002"))["actual"] == 44


async def test_what_was_refused_is_played_again(api):
    api.offer(("RVO-001-L001", now_ms(), "good", 500, 1), controller="RVO-002")

    async def kept():
        return len((await api.ask("GET", "/quarantine"))["items"]) == 1

    await until(kept)
    (item,) = (await api.ask("GET", "/quarantine?controller=RVO-002"))["items"]
    found = await api.ask("POST", "/quarantine/replay", json={"ids": [item["id"]]})
    assert found["stored"] == []
    assert "belongs to RVO-001" in found["refused"][0]["reason"]


async def test_a_session_opens_no_other(api):
    async with httpx.AsyncClient(base_url=api.client.base_url) as plain:
        answer = await plain.post("/session", json={"token": api.token})
        session = answer.cookies["duha_session"]
        assert (
            await plain.post("/session", json={"token": session})
        ).status_code == 401


async def test_an_asset_is_taken_out_of_the_inventory(api):
    name = "RVO-001-L001"
    await api.ask("DELETE", "/assets/RVO-001", 409)
    await api.ask("DELETE", f"/assets/{name}", 204)
    await api.ask("DELETE", f"/assets/{name}", 404)

    async def gone():
        return name not in (await api.client.get("/luminaires")).text

    await until(gone)
    (line,) = [
        one
        for one in (await api.ask("GET", "/audit"))["items"]
        if one["action"] == "remove_asset"
    ]
    assert (line["who"], line["target"]) == ("tester", name)
    assert name in line["before"]


async def test_a_luminaire_without_a_cabinet_is_shown_and_the_city_goes_on(api):
    text = "id,kind,latitude,longitude\nL1,luminaire,49.7,13.3\n"
    found = await api.ask("POST", "/assets/import?dry_run=false", content=text)
    assert found["without_control"] == 1

    async def there():
        answer = await api.client.get("/luminaires/L1")
        return answer.status_code == 200 and answer.json()["wanted"] is not None

    await until(there)
    made = await api.ask(
        "POST", "/overrides", 201, json={"target": {"kind": "city"}, "level": 30}
    )
    assert (made["luminaires"], made["without_control"]) == (11, 1)
    await asyncio.sleep(1.2)
    system = await api.ask("GET", "/system")
    assert (system["failing"], system["set_aside"]) == ({}, [])


async def test_a_document_with_numbers_that_are_not_finite_is_refused(api):
    for path, body in (
        ("/stretches/t", b'{"name": "T", "length_m": Infinity}'),
        ("/types/T", b'{"name": "T", "rated_w": 1e999}'),
        ("/catchments/t", b'{"name": "T", "latitude": 49, "longitude": 13, "area_ha": Infinity}'),
        ("/rain-rules/city", b'{"thresholds": {"spike_mm": NaN}}'),
    ):  # fmt: skip
        answer = await api.client.put(path, content=body)
        assert answer.status_code == 422, answer.text
    await api.ask(
        "POST", "/overrides", 201, json={"target": {"kind": "city"}, "level": 30}
    )
    await api.ask("POST", "/emergency", 201, json={"reason": "test"})


async def test_an_override_that_gets_further_is_told_by_a_number_in_the_tick(api):
    async def number():
        async with api.client.stream("GET", "/events") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    return json.loads(line[5:])["overrides"]
        return None

    before = await number()
    body = {"target": {"kind": "city"}, "level": 30}
    made = await api.ask("POST", "/overrides", 201, json=body)
    assert await number() > before
    (listed,) = await api.ask("GET", "/overrides")
    assert listed == made
    assert made["end"].endswith("Z")


async def test_an_alarm_from_a_reading_to_its_acknowledgement(api):
    """A driver says that its lamp has failed: seen, taken over, repaired, gone."""
    # The alarm's own delay is passed by dating the first reading back.
    columns = ("device", "ts", "quality", "lamp_failure", "level_commanded_pct")
    lamp, seq = "RVO-001-L002", 0

    async def reads(failed, age_s=0):
        nonlocal seq
        seq += 1
        row = (lamp, now_ms() - 1000 * age_s, "good", failed, 100)
        api.offer(row, seq=seq, columns=columns)
        await asyncio.sleep(1.3)

    await reads(1, age_s=200)
    await reads(1)

    async def standing():
        found = (await api.ask("GET", "/alarms"))["items"]
        return [a for a in found if a["code"] == "lampFailure"]

    (alarm,) = await standing()
    assert (alarm["object"], alarm["state"], alarm["severity"]) == (lamp, "unacknowledged", "medium")  # fmt: skip
    orders = (await api.client.get("/alarms/orders.csv")).text
    assert lamp in orders
    assert "latitude" in orders
    ids = {"ids": [alarm["id"]]}
    assert await api.ask("POST", "/alarms/acknowledge", json=ids) == {"acknowledged": 1}
    await api.ask("POST", "/alarms/assign", 204, json=ids | {"to": "crew 2"})
    assert (await standing())[0]["assigned"] == "crew 2"
    shelf = ids | {"hours": 2, "reason": "waiting for a driver"}
    await api.ask("POST", "/alarms/shelve", 204, json=shelf)
    assert (await standing())[0]["state"] == "shelved"
    await api.ask("POST", "/alarms/unshelve", 204, json=ids)
    await reads(0)
    await reads(0, age_s=-59)  # a clock may be a minute ahead
    assert await standing() == []
    history = (await api.ask("GET", "/alarms?everything=true"))["items"]
    assert next(a for a in history if a["id"] == alarm["id"])["state"] == "closed"
    actions = [line["action"] for line in (await api.ask("GET", "/audit"))["items"]]
    assert actions == ["unshelve", "shelve", "assign_alarm", "acknowledge"]
    assert (await api.ask("GET", "/deliveries")) == []
    assert len(await api.ask("GET", "/alarms/kinds")) >= 25


@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        ("acknowledge", {"ids": [77]}, 404, "77"),
        ("shelve", {"ids": [1], "reason": "x"}, 422, "for ever"),
        ("shelve", {"ids": [1], "hours": 2}, 422, "reason"),
    ],
)
async def test_a_mistake_with_alarms_is_named(api, path, body, status, named):
    answer = await api.client.post(f"/alarms/{path}", json=body)
    assert answer.status_code == status
    assert named in answer.json()["detail"]


async def test_channels_and_quiet_windows_are_documents(api):
    channel = {"kind": "webhook", "to": "https://example.org/a"}
    await api.ask("PUT", "/channels/dispatch", json=channel)
    answer = await api.client.put("/channels/x", json={"kind": "email", "to": "nobody"})
    assert (answer.status_code, "nobody" in answer.text) == (422, True)
    await api.ask("PUT", "/quiet/day", json={"cabinets": ["RVO-001"]})
    answer = await api.client.put("/quiet/day", json={"start": "noon"})
    assert (answer.status_code, "noon" in answer.text) == (422, True)
    assert [c["id"] for c in await api.ask("GET", "/channels")] == ["dispatch"]


async def test_sizing_shows_its_calculation_over_the_citys_own_table(api):
    table = {
        "name": "Example",
        "source": "example, no city's",
        "durations_min": [5, 60, 360, 1440],
        "periods_a": [5, 10],
        "depth_mm": [[8.5, 10.2], [21.6, 26], [32, 38], [45, 53]],
    }
    await api.ask("PUT", "/design-rain/city", json=table)
    body = {
        "surfaces": [{"area_m2": 250, "kind": "roof"}],
        "table": "city",
        "infiltrating_m2": 16,
        "conductivity_m_s": 5e-6,
    }
    found = await api.ask("POST", "/sizing", json=body)
    assert found["volume_m3"] == pytest.approx(8.514, abs=1e-3)
    assert [trial["duration_min"] for trial in found["trials"]] == [5, 60, 360, 1440]
    assert found["source"] == "example, no city's"
    for path, wrong, status, named in (
        ("/sizing", body | {"table": "none"}, 404, "none"),
        (
            "/sizing",
            body | {"surfaces": [{"area_m2": 5, "kind": "grass"}]},
            422,
            "grass",
        ),
        ("/sizing", body | {"infiltrating_m2": 0}, 422, "nothing leaves"),
    ):
        answer = await api.client.post(path, json=wrong)
        assert (answer.status_code, named in answer.json()["detail"]) == (status, True)
    shrinking = table | {"depth_mm": [[8, 10], [7, 9], [6, 8], [5, 7]]}
    answer = await api.client.put("/design-rain/city", json=shrinking)
    assert (answer.status_code, "grows" in answer.text) == (422, True)
