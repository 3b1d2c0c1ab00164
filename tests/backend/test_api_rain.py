"""Rain and runoff over the API on its real port: what a drainage engineer asks."""

import asyncio
import json
import time

import numpy as np
import pytest

from duha_backend.lighting.inventory import Asset
from duha_sim.sewer import sewer
from tests.backend.test_api import started
from tests.backend.wet_city import GAUGES, MINUTE, PLACES, store_rain

pytestmark = pytest.mark.system

HOURS = 8
RAIN = np.zeros((4, HOURS * 60))
RAIN[:, 360:] = np.random.default_rng(5).choice([0.0, 0.2, 0.4, 1.0], (4, 120))
TABLE = {
    "name": "Example", "source": "example, no city's", "durations_min": [5, 15, 60, 1440],
    "periods_a": [2, 5, 10],
    "depth_mm": [[6, 8.5, 10.2], [10.1, 14.6, 17.5], [14.8, 21.6, 26], [33, 45, 53]],
}  # fmt: skip
WATCH = {
    "name": "Overflow",
    "model": "sewer",
    "object": "OVERFLOW",
    "stages": [0.05, 0.5, 2],
}


@pytest.fixture(scope="module")
def start():
    now = round(time.time() * 1000) // MINUTE * MINUTE
    return now - HOURS * 60 * MINUTE


@pytest.fixture
async def api(tmp_path, start, free_port):
    async with started(tmp_path, free_port) as api:
        assets = [
            Asset(name, "rain_gauge", "R1", "", "", *place)
            for name, place in zip(GAUGES, PLACES, strict=True)
        ]
        cabinet = Asset("R1", "cabinet", "", "", "", *PLACES[0])
        await store_rain(api.backend.readings, RAIN, start, GAUGES)
        await asyncio.to_thread(api.backend.registry.put_assets, [cabinet, *assets])
        rainfall = api.backend.drainage.rainfall
        async with asyncio.timeout(20):
            while (rainfall.done or 0) < start + (HOURS * 60 - 10) * MINUTE:
                await asyncio.sleep(0.05)
        yield api


async def test_rain_is_told_as_it_was_judged(api, start):
    found = await api.ask("GET", "/rain/minutes/RG-1")
    raw, used = (sum(v or 0 for v in found[n]) for n in ("raw_mm", "rain_mm"))
    assert raw == pytest.approx(used, rel=0.5)
    assert raw > 20
    assert set(found["quality"]) <= {"good", "filled", "missing"}
    sums = await api.ask("GET", "/rain/sums")
    assert [one["gauge"] for one in sums["gauges"]] == list(GAUGES)
    assert not sums["design_rain"]
    await api.ask("PUT", "/design-rain/city", json=TABLE)
    sums = await api.ask("GET", "/rain/sums")
    hour = next(s for s in sums["gauges"][0]["sums"] if s["duration_min"] == 60)
    assert hour["depth_mm"] > 10
    assert hour["period_a"] > 2
    missing = next(s for s in sums["gauges"][0]["sums"] if s["duration_min"] == 1440)
    assert missing["depth_mm"] is None, "a day of which hours are missing has no sum"
    await api.ask("GET", "/rain/minutes/NOBODY", expect=404)


async def test_the_field_says_that_it_is_interpolated(api):
    for method in ("idw", "thiessen", "kriging"):
        found = await api.ask(
            "GET", f"/rain/field?method={method}&minutes=60&columns=12"
        )
        assert found["label"] == "interpolated from 4 gauges, not radar"
        assert len(found["depth_mm"]) == 144
        assert min(found["depth_mm"]) >= 0
        assert max(found["depth_mm"]) > 5


async def test_the_field_of_an_earlier_hour_and_the_load_of_a_catchment(api, start):
    dry = time.strftime("%FT%TZ", time.gmtime(start / 1000 + 4 * 3600))
    found = await api.ask("GET", f"/rain/field?columns=12&until={dry}")
    assert found["until"][:16] == dry[:16]
    assert max(found["depth_mm"]) == 0
    body = {"name": "East", "latitude": PLACES[0][0], "longitude": PLACES[0][1], "area_ha": 4}  # fmt: skip
    await api.ask("PUT", "/catchments/east", json=body)
    now = round(time.time() * 1000) // MINUTE * MINUTE
    worked_out = {
        "device": np.array(["east"], dtype=object),
        "controller": np.array([""], dtype=object),
        "ts": np.array([now - MINUTE]),
        "quality": np.array(["good"], dtype=object),
        "rain_mm": np.array([0.4]),
        "runoff_l_s": np.array([30.0]),
    }
    await api.backend.readings.put("catchment", worked_out)
    (one,) = await api.ask("GET", "/runoff")
    assert (one["runoff_l_s"], one["load_l_s_ha"]) == (30, 7.5)


