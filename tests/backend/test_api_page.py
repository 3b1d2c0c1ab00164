"""What the page asks for beside everything else: plans, headline, one cabinet, lists."""

import asyncio
import csv
import gzip
import io
import socket

import pytest

from duha_backend.api import now
from duha_backend.api.app import PAGE
from duha_backend.api.packed import Files
from duha_backend.app import _listening
from tests.backend.test_api import (
    PROGRAMME,
    api,
    calendar_in_force,
    city_folder,
    now_ms,
    until,
)

__all__ = ["api", "city_folder"]
WEEKEND = {
    "name": "Weekend",
    "steps": [{"at": "sunset", "level": 90}, {"at": "sunrise", "level": 0}],
}
LED = {"name": "LED", "rated_w": 60, "curve": [[0, 0.5], [100, 60]]}
PLAN = {
    "programmes": {"weekend": WEEKEND},
    "calendars": {
        "c": {
            "name": "C",
            "default": "p",
            "rules": [{"programme": "weekend", "weekdays": ["fri", "sat"]}],
        }
    },
}


async def tags(api):
    return {
        f"{room}/{one['id']}": one["etag"]
        for room in ("programmes", "calendars")
        for one in await api.ask("GET", f"/{room}")
    }


async def test_a_plan_is_shown_published_at_once_and_written_down(api):
    await calendar_in_force(api)
    body = {"target": {"kind": "city"}, "nights": 7, "first": "2026-06-01"}
    shown = await api.ask("POST", "/preview", json=body | {"plan": PLAN})
    assert shown["calendars"] == {"c": ["p"] * 4 + ["weekend"] * 2 + ["p"]}
    assert shown["affected"] == 10, "all lamps have another light on two nights"
    same = await api.ask(
        "POST", "/preview", json=body | {"plan": {}, "first": "2026-06-01"}
    )
    assert same["affected"] == 0
    assert [one["id"] for one in await api.ask("GET", "/programmes")] == ["p"]

    etags = await tags(api) | {"programmes/weekend": ""}
    await api.ask("POST", "/plan?dry_run=true", json=PLAN | {"etags": etags})
    assert [one["id"] for one in await api.ask("GET", "/programmes")] == ["p"]
    made = await api.ask("POST", "/plan", json=PLAN | {"etags": etags})
    assert made == {
        name: (await tags(api))[name] for name in ("programmes/weekend", "calendars/c")
    }
    actions = [line["action"] for line in (await api.ask("GET", "/audit"))["items"]]
    assert actions[:2] == ["calendar", "programme"]


async def test_a_programme_and_a_calendar_may_have_one_id(api):
    await calendar_in_force(api)
    same = {"programmes": {"c": WEEKEND}, "calendars": PLAN["calendars"]}
    same["calendars"] = {"c": {"name": "C", "default": "c"}}
    etags = await tags(api) | {"programmes/c": ""}
    made = await api.ask("POST", "/plan", json=same | {"etags": etags})
    assert set(made) == {"programmes/c", "calendars/c"}
    assert made == {name: (await tags(api))[name] for name in made}


async def test_of_a_plan_all_or_nothing_is_taken(api):
    await calendar_in_force(api)
    etags = await tags(api) | {"programmes/weekend": ""}
    await api.ask("PUT", "/calendars/c", json={"name": "Mine", "default": "p"})
    for dry_run in ("true", "false"):
        late = await api.client.post(
            f"/plan?dry_run={dry_run}", json=PLAN | {"etags": etags}
        )
        assert late.status_code == 412
        assert "look again" in late.json()["detail"]
    dark = WEEKEND | {"steps": [{"at": "sunset", "level": 50}, {"at": "01:00", "level": 0}]}  # fmt: skip
    refused = await api.client.post(
        "/plan", json=PLAN | {"programmes": {"weekend": dark}}
    )
    assert refused.status_code == 422
    assert "no light from 01:00" in refused.json()["reasons"][0]
    nothing = {"calendars": {"c": {"name": "C", "default": "nothing"}}}
    assert (await api.client.post("/plan", json=nothing)).status_code == 409
    assert [one["id"] for one in await api.ask("GET", "/programmes")] == ["p"]
    assert (await api.ask("GET", "/calendars/c"))["name"] == "Mine"


async def test_what_a_changed_programme_touches_is_counted_by_its_lamps(api):
    await calendar_in_force(api)
    await api.ask("PUT", "/programmes/other", json=PROGRAMME)
    await api.ask("PUT", "/calendars/d", json={"name": "D", "default": "other"})
    await api.ask("PUT", "/assignments/RVO-002", json={"calendar": "d"})
    plan = {"programmes": {"other": WEEKEND}}
    body = {"target": {"kind": "city"}, "nights": 1, "plan": plan}
    shown = await api.ask("POST", "/preview", json=body)
    assert (shown["affected"], len(shown["courses"])) == (5, 2)
    two = body | {"programme": PROGRAMME}
    assert "not two" in (await api.client.post("/preview", json=two)).text


