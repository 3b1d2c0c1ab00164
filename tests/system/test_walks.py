"""An operator's nights, walked through in a real browser from what is seen to what is done."""

import functools
import re
import time

import pytest
from playwright.sync_api import expect, sync_playwright

from duha_backend.registry import Registry
from duha_sim.trouble import change
from tests.conftest import tool
from tests.system.conftest import Visitor
from tests.system.test_page import Tab, browser
from tests.system.test_views import clean, go

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
    clean(tab, "alarms")
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
    clean(tab, "cabinet")
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
    clean(tab, "runoff")
    go(tab, "rain/SR-01")
    expect(page.locator("#view")).to_contain_text(re.compile(r"\(T < 1 a\)|\(T [\d.]+ a\)"), timeout=40_000)  # fmt: skip
    page.get_by_role("button", name="Show", exact=True).click()
    said = page.locator("#view .field-box output")
    expect(said).to_contain_text("not radar")
    clean(tab, "rain")
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
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    page = tab.page
    page.get_by_role("link", name="Alarms").click()
    page.locator("#view").get_by_label("order").select_option(label="oldest first")
    failures = page.locator("#view tbody tr", has_text="lamp failure")
    expect(failures.first).to_contain_text("RVO-001-L001")

    page.get_by_role("link", name="Map", exact=True).click()
    page.get_by_role("searchbox").fill("RVO-001-L006")
    page.keyboard.press("Enter")
    street = visitor.ask("/luminaires/RVO-001-L006")["street"]
    by_hand = page.locator("#dim")
    by_hand.get_by_label("Whom").select_option(label=f"street {street}")
    by_hand.get_by_label("Level").fill("45")
    by_hand.get_by_label("Until").fill("23:00")
    by_hand.get_by_label("Reason").fill("concert")
    page.get_by_role("button", name="Do it until then").click()
    mine = page.locator("#overrides li").first
    expect(mine).to_contain_text(f"street {street}: 45 % until 23:00")
    expect(mine.locator("b")).to_have_text("applied", timeout=20_000)
    why = page.locator("#detail .why")
    expect(why).to_contain_text("by hand 45 % until 23:00", timeout=15_000)
    mine.get_by_role("button", name="End now").click()
    expect(mine.locator("b")).to_have_text("cancelled")

    expect(why).to_contain_text("step 3: 40 % until 05:00", timeout=120_000)
    expect(why).not_to_contain_text("wet road", timeout=60_000)
    levels = page.locator("#detail .levels dd")
    expect(levels).to_have_text(["40 %"] * 3, timeout=30_000)
    assert tab.troubles == []


def test_a_session_that_is_over_asks_for_the_token_and_goes_on_where_it_was(
    start, browser
):
    town = start(*SMALL, "--now")
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    go(tab, "health")
    assert tab.context.request.delete(f"{tab.root}api/v1/session").ok
    page = tab.page
    page.get_by_label("Token").fill(town.token, timeout=20_000)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#view h2")).to_have_text("System health", timeout=20_000)
    assert page.url.endswith("#/health")
    assert all("401" in text for text in tab.troubles), tab.troubles


def dim_until(page, time):
    page.locator("#dim input[name=until]").fill(time)
    page.locator("#dim button[type=submit]").click()


def test_who_may_only_look_is_told_so(start, browser):
    town = start(*SMALL, "--now")
    registry = Registry.in_folder(town.folder / "backend")
    token = registry.new_token("jana", role="viewer")
    registry.close()
    tab = Tab(browser, town, "cs-CZ")
    tab.open(token)
    dim_until(tab.page, "23:00")
    expect(tab.page.locator("#dim .error")).to_have_text("Na to vaše role nestačí (jana is viewer; this needs operator).")  # fmt: skip
    assert Visitor(town).ask("/overrides") == []
    assert all("403" in text for text in tab.troubles), tab.troubles


def test_a_lost_connection_is_said_and_what_was_missed_is_fetched(start, browser):
    town = start(*SMALL, "--now")
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    page = tab.page
    expect(page.locator("#problems")).to_contain_text("Nothing is wrong")
    town.kill("backend")
    expect(page.locator("#link")).to_have_text("○ connection lost", timeout=20_000)
    dim_until(page, "23:00")
    expect(page.locator("#dim .error")).to_have_text("The server does not answer. Try again in a while.")  # fmt: skip
    change(town.folder / "devices" / "trouble.json", "RVO-002-L005", "burnt_out")
    time.sleep(5)
    town.again("backend")
    expect(page.locator("#link")).to_have_text("● live", timeout=40_000)
    problem = page.locator("#problems tr", has_text="RVO-002-L005")
    expect(problem).to_contain_text("lamp failure", timeout=30_000)
    visitor = Visitor(town)
    visitor.until("all read", lambda: visitor.ask("/system")["figures"]["faults"] == 1)
    expect(page.locator("[data-figure=problems] dd")).to_have_text("1", timeout=10_000)
    assert page.evaluate("() => document.documentElement.dataset.ready") == "yes"
    known = [text for text in tab.troubles if "ERR_" not in text and "Failed" not in text]  # fmt: skip
    assert known == []