async def test_events_and_tables(api):
    await api.ask("PUT", "/design-rain/city", json=TABLE)
    found = await api.ask("GET", "/rain/events/RG-2")
    (event,) = found["statistics"]["events"]
    assert found["operation"]["dry_h"] == 1.5
    assert event["depth_mm"] > 20
    assert event["rarest"]["period_a"] == 10
    assert event["rarest"]["period"] == "> 10"
    rows = await api.ask("GET", "/rain/table/RG-2?every=year")
    assert sum(row["depth_mm"] for row in rows) == pytest.approx(
        event["depth_mm"], abs=0.1
    )


async def test_rain_goes_out_and_comes_in(api, start):
    pi = await api.ask("GET", "/rain/export.json")
    assert {one["header"]["locationId"] for one in pi["timeSeries"]} == set(GAUGES)
    answer = await api.client.get("/rain/export.dat")
    assert answer.text.startswith("RG-1 20")
    csv = (await api.client.get("/download/rain.csv")).text
    assert csv.splitlines()[0].startswith("device,ts,controller,quality,raw_mm,rain_mm")
    parquet = await api.client.get("/download/rain.parquet")
    assert parquet.content[:4] == b"PAR1"
    moved = json.loads(json.dumps(pi))
    one = next(s for s in moved["timeSeries"] if s["header"]["locationId"] == "RG-1")
    one["events"] = [
        e | {"date": "2026-10-01", "value": "0.2", "flag": "0"}
        for e in one["events"][:30]
    ]
    taken = await api.ask(
        "POST", "/rain/import", content=json.dumps({**moved, "timeSeries": [one]})
    )
    assert taken == {"series": 1, "values": 30}
    csv = "gauge;time;rain_mm\nRG-2;2026-10-02T10:01;0,4\nRG-2;2026-10-02T10:02;0,2\n"
    taken = await api.ask("POST", "/rain/import?form=csv", content=csv)
    assert taken == {"series": 1, "values": 2}
    swmm = "RG-3 2026 10 02 10 00 0.6\nRG-3 2026 10 02 10 01 0.2 ; a shower\n"
    taken = await api.ask("POST", "/rain/import?form=dat", content=swmm)
    assert taken == {"series": 1, "values": 2}
    kept = await api.ask(
        "GET",
        "/readings/rain_gauge/RG-3?since=2026-10-02T10:00:00Z&until=2026-10-02T10:05:00Z",
    )
    assert [(row["ts"], row["rain_mm"]) for row in kept["items"]] == [
        ("2026-10-02T10:01:00.000Z", 0.6), ("2026-10-02T10:02:00.000Z", 0.2)
    ]  # fmt: skip
    one["header"]["locationId"] = "NOBODY"
    await api.ask(
        "POST", "/rain/import", expect=404, content=json.dumps({"timeSeries": [one]})
    )
    await api.ask("POST", "/rain/import", expect=422, content="{}")


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("0001-01-01T00:00,0.2", "year 1 is not"),
        ("9999-12-31T23:59,0.2", "year 9999 is not"),
        ("2090-01-01T00:00,0.2", "to come"),
        ("1999-12-31T00:00,0.2", "before 2000"),
        ("2026-10-02T10:01,1e308", "never fallen"),
        ("2026-10-02T10:01,501", "0 to 500 mm"),
        ("2026-10-02T10:01,-0.2", "0 to 500 mm"),
        ("2026-10-02T10:01,nan", "row 2"),
    ],
)
async def test_imported_rain_that_no_gauge_could_have_measured_is_refused(
    api, row, named
):
    csv = f"gauge,time,rain_mm\nRG-1,{row}\n"
    answer = await api.ask("POST", "/rain/import?form=csv", expect=422, content=csv)
    assert named in answer["detail"]
    assert await asyncio.to_thread(api.backend.books.marked, "late") == []


