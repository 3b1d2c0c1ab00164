"""One busy night: every figure on the page is the API's, and the API's is the store's."""

import contextlib
import datetime as dt
import math
import os
import re
import sqlite3
from pathlib import Path

import duckdb
import pytest
from playwright.sync_api import expect

from duha_sim.trouble import change
from tests.system.conftest import Visitor
from tests.system.test_page import Tab, browser
from tests.system.test_views import go as walk

__all__ = ["browser"]
pytestmark = [pytest.mark.browser, pytest.mark.system, pytest.mark.timeout(400)]
SPEED = (
    570  # gauges are asked every real second: rain of ten minutes can still be judged
)
NIGHT_S = 20.5 * 3600 / SPEED


def number(text):
    """The first number of a text as the English page writes it; None for a dash."""
    found = re.search(r"-?[\d,]+(\.\d+)?", text.replace("−", "-"))
    return float(found[0].replace(",", "")) if found else None


def same(text, value, digits=0):
    """Whether a text shows a value, rounded as it is written."""
    shown = number(text)
    if value is None or shown is None:
        return value is None and shown is None
    return abs(shown - value) <= 0.5 * 10**-digits + 1e-9


def go(tab, view, title):
    walk(tab, view)
    expect(tab.page.locator("#view h2")).to_have_text(title)


def cells(tab, row):
    return tab.page.locator("#view .scroll tr", has_text=row).first.locator("td").all_inner_texts()  # fmt: skip


@pytest.fixture
def morning(start):
    """A small town after a night of rain, failures and commands; its controllers gone."""
    town = start(
        "--cabinets", "2", "--luminaires", "8", "--gauges", "2", "--rtu", "0",
        "--speed", str(SPEED),
    )  # fmt: skip
    visitor = Visitor(town)
    troubles = town.folder / "devices" / "trouble.json"
    for lamp, trouble in (("RVO-001-L003", "burnt_out"), ("RVO-001-L006", "dead"), ("RVO-002-L002", "day_burner")):  # fmt: skip
        change(troubles, lamp, trouble)
    street = {"target": {"kind": "cabinet", "id": "RVO-002"}, "level": 35, "minutes": 240, "reason": "star party"}  # fmt: skip
    town.ask("POST", "/overrides", street)
    visitor.until("the night is settled", lambda: visitor.ask("/energy")["lines"], NIGHT_S + 60)  # fmt: skip
    for cabinet in ("RVO-001", "RVO-002"):
        town.kill(cabinet)
    gone = ["communicationFailure", "communicationFailure"]

    def missed():
        codes = [alarm["code"] for alarm in visitor.ask("/alarms")["items"]]
        return [code for code in codes if code in gone] == gone

    visitor.until("both cabinets are missed", missed, 60)
    return town


def test_every_figure_on_the_page_is_the_apis_and_the_stores(morning, browser):
    visitor = Visitor(morning)
    tab = Tab(browser, morning, "en-GB")
    tab.open(morning.token)
    told = {
        path: visitor.ask(path)
        for path in (
            "/headline", "/system", "/alarms", "/energy?every=month&part=cabinet",
            "/energy/gaps", "/rain/sums", "/cabinets/RVO-001", "/runoff",
            "/alarms?everything=true", "/rain/events/SR-01",
        )
    }  # fmt: skip
    for check in (headline, alarms, energy, rain, cabinet, health, catchments):
        check(tab, told)
    assert tab.troubles == []
    morning.kill("backend")
    in_the_stores(morning.folder / "backend", told)


def headline(tab, told):
    walk(tab, "")
    figures, now = told["/system"]["figures"], told["/headline"]
    night = now["night"]
    shown = {
        "lit": (figures["lit"], 0),
        "level": (figures["mean_level"], 0),
        "power": (figures["power_kw"], 1),
        "saved": (100 * night["saved_kwh"] / night["baseline_kwh"], 0),
        "available": (now["availability_pct"], 1),
        "problems": (figures["faults"], 0),
        "alarms": (now["alarms"]["unacknowledged"], 0),
        "burning": (now["lit_uncommanded"], 0),
        "rain": (figures["rain_1h_mm"], 1),
    }
    for name, (value, digits) in shown.items():
        place = tab.page.locator(f"[data-figure={name}] dd")
        expect(place).not_to_have_text("–")
        assert same(place.inner_text(), value, digits), (name, place.inner_text(), value)  # fmt: skip
    label = tab.page.locator("[data-figure=power] dt").inner_text()
    assert same(label, now["expected_kw"], 1)
    assert figures["faults"] == 16, "nothing is known of any lamp now"
    assert night["saved_kwh"] > 0


def alarms(tab, told):
    go(tab, "alarms", "Alarms")
    rows = tab.page.locator("#view tbody tr")
    expect(rows).to_have_count(len(told["/alarms"]["items"]))
    text = "\n".join(rows.all_inner_texts())
    for alarm in told["/alarms"]["items"]:
        assert alarm["object"] in text
    states = [alarm["state"] for alarm in told["/alarms"]["items"]]
    assert told["/headline"]["alarms"]["unacknowledged"] == states.count("unacknowledged")  # fmt: skip