async def typed(api):
    """Give every luminaire a type."""
    lamps = (await api.ask("GET", "/assets?kind=luminaire"))["items"]
    rows = [
        f"{a['id']},luminaire,{a['cabinet']},{a['latitude']},{a['longitude']},LED,P{n},N{n}"
        for n, a in enumerate(lamps)
    ]
    text = "id,kind,cabinet,latitude,longitude,type,pole,asset_id\n" + "\n".join(rows)
    await api.ask("POST", "/assets/import?dry_run=false", content=text)
    await api.ask("PUT", "/types/LED", json=LED)
    await until(lambda: _has_poles(api, "/luminaires"))


async def _has_poles(api, path):
    return (await api.ask("GET", path))["pole"]["names"][0] == "P0"


async def test_the_headline_counts_what_works_and_what_should_be_taken(api):
    await typed(api)
    empty = await api.ask("GET", "/headline")
    assert (empty["expected_kw"], empty["night"]) == (None, None)
    columns = ("device", "ts", "quality", "level_commanded_pct", "level_actual_pct", "lamp_failure", "power_w")  # fmt: skip
    rows = [(f"RVO-001-L00{n}", now_ms(), "good", 50, 50, int(n == 2), 30) for n in range(1, 6)]  # fmt: skip
    api.offer(*rows, columns=columns)
    await asyncio.sleep(1.3)
    found = await api.ask("GET", "/headline")
    # five answer, one of them has failed; of the other five nothing has ever come: stale
    assert found["availability_pct"] == pytest.approx(100 * (10 - 1 - 5) / 10, abs=51)
    state = (await api.client.get("/state")).content
    fine = sum(byte < 110 for byte in state)
    assert found["availability_pct"] == pytest.approx(100 * fine / 10)
    assert found["expected_kw"] == pytest.approx(5 * (0.5 + 59.5 / 2) / 1000)
    assert set(found["alarms"]) == {"unacknowledged", "acknowledged", "cleared", "shelved"}  # fmt: skip
    assert found["lit_uncommanded"] == 0


async def test_one_cabinet_with_its_meter_and_lamps(api):
    await typed(api)
    meter = ("device", "ts", "quality", "power_w", "voltage_l1_v")
    api.offer(("RVO-001-E1", now_ms(), "good", 412.5, 231.0), kind="meter", columns=meter)  # fmt: skip
    lamp = ("device", "ts", "quality", "level_commanded_pct", "level_actual_pct")
    api.offer(("RVO-001-L001", now_ms(), "good", 100, 99), seq=2, columns=lamp)
    await asyncio.sleep(1.3)
    found = await api.ask("GET", "/cabinets/RVO-001")
    assert (found["power_w"], found["expected_w"], found["luminaires"]) == (412.5, 60, 5)  # fmt: skip
    (only,) = found["meters"]
    assert only["values"]["voltage_l1_v"] == 231.0
    assert (await api.ask("GET", "/cabinets/RVO-002"))["power_w"] is None
    await api.ask("GET", "/cabinets/RVO-009", expect=404)
    both = await api.ask("GET", "/cabinets")
    assert [(c["id"], c["luminaires"], c["power_w"]) for c in both] == [("RVO-001", 5, 412.5), ("RVO-002", 5, None)]  # fmt: skip
    assert (await api.ask("GET", "/city"))["grafana"] == "https://g.example"
    dimmed = {"target": {"kind": "luminaire", "id": "RVO-002-L001"}, "level": 20}
    made = await api.ask("POST", "/overrides", 201, json=dimmed)
    assert made["cabinets"] == ["RVO-002"]
    mine = await api.ask("GET", "/latest/luminaire?cabinet=RVO-001&columns=level_actual_pct")  # fmt: skip
    assert mine["columns"]["device"] == [f"RVO-001-L00{n}" for n in range(1, 6)]
    assert mine["columns"]["level_actual_pct"] == [99, None, None, None, None]
    nobody = await api.ask("GET", "/latest/luminaire?cabinet=RVO-009")
    assert nobody["columns"]["device"] == []