async def test_a_model_is_added_watched_and_looks_ahead(api):
    await api.ask("PUT", "/design-rain/city", json=TABLE)
    await api.ask("PUT", "/watches/chamber", json=WATCH)
    text = sewer(12, GAUGES[:2], "gardens")
    body = {"name": "Sewer", "inp": text, "replay_days": 1}
    checked = await api.ask("PUT", "/models/sewer?dry_run=true", json=body)
    assert checked["nodes"] == 15
    assert "DRY_STEP: 01:00:00 became 00:01:00" in checked["changes"]
    await api.ask("GET", "/models/sewer", expect=404)
    await api.ask("PUT", "/models/sewer", json=body)
    async with asyncio.timeout(40):
        while True:
            found = await api.ask("GET", "/models/sewer")
            if found["run"] and found["run"]["warm"] and "ahead" in found["watches"][0]:
                break
            await asyncio.sleep(0.1)
    assert found["run"]["state"] == "running"
    assert found["watches"][0]["stage"] >= 1
    now = await api.ask("GET", "/models/sewer/now")
    assert now["nodes"]["OVERFLOW"][0] > 0.05
    ahead = await api.ask("GET", "/models/sewer/forecast")
    assert set(ahead["watches"]["chamber"]["courses"]) == {
        "dry",
        "persistence",
        "more",
        "design",
    }
    kept = await api.ask("GET", "/readings/node/sewer.OVERFLOW")
    assert kept["items"][-1]["depth_m"] > 0
    async with asyncio.timeout(20):
        while True:
            alarms = (await api.ask("GET", "/alarms"))["items"]
            codes = {alarm["code"] for alarm in alarms}
            if any(code.startswith("floodStage") for code in codes):
                break
            await asyncio.sleep(0.2)
    assert (await api.client.get("/models/sewer/inp")).text == text
    runs = await api.ask("GET", "/runs?kind=forecast&model=sewer")
    assert runs[0]["state"] == "complete"
    assert (await api.ask("GET", f"/runs/{runs[0]['id']}"))["result"]["every_min"] == 5
    await api.ask("DELETE", "/models/sewer", expect=204)
    await api.ask("GET", "/models/sewer/now", expect=404)


async def test_a_broken_model_is_refused_with_its_lines(api):
    bad = sewer(5, GAUGES[:1]).replace("K0003 CIRCULAR", "K0003 TRIANGEL")
    answer = await api.ask(
        "PUT", "/models/bad", expect=422, json={"name": "Bad", "inp": bad}
    )
    assert "TRIANGEL" in answer["detail"]
    assert "at line" in answer["detail"]
    await api.ask("PUT", "/models/none", expect=422, json={"name": "None"})
    lost = {
        "name": "x",
        "inp": sewer(5, GAUGES[:1]),
        "gauges": {"RG-1": {"gauge": "NOBODY"}},
    }
    answer = await api.ask("PUT", "/models/lost", expect=422, json=lost)
    assert "no gauge 'NOBODY'" in answer["detail"]


async def test_what_is_known_of_gauges_is_a_document(api):
    care = {"calibrations": [{"since": "2026-01-01", "points": [[10, 10.5], [60, 66]]}]}
    await api.ask("PUT", "/gauges/RG-1", json=care)
    await api.ask(
        "PUT",
        "/gauges/RG-2",
        expect=422,
        json={"calibrations": [{"since": "2026-01-01", "points": [[10, 90]]}]},
    )
    await api.ask("PUT", "/rain-rules/city", json={"thresholds": {"part": 0.5}})
    await api.ask(
        "PUT", "/rain-rules/city", expect=422, json={"thresholds": {"nonsense": 1}}
    )
    catchment = {"name": "C", "latitude": 49.75, "longitude": 13.38, "area_ha": 3}
    await api.ask("PUT", "/catchments/c1", json=catchment)
    await api.ask(
        "POST", "/rain/again", expect=202, json={"since": "2026-11-23T00:00:00Z"}
    )
    await api.ask(
        "POST", "/rain/again", expect=422, json={"since": "2001-01-01T00:00:00Z"}
    )


async def test_a_study_is_asked_for_and_read_on_paper(api, start):
    await api.ask("PUT", "/design-rain/city", json=TABLE)
    for variant in ("today", "gardens"):
        body = {"name": variant, "inp": sewer(8, GAUGES[:2], variant), "running": False}
        await api.ask("PUT", f"/models/{variant}", json=body)
    moments = [
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start / 1000 + h * 3600))
        for h in (5, 7)
    ]
    asked = {
        "name": "Gardens", "models": ["today", "gardens"], "tail_h": 2,
        "design": [{"table": "city", "period_a": 5, "minutes": 60}],
        "happened": [{"since": moments[0], "until": moments[1]}],
    }  # fmt: skip
    study = (await api.ask("POST", "/studies", expect=202, json=asked))["id"]
    async with asyncio.timeout(60):
        while (found := await api.ask("GET", f"/studies/{study}"))[
            "state"
        ] == "pending":
            await asyncio.sleep(0.2)
    assert found["state"] == "complete", found["detail"]
    assert [one["models"] for one in found["rains"]] == [["today", "gardens"]] * 2
    lines = {line["name"]: line["values"] for line in found["rains"][0]["lines"]}
    assert lines["overflow_m3"][1] < lines["overflow_m3"][0]
    paper = await api.client.get(f"/studies/{study}/report.pdf?language=en")
    assert paper.content[:5] == b"%PDF-"
    await api.ask("POST", "/studies", expect=404, json=asked | {"models": ["nobody"]})
    await api.ask(
        "POST", "/studies", expect=422, json=asked | {"design": [], "happened": []}
    )
    await api.ask("GET", "/studies/none", expect=404)