def energy(tab, told):
    go(tab, "energy", "Energy")
    expect(tab.page.locator("#view .scroll table").first).to_be_visible()
    tab.page.screenshot(path=Path(os.environ.get("DUHA_PICTURES", tab.folder)) / "energy.png")  # fmt: skip
    for line in told["/energy?every=month&part=cabinet"]["lines"]:
        shown = cells(tab, line["part"])
        wanted = (line["lamps"], line["kwh"], line["baseline_kwh"], line["meter_kwh"], line["co2_kg"], line["saved_co2_kg"])  # fmt: skip
        for text, value in zip(shown[2:5] + shown[8:], wanted, strict=True):
            assert same(text, value, 0 if value == line["lamps"] else 1), (text, value)
        assert same(shown[5].lstrip("◐ "), line["saved_kwh"], 1)
        assert shown[7] == f"{math.floor(100 * line['covered'])} %"
    gaps = tab.page.locator("#view .scroll table").nth(1).locator("tbody tr")
    assert gaps.count() == len(told["/energy/gaps"]) == 2
    for gap in told["/energy/gaps"]:
        row = gaps.filter(has_text=gap["cabinet"]).locator("td").all_inner_texts()
        assert same(row[1], gap["meter_kwh"], 1)
        assert same(row[4], gap["gap_kwh"], 1)


def rain(tab, told):
    go(tab, "rain/SR-01", "Rain")
    expect(tab.page.locator("#view .scroll table").first).to_be_visible()
    for gauge in told["/rain/sums"]["gauges"]:
        shown = cells(tab, gauge["gauge"])
        for text, sums in zip(shown[1:], gauge["sums"], strict=False):
            assert same(text, sums["depth_mm"], 1), (text, sums)
    (event, *_) = told["/rain/events/SR-01"]["statistics"]["events"]
    place = tab.page.locator("#view .scroll table").nth(1)
    row = place.locator("tbody tr").last.locator("td").all_inner_texts()
    assert same(row[2], event["depth_mm"], 1)
    assert same(row[3], event["most_mm_h"], 1)
    assert event["depth_mm"] > 1, "it has rained"


def cabinet(tab, told):
    go(tab, "cabinets/RVO-001", "cabinet RVO-001")
    found = told["/cabinets/RVO-001"]
    expect(tab.page.locator("#view")).to_contain_text("Measured")
    (meter,) = found["meters"]
    for phase in (1, 2, 3):
        shown = cells(tab, f"L{phase}")
        assert same(shown[1], meter["values"][f"voltage_l{phase}_v"], 1)
        assert same(shown[2], meter["values"][f"current_l{phase}_a"], 2)
        assert same(shown[3], meter["values"][f"power_l{phase}_w"])
    said = tab.page.locator("#view p", has_text="Measured").inner_text()
    measured, expected = re.findall(r"([\d,]+) W", said)[:2]
    assert same(measured, found["power_w"])
    assert same(expected, found["expected_w"])


def health(tab, told):
    go(tab, "health", "System health")
    found = told["/system"]
    for row, value in (
        ("controllers online", 0), ("messages taken", found["ingest"]["messages"]),
        ("readings stored", found["ingest"]["rows"]),
        ("messages refused", found["ingest"]["rejected"]),
        ("messages in quarantine", found["books"]["quarantine"]),
    ):  # fmt: skip
        assert same(cells(tab, row)[1], value), row


def catchments(tab, told):
    go(tab, "runoff", "Runoff")
    expect(tab.page.locator("#view h3", has_text="Catchments")).to_be_visible()
    for one in told["/runoff"]:
        shown = cells(tab, one["name"])
        assert same(shown[1], one["area_ha"], 1)
        assert (shown[3] == "–") == (one["load_l_s_ha"] is None)


def only(db, query, *values):
    """The only row of a query."""
    (row,) = db.execute(query, values).fetchall()
    return row


def in_the_stores(folder, told):
    """What the API has said, asked of the databases' own files."""
    with duckdb.connect(str(folder / "readings.duckdb"), read_only=True) as db:
        in_the_readings(db, told)
    with contextlib.closing(sqlite3.connect(folder / "registry.db")) as db:
        in_the_registry(db, told)


def in_the_readings(db, told):
    meters = "SELECT arg_max(power_w, ts) AS v FROM meter WHERE power_w IS NOT NULL GROUP BY device"
    (power,) = only(db, f"SELECT sum(v) FROM ({meters})")
    assert told["/system"]["figures"]["power_kw"] == pytest.approx(power / 1000)
    (event, *_) = told["/rain/events/SR-01"]["statistics"]["events"]
    start, end = (
        dt.datetime.fromtimestamp(event[name] / 1000, dt.UTC).replace(tzinfo=None)
        for name in ("start", "end")
    )
    (depth,) = only(
        db,
        "SELECT sum(rain_mm) FROM rain WHERE device = 'SR-01' AND ts >= ? AND ts < ?"
        " AND quality <> 'missing'",
        start, end,
    )  # fmt: skip
    assert event["depth_mm"] == pytest.approx(depth, abs=0.001)
    meter = told["/cabinets/RVO-001"]["meters"][0]
    newest = "SELECT arg_max(voltage_l1_v, ts) FROM meter WHERE device = ?"
    (volts,) = only(db, newest, meter["id"])
    assert meter["values"]["voltage_l1_v"] == pytest.approx(volts)


def in_the_registry(db, told):
    for line in told["/energy?every=month&part=cabinet"]["lines"]:
        sums = only(
            db,
            "SELECT sum(lamps_wh), sum(baseline_wh), sum(meter_wh) FROM energy"
            " WHERE cabinet = ? AND night LIKE ?",
            line["part"], f"{line['period']}%",
        )  # fmt: skip
        said = (line["kwh"], line["baseline_kwh"], line["meter_kwh"])
        assert said == pytest.approx([wh / 1000 for wh in sums], abs=0.001)
    standing = (
        "SELECT count(*) FROM alarm WHERE cleared IS NULL OR acknowledged IS NULL"
    )
    assert only(db, standing) == (len(told["/alarms"]["items"]),)
    ever = told["/alarms?everything=true"]["items"]
    assert only(db, "SELECT count(*) FROM alarm") == (len(ever),)
