"""An operator's nights, walked through in a real browser from what is seen to what is done."""

import functools
import re

import pytest
from playwright.sync_api import expect

from duha_sim.trouble import change
from tests.system.conftest import Visitor
from tests.system.test_page import Tab, browser
from tests.system.test_views import go

__all__ = ["browser"]
pytestmark = [pytest.mark.browser, pytest.mark.system, pytest.mark.timeout(300)]
SMALL = ("--cabinets", "2", "--luminaires", "8", "--gauges", "2", "--rtu", "0")


def test_a_lamp_fails_is_seen_acknowledged_repaired_and_cleared(start, browser):
    town = start(*SMALL, "--speed", "20")
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    page, troubles = tab.page, town.folder / "devices" / "trouble.json"
    go(tab, "alarms")
    page.locator("#view").get_by_label("sound for new ones").check()
    expect(page.locator("html")).to_have_attribute("data-sounded", "1")
    go(tab, "")
    change(troubles, "RVO-001-L003", "burnt_out")
    problem = page.locator("#problems tr", has_text="RVO-001-L003")
    expect(problem).to_contain_text("lamp failure", timeout=30_000)
    problem.get_by_role("button").focus()
    page.keyboard.press("Enter")  # all of it by keyboard
    expect(page.locator("#detail h2")).to_contain_text("lamp failure")
    expect(page.locator("html")).to_have_attribute("data-sounded", "2", timeout=40_000)
    expect(page.locator("[data-figure=alarms] dd")).to_have_text("1")
    go(tab, "alarms")
    line = page.locator("#view tbody tr", has_text="RVO-001-L003")
    expect(line).to_contain_text("unacknowledged")
    line.get_by_role("checkbox").focus()
    page.keyboard.press("Space")
    page.locator("#view").get_by_label("comment").fill("crew 2 goes")
    page.get_by_role("button", name="Acknowledge", exact=True).press("Enter")
    expect(line).to_contain_text("acknowledged: admin")
    expect(line).to_contain_text("crew 2 goes")
    line.get_by_role("link", name="RVO-001-L003").click()
    expect(page.locator("#detail")).to_contain_text("lamp failure: acknowledged")
    change(troubles, "RVO-001-L003", None)
    expect(problem).to_have_count(0, timeout=30_000)
    go(tab, "alarms")
    expect(line).to_have_count(0, timeout=40_000)
    go(tab, "luminaire/RVO-001-L003")
    expect(page.locator("#detail")).to_contain_text("lamp failure: closed")
    go(tab, "cabinets/RVO-001")
    week = page.locator("#view .timeline li", has_text="lamp failure (1)")
    expect(week.locator(".bar i")).to_have_count(1)
    assert tab.troubles == []


def test_a_storm_comes_roads_get_wet_lights_rise_and_an_overflow_is_seen_ahead(
    start, browser
):
    town = start(*SMALL, "--speed", "40")
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    page = tab.page
    expect(page.locator("[data-figure=rain].wet dd")).to_contain_text("mm", timeout=60_000)  # fmt: skip
    go(tab, "luminaire/RVO-001-L002")
    expect(page.locator("#detail .why")).to_contain_text("wet road: raised to 100 %", timeout=60_000)  # fmt: skip
    expect(page.locator("#detail .levels dd")).to_have_text(["100 %"] * 3, timeout=30_000)  # fmt: skip
    ahead = page.locator("#watches .ahead").first
    expect(ahead).to_contain_text(re.compile("stage I+ in"), timeout=90_000)
    go(tab, "alarms")
    flood = page.locator("#view tbody tr", has_text="flood forecast").first
    expect(flood).to_contain_text(re.compile(r"in \d+ min (if|even)"), timeout=90_000)
    go(tab, "runoff/sewer-today")
    chart = page.locator("#view figure[data-watch=chamber-today]")
    expect(chart).to_contain_text(re.compile(r"stage I+ in \d+ min"), timeout=30_000)
    expect(
        chart.locator("table:not(.u-legend) tr", has_text="if the rain goes on")
    ).to_contain_text(" m")
    expect(chart.locator("canvas")).to_be_visible()
    expect(page.locator("#view")).to_contain_text("Around RVO-001")
    go(tab, "rain/SR-01")
    expect(page.locator("#view")).to_contain_text(re.compile(r"\(T < 1 a\)|\(T [\d.]+ a\)"), timeout=40_000)  # fmt: skip
    page.get_by_role("button", name="Show", exact=True).click()
    said = page.locator("#view .field-box output")
    expect(said).to_contain_text("not radar")
    now = said.text_content()
    page.locator("#view .field-box input").fill("-60")
    expect(said).not_to_have_text(now or "")
    assert tab.troubles == []


def test_what_a_new_operator_is_asked_to_do(start, browser):
    """Without a manual: the oldest failure, why 40 %, a street until 23:00 and back."""
    town = start(*SMALL, "--speed", "300")
    visitor = Visitor(town)

    def failed(lamp):
        return visitor.ask(f"/alarms?object={lamp}")["items"]

    for lamp in ("RVO-001-L001", "RVO-002-L004"):
        change(town.folder / "devices" / "trouble.json", lamp, "burnt_out")
        visitor.until(lamp, functools.partial(failed, lamp), 60)