def test_a_store_that_is_down_keeps_nothing_else_from_being_shown(start, browser):
    town = start(*SMALL, "--now")
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    page = tab.page
    expect(page.locator("#link")).to_have_text("● live")
    down = {"status": 503, "json": {"detail": "the readings store cannot be reached"}}
    for path in ("**/api/v1/runoff", "**/api/v1/rain?*"):
        page.route(path, lambda route: route.fulfill(**down))
    expect(page.locator("#link")).to_have_text("◐ some of it cannot be fetched", timeout=20_000)  # fmt: skip
    change(town.folder / "devices" / "trouble.json", "RVO-001-L002", "burnt_out")
    expect(page.locator("#problems tr", has_text="RVO-001-L002")).to_contain_text("lamp failure", timeout=20_000)  # fmt: skip
    page.unroute_all()
    expect(page.locator("#link")).to_have_text("● live", timeout=20_000)


def test_a_page_that_cannot_begin_says_why(start, browser):
    town = start(*SMALL, "--now")
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    down = {"status": 503, "json": {"detail": "the registry cannot be reached"}}
    tab.page.route("**/api/v1/luminaires", lambda route: route.fulfill(**down))
    tab.page.reload()
    expect(tab.page.locator("#link")).to_have_text("It cannot be done now, try again in a while (the registry cannot be reached).")  # fmt: skip


def test_without_webgl_there_is_no_map_and_all_else_works(start):
    town = start(*SMALL, "--now")
    change(town.folder / "devices" / "trouble.json", "RVO-001-L002", "burnt_out")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=tool("chromium"), args=["--no-sandbox", "--disable-3d-apis"]
        )
        tab = Tab(made, town, "en-GB")
        tab.open(town.token)
        page = tab.page
        expect(page.locator("#nomap")).to_contain_text("no map")
        problem = page.locator("#problems tr", has_text="RVO-001-L002")
        problem.get_by_role("button").click(timeout=30_000)
        expect(page.locator("#detail h2")).to_contain_text("lamp failure")
        expect(page.locator("#gauges figure")).to_have_count(2)
        go(tab, "cabinets/RVO-001")
        expect(page.locator("#view .strip i")).to_have_count(8)
        made.close()


def test_filters_narrow_the_list_and_the_map(start, browser):
    town = start(*SMALL, "--now")
    for lamp, trouble in (("RVO-001-L001", "burnt_out"), ("RVO-002-L001", "burnt_out")):
        change(town.folder / "devices" / "trouble.json", lamp, trouble)
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    page = tab.page
    rows = page.locator("#problems tbody tr")
    expect(rows).to_have_count(2, timeout=30_000)
    districts = {one["district"] for one in Visitor(town).ask("/assets?kind=luminaire")["items"]}  # fmt: skip
    before = page.locator("#map").screenshot()
    page.locator("#filters summary").click()
    page.get_by_label("show").select_option("off")
    expect(rows).to_have_text(["Nothing is wrong."])
    assert page.locator("#map").screenshot() != before
    page.get_by_label("show").select_option("all")
    expect(rows).to_have_count(2)
    options = page.get_by_label("district").locator("option")
    expect(options).to_have_count(1 + len(districts))
    page.get_by_label("age of data").select_option("3600")
    expect(rows).to_have_text(["Nothing is wrong."])  # all was read a moment ago


