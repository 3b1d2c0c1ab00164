"""Grafana as code: the files are current, sound, and every query runs on a real InfluxDB."""

import http.server
import json
import re
import threading
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from duha_backend.cli import main
from duha_backend.grafana.boards import BOARDS, RULES
from duha_backend.grafana.build import dashboard, data_sources, files
from duha_backend.influx import Influx, InfluxReadings
from duha_backend.readings import DAY_MS, QUARTER_MS, Retention
from duha_backend.validate import Columns, Examined
from duha_contract.messages import Batch
from duha_contract.quantities import BY_NAME
from tests import servers

ROOT = Path(__file__).resolve().parents[2]
PAGE = "http://127.0.0.1:8470/"
DAY = 1_799_971_200_000
UNTIL = DAY + 2 * DAY_MS
FOREVER = Retention(raw=None, quarters=None, days=None)


def test_what_is_committed_is_what_is_built():
    for name, text in files(PAGE).items():
        assert (ROOT / "deploy" / "grafana" / name).read_text("utf-8") == text, (
            "run `duha backend grafana build`"
        )


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: b.uid)
def test_a_dashboard_is_sound(board):
    made = dashboard(board, PAGE)
    panels = made["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    known = {source["uid"] for source in data_sources()["datasources"]}
    for panel in panels:
        assert panel["datasource"]["uid"] in known
        for target in panel["targets"]:
            assert target["datasource"]["uid"] in known
            named = set(re.findall(r"\$(\w+)", target["query"]))
            given = {variable.name for variable in board.variables}
            assert named <= given | {"timeFilter", "__interval"}
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not mine & cells, "panels overlap"
        cells |= mine
    again = json.loads(json.dumps(Dashboard.from_json(made), cls=JSONEncoder))
    assert again == made, "a key that Grafana's SDK does not know"


def test_uids_are_unique_and_links_lead_to_the_page():
    uids = [board.uid for board in BOARDS] + [rule.uid for rule in RULES]
    assert len(set(uids)) == len(uids)
    for board in BOARDS:
        urls = [link.get("url") for link in dashboard(board, PAGE)["links"]]
        assert any((url or "").startswith(PAGE) for url in urls)


def test_provisioning_is_yaml_without_secrets():
    for name, text in files(PAGE).items():
        if name.endswith(".yaml"):
            assert yaml.safe_load(text)["apiVersion"] == 1
    made = files(PAGE)["provisioning/datasources/duha.yaml"]
    assert "$DUHA_INFLUX_TOKEN" in made
    alerts = yaml.safe_load(files(PAGE)["provisioning/alerting/duha.yaml"])
    assert {rule["uid"] for rule in alerts["groups"][0]["rules"]} == {
        r.uid for r in RULES
    }
    assert alerts["contactPoints"][0]["name"] == alerts["policies"][0]["receiver"]


# -- every query on a real server -----------------------------------------------------------


def city(kind, devices, minute, **values):
    n = len(devices)
    columns = {
        "device": list(devices), "ts": [DAY + minute * 60_000] * n,
        "quality": ["good"] * (n - 1) + ["no_answer"], **{k: [v] * n for k, v in values.items()},
    }  # fmt: skip
    batch = Batch(1, "boot", "box", minute, "trusted")
    return Examined("RVO-001", batch, [Columns.of(kind, columns)])


def derived(kind, device, controller="sewer", **values):
    n = 200
    frame = {
        "device": np.full(n, device, dtype=object),
        "ts": DAY + np.arange(n) * 600_000,
        "controller": np.full(n, controller, dtype=object),
        "quality": np.full(n, "good", dtype=object),
    }
    return frame | {q: np.full(n, values.get(q, 1.0)) for q in BY_NAME[kind]}


@pytest.fixture(scope="module")
def influx(tmp_path_factory):
    with servers.influxd(tmp_path_factory.mktemp("influxd")) as url:
        yield url


async def filled(url):
    store = InfluxReadings(Influx(url), FOREVER)
    await store.prepare(FOREVER)
    messages = []
    for minute in range(0, 2 * 1440, 10):
        messages.append(city("luminaire", ("L1", "L2"), minute, level_actual_pct=50.0, level_commanded_pct=50.0,
                             level_in_effect_pct=50.0, power_w=30.0, lamp_failure=0.0, driver_temperature_c=40.0,
                             switch_ons=float(minute), burning_h=9.0))  # fmt: skip
        phases = {
            f"{q}_l{p}_{u}": 1.0
            for q, u in (("power", "w"), ("voltage", "v"))
            for p in (1, 2, 3)
        }
        messages.append(city("meter", ("M0", "M1"), minute, power_w=60.0, energy_kwh=minute / 10,
                             power_factor=0.9, reactive_power_var=5.0, **phases))  # fmt: skip
        messages.append(
            city("rain_gauge", ("G1", "G2"), minute, rain_mm=0.2, temperature_c=9.0)
        )
    await store.write(messages, UNTIL)
    for kind in ("luminaire", "meter", "rain_gauge"):
        for quarter in range(DAY, UNTIL, QUARTER_MS):
            await store.roll(kind, "15m", quarter)
        for day in (DAY, DAY + DAY_MS):
            await store.roll(kind, "1d", day)
    await store.put("rain", derived("rain", "G1", "RVO-001"))
    await store.put("catchment", derived("catchment", "C1", "city"))
    for kind, device in (
        ("model", "sewer"),
        ("node", "sewer.N1"),
        ("conduit", "sewer.K1"),
    ):
        await store.put(kind, derived(kind, device))
    await store.close()


def asked(url, database, query):
    values = {
        "$timeFilter": f"time >= {DAY}ms AND time < {UNTIL}ms", "$__interval": "15m",
        "$cabinet": "RVO-001", "$gauge": "G1", "$model": "sewer", "$node": "sewer.N1",
    }  # fmt: skip
    for name, value in values.items():
        query = query.replace(name, value)
    parameters = urllib.parse.urlencode({"db": database, "q": query})
    with urllib.request.urlopen(f"{url}/query?{parameters}") as answer:
        (result,) = json.loads(answer.read())["results"]
    assert "error" not in result, (query, result)
    return result.get("series", [])


@pytest.mark.system
async def test_every_query_finds_something_in_a_real_influxdb(influx):
    await filled(influx)
    wanted = [
        (panel.source, f"{board.uid}: {panel.title}", query.text)
        for board in BOARDS for panel in board.panels for query in panel.queries
    ]  # fmt: skip
    wanted += [
        (v.source, f"{b.uid} ${v.name}", v.query) for b in BOARDS for v in b.variables
    ]
    wanted += [(rule.source, rule.uid, rule.query) for rule in RULES]
    nothing = [
        name for source, name, text in wanted
        if not asked(influx, "duha" if source == "raw" else f"duha_{source}", text)
    ]  # fmt: skip
    assert nothing == []
    series = asked(
        influx,
        "duha",
        next(
            q.text
            for p in BOARDS[0].panels
            for q in p.queries
            if p.title == "Power of all cabinets"
        ),
    )
    assert series[0]["values"][0][1] == 120.0
    assert len(wanted) > 35


# -- push ----------------------------------------------------------------------------------


def test_push_brings_everything_to_a_grafana(tmp_path, capsys):
    """Against a server that speaks as Grafana does; Grafana itself cannot be had here."""
    calls = []

    class Grafana(http.server.BaseHTTPRequestHandler):
        def answer(self):
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size) or b"null")
            calls.append(
                (
                    self.command,
                    self.path.split("?")[0],
                    body,
                    self.headers["Authorization"],
                )
            )
            found: object = [] if self.command == "GET" else {"uid": "duha", "id": 1}
            raw = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = answer  # noqa: N815

        def log_message(self, *_):
            pass

    token = tmp_path / "token"
    token.write_text("secret-token\n")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Grafana) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            status = main([
                "grafana", "push", "--url", f"http://127.0.0.1:{server.server_port}",
                "--token-file", str(token), "--influx", "http://influx:8086",
            ])  # fmt: skip
        finally:
            server.shutdown()
            thread.join()
    assert status == 0
    said = capsys.readouterr().out
    assert "secret-token" not in said
    posted = [path for command, path, _, _ in calls if command == "POST"]
    assert posted.count("/api/dashboards/db") == len(BOARDS)
    assert posted.count("/api/datasources") == 3
    assert {auth for *_, auth in calls} == {"Bearer secret-token"}


def test_push_without_a_token_or_a_grafana_says_so(capsys, monkeypatch):
    monkeypatch.delenv("DUHA_GRAFANA_TOKEN", raising=False)
    assert main(["grafana", "push", "--influx", "http://x"]) == 2
    assert "DUHA_GRAFANA_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("DUHA_GRAFANA_TOKEN", "x")
    assert (
        main(["grafana", "push", "--url", "http://127.0.0.1:9", "--influx", "http://x"])
        == 2
    )
    assert "http://127.0.0.1:9" in capsys.readouterr().err