async def test_alarms_of_one_lamp_with_a_comment_and_the_shelf(api):
    columns = ("device", "ts", "quality", "lamp_failure", "level_commanded_pct")
    for seq, age_s in ((1, 200), (2, 0)):
        rows = [(f"RVO-001-L00{n}", now_ms() - 1000 * age_s, "good", 1, 100) for n in (2, 3)]  # fmt: skip
        api.offer(*rows, seq=seq, columns=columns)
        await asyncio.sleep(1.3)
    assert (await api.ask("GET", "/alarms?severity=high"))["items"] == []
    assert len((await api.ask("GET", "/alarms?severity=medium"))["items"]) == 2
    (one,) = (await api.ask("GET", "/alarms?object=RVO-001-L002"))["items"]
    ids = {"ids": [one["id"]]}
    await api.ask("POST", "/alarms/acknowledge", json=ids | {"comment": " crew goes "})
    (one,) = (await api.ask("GET", "/alarms?object=RVO-001-L002"))["items"]
    assert (one["comment"], one["state"]) == ("crew goes", "acknowledged")
    assert (await api.ask("GET", "/alarms?shelved=true"))["items"] == []
    await api.ask("POST", "/alarms/shelve", 204, json=ids | {"hours": 1, "reason": "x"})
    shelf = (await api.ask("GET", "/alarms?shelved=true"))["items"]
    assert [alarm["id"] for alarm in shelf] == ids["ids"]
    states = (await api.ask("GET", "/headline"))["alarms"]
    assert states["shelved"] == 1
    listed = [a["state"] for a in (await api.ask("GET", "/alarms"))["items"]]
    assert {name: n for name, n in states.items() if n} == {
        name: listed.count(name) for name in set(listed)
    }
    orders = list(csv.DictReader(io.StringIO((await api.client.get("/alarms/orders.csv")).text)))  # fmt: skip
    assert {row["comment"] for row in orders if row["object"] == "RVO-001-L002"} == {"crew goes"}  # fmt: skip
    log = list(csv.DictReader(io.StringIO((await api.client.get("/audit.csv")).text)))
    assert [row["action"] for row in log] == ["shelve", "acknowledge"]
    assert log[1]["detail"] == "crew goes"


async def test_what_runs_off_is_null_until_it_is_worked_out(api):
    square = [[13, 49], [13.01, 49], [13.01, 49.01], [13, 49]]
    body = {"name": "East", "latitude": 49, "longitude": 13, "area_ha": 4, "outline": square}  # fmt: skip
    await api.ask("PUT", "/catchments/east", json=body)
    (one,) = await api.ask("GET", "/runoff")
    assert (one["id"], one["area_ha"], one["outline"]) == ("east", 4, square)
    assert one["load_l_s_ha"] is None or one["load_l_s_ha"] >= 0


async def test_the_last_backup_is_known_to_the_page(api):
    assert (await api.ask("GET", "/system"))["last_backup"] is None
    await api.ask("POST", "/backups", 201)
    (api.backend.settings.data / "backups" / "zz-read-me").mkdir()
    assert (await api.ask("GET", "/system"))["last_backup"].startswith("20")


async def test_files_of_the_page_are_packed_once_and_browsers_ask_for_changes(api):
    root = str(api.client.base_url).removesuffix("/api/v1/")
    packed = await api.client.get(f"{root}/page.js")
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["cache-control"] == "no-cache"
    assert packed.headers["content-type"].startswith("text/javascript")
    plain = await api.client.get(
        f"{root}/page.js", headers={"Accept-Encoding": "identity"}
    )
    assert "content-encoding" not in plain.headers
    assert plain.content == packed.content == (PAGE / "page.js").read_bytes()
    known = {"If-None-Match": packed.headers["etag"]}
    again = await api.client.get(f"{root}/page.js", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert "<!doctype html>" in (await api.client.get(f"{root}/")).text
    for path in ("nothing.js", "../app.py", "%2e%2e/app.py", "views/"):
        assert (await api.client.get(f"{root}/{path}")).status_code == 404, path
    assert (await api.client.post(f"{root}/page.js")).status_code == 404


async def test_a_file_that_changes_is_read_again(tmp_path):
    (tmp_path / "words.ftl").write_text("a = old")
    files = Files(tmp_path)
    old = await files._file("words.ftl")
    assert old is not None
    assert await files._file("words.ftl") is old
    (tmp_path / "words.ftl").write_text("a = newer")
    new = await files._file("words.ftl")
    assert new is not None
    assert gzip.decompress(new.packed) == b"a = newer"
    assert new.etag != old.etag
    (tmp_path / "words.ftl").unlink()
    assert await files._file("words.ftl") is new, "another version is being installed"


async def test_a_stream_ends_after_an_hour(api, monkeypatch):
    monkeypatch.setattr(now, "STREAM_S", 0.5)
    async with api.client.stream("GET", "/events") as answer:
        lines = [line async for line in answer.aiter_lines()]
    assert [line for line in lines if line == "event: tick"]


def test_what_is_accepted_does_not_wait_for_delayed_acknowledgements(free_port):
    with _listening("127.0.0.1", free_port) as server:
        server.setblocking(True)
        with socket.create_connection(("127.0.0.1", free_port)), server.accept()[0] as one:  # fmt: skip
            assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