def test_a_calendar_is_edited_by_two_and_the_first_one_stands(start, browser):
    town = start(*SMALL, "--now")
    visitor = Visitor(town)
    one, other = (Tab(browser, town, "en-GB") for _ in range(2))
    for tab in (one, other):
        tab.open(town.token)
        go(tab, "plan")
        page = tab.page
        page.get_by_label("Name of a new programme").fill("Quiet nights")
        page.get_by_role("button", name="New from this one").click()
        page.locator("#view").get_by_label("Level 2").fill("90")
        page.get_by_role("button", name="Add a rule").click()
        page.get_by_label("Programme 1", exact=True).select_option("quiet-nights")
        for day in ("Mon", "Tue", "Wed", "Thu", "Fri"):
            page.get_by_label(f"{day} 1").check()
    check = one.page.get_by_role("button", name="1. Check")
    check.click()
    expect(one.page.locator("#view [role=status]")).to_contain_text("sound")
    expect(one.page.locator("#view ul li")).to_contain_text(["new programme", "other rules"])  # fmt: skip
    expect(one.page.locator("#view .night")).to_contain_text("16 luminaires, of them 16 change")  # fmt: skip
    nights = one.page.locator("#view .fortnight li")
    expect(nights).to_have_count(14)
    expect(nights.filter(has_text="Quiet nights")).to_have_count(14)
    assert len(visitor.ask("/programmes")) == 1, "nothing is stored yet"
    clean(one, "plan")
    one.page.get_by_role("button", name="2. Publish").click()
    expect(one.page.locator("#view [role=status]")).to_have_text("Published.")
    expect(one.page.locator("#view .state-applied")).to_have_count(2, timeout=30_000)
    expect(one.page.locator("#view progress")).to_have_attribute("value", "2")
    (calendar,) = visitor.ask("/calendars")
    assert calendar["rules"][0]["programme"] == "quiet-nights"

    other.page.get_by_role("button", name="1. Check").click()
    expect(other.page.locator("#view .error")).to_contain_text("Somebody else")
    other.page.get_by_role("button", name="Drop the changes").click()
    expect(other.page.get_by_label("Programme 1", exact=True)).to_have_value("quiet-nights")  # fmt: skip

    # and back: the version before, published anew
    one.page.get_by_label("Programme", exact=True).select_option("quiet-nights")
    one.page.locator("#view").get_by_label("Level 2").fill("80")
    check.click()
    one.page.get_by_role("button", name="2. Publish").click()
    expect(one.page.locator("#view [role=status]")).to_have_text("Published.")
    one.page.get_by_role("button", name="Previous version").click()
    expect(one.page.locator("#view").get_by_label("Level 2")).to_have_value("90")
    assert all("Failed to load" in text for text in other.troubles), other.troubles
    assert one.troubles == []


def test_a_plan_that_is_begun_waits_in_either_language(start, browser):
    town = start(*SMALL, "--now")
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    page = tab.page
    go(tab, "plan")
    page.locator("#view").get_by_label("Level 3").fill("75")
    page.get_by_role("button", name="Čeština").click()
    expect(page.locator("#view h2")).to_have_text("Plán stmívání")
    expect(page.locator("#view").get_by_label("Úroveň 3")).to_have_value("75")
    go(tab, "health")
    expect(page.locator("#view h2")).to_have_text("Stav systému")
    go(tab, "plan")
    expect(page.locator("#view").get_by_label("Úroveň 3")).to_have_value("75")
    page.get_by_role("button", name="Zahodit změny").click()
    expect(page.locator("#view").get_by_label("Úroveň 3")).to_have_value("40")
    assert tab.troubles == []


def test_a_view_or_a_lamp_that_cannot_be_had_says_so(start, browser):
    town = start(*SMALL, "--now")
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    page = tab.page
    page.route("**/views/energy.js", lambda route: route.abort())
    page.evaluate("() => { location.hash = '#/energy'; }")
    expect(page.locator("#view .error")).to_contain_text("energy.js")
    page.unroute_all()
    down = {"status": 503, "json": {"detail": "the registry cannot be reached"}}
    page.route("**/api/v1/luminaires/*", lambda route: route.fulfill(**down))
    go(tab, "luminaire/RVO-001-L002")
    expect(page.locator("#detail .error")).to_contain_text("the registry cannot")
    page.unroute_all()
    expect(page.locator("#detail .levels dd")).to_have_count(3, timeout=10_000)
    page.locator("#detail summary").first.focus()
    page.wait_for_timeout(4500)  # two more looks at the lamp
    expect(page.locator("#detail summary").first).to_be_focused()


def test_on_paper_there_is_a_light_page_without_tools(start, browser, tmp_path):
    town = start(*SMALL, "--now")
    tab = Tab(browser, town, "cs-CZ")
    tab.open(town.token)
    go(tab, "cabinets")
    page = tab.page
    expect(page.locator("#view table")).to_be_visible()
    page.emulate_media(media="print")
    for hidden in ("#signout", "#views", "#mapbox"):
        expect(page.locator(hidden)).to_be_hidden()
    expect(page.locator("#clock")).to_be_visible()  # paper says of when it is
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    page.pdf(path=tmp_path / "cabinets.pdf")
    assert (tmp_path / "cabinets.pdf").read_bytes().startswith(b"%PDF")
