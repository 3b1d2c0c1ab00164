"""Every view by its address, in both languages, by rule and by hand, in a real browser."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.system.conftest import Visitor
from tests.system.test_page import Tab, browser

__all__ = ["browser"]
pytestmark = [pytest.mark.browser, pytest.mark.system, pytest.mark.timeout(300)]
VIEWS = {
    "": ("Závady", "Problems"),
    "alarms": ("Poruchy a výstrahy", "Alarms"),
    "plan": ("Plán stmívání", "Dimming plan"),
    "rain": ("Srážky", "Rain"),
    "rain/SR-01": ("Srážky", "Rain"),
    "runoff": ("Odtok", "Runoff"),
    "runoff/sewer-today": ("Odtok", "Runoff"),
    "energy": ("Energie", "Energy"),
    "cabinets": ("Rozvaděče", "Cabinets"),
    "cabinets/RVO-001": ("rozvaděč RVO-001", "cabinet RVO-001"),
    "audit": ("Kdo co udělal", "Audit log"),
    "health": ("Stav systému", "System health"),
}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]}


@pytest.fixture
def town(start):
    return start(
        "--cabinets", "2", "--luminaires", "6", "--gauges", "1", "--rtu", "0", "--now"
    )


def go(tab, view):
    tab.page.evaluate("to => { location.hash = to; }", f"#/{view}")
    name = view.split("/")[0]
    if name in ("", "luminaire") or "%" in view:
        tab.page.wait_for_selector("main:not([hidden])")
    else:
        tab.page.wait_for_selector("#view:not([hidden]) :is(h2, .error)")


def clean(tab, where):
    """No rule of WCAG 2.2 AA that axe knows is broken."""
    found = Axe().run(tab.page, options=RULES)
    assert found.violations_count == 0, f"{where}: {found.generate_report()}"


def test_every_view_is_accessible_in_both_languages(town, browser):
    tab = Tab(browser, town, "cs-CZ")
    tab.open(town.token)
    for number, language in enumerate(("cs", "en")):
        expect(tab.page.locator("html")).to_have_attribute("lang", language)
        for view, titles in VIEWS.items():
            go(tab, view)
            place = "#problems h2" if view == "" else "#view h2"
            expect(tab.page.locator(place)).to_contain_text(titles[number])
            expect(tab.page.locator("#view .error")).to_have_count(0)
            tab.page.wait_for_timeout(700)  # tables come after their titles
            if view == "plan":
                adds = ("Přidat pravidlo", "Add a rule")
                tab.page.get_by_role("button", name=adds[number]).click()
            clean(tab, view)
        go(tab, "luminaire/RVO-001-L001")
        expect(tab.page.locator("#detail h2")).to_contain_text("RVO-001-L001")
        for more in tab.page.locator("#detail summary").all():
            more.click()
        tab.page.locator("#filters summary").click()
        clean(tab, "luminaire")
        tab.page.locator("#language").click()
    assert tab.outside_requests() == []
    assert tab.troubles == []


def test_an_address_opens_its_view_and_a_wrong_one_says_so(town, browser):
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    tab.page.goto(tab.root + "#/cabinets/RVO-002")
    tab.page.reload()
    expect(tab.page.locator("#view h2")).to_have_text("cabinet RVO-002")
    expect(tab.page.locator("#view")).to_contain_text("RVO-002-L006")
    go(tab, "luminaire/RVO-001-L002")
    expect(tab.page.locator("#detail h2")).to_contain_text("RVO-001-L002")
    tab.page.get_by_label("Search by luminaire, street, pole or number").fill(
        "rvo-002-l003"
    )
    tab.page.get_by_role("button", name="Find").click()
    expect(tab.page.locator("#detail h2")).to_contain_text("RVO-002-L003")
    assert tab.page.url.endswith("#/luminaire/RVO-002-L003")
    tab.page.get_by_label("Search by luminaire, street, pole or number").fill("nowhere")
    tab.page.get_by_role("button", name="Find").click()
    expect(tab.page.locator("#search output")).to_have_text("Nothing like that here.")
    tab.page.get_by_label("Rain of 1 h between the gauges").check()
    expect(tab.page.locator("#between output")).not_to_be_empty(timeout=10_000)
    go(tab, "cabinets/%")  # no address at all
    expect(tab.page.locator("#mapbox")).to_be_visible()
    go(tab, "cabinets/RVO-009")
    expect(tab.page.locator("#view .error")).to_have_text(
        "The city has no cabinet RVO-009."
    )


def test_a_cabinet_goes_away_is_seen_acknowledged_assigned_and_put_aside(
    start, browser
):
    town = start(
        "--cabinets", "2", "--luminaires", "6", "--gauges", "1", "--rtu", "0", "--speed", "20"
    )  # fmt: skip
    visitor = Visitor(town)
    visitor.until("both", lambda: visitor.ask("/system")["controllers"]["online"] == 2)
    town.kill("RVO-002")
    visitor.until(
        "an alarm",
        lambda: (
            "communicationFailure"
            in {a["code"] for a in visitor.ask("/alarms")["items"]}
        ),
        200,
    )
    tab = Tab(browser, town, "cs-CZ")
    tab.open(town.token)
    go(tab, "alarms")
    page = tab.page
    line = page.locator("#view tbody tr", has_text="rozvaděč bez spojení")
    expect(line).to_contain_text("▲ vysoká")
    expect(line).to_contain_text("RVO-002")
    page.get_by_role("button", name="Potvrdit").click()
    expect(page.locator("#view .error")).to_contain_text("Nejprve vyberte")
    line.locator("input").check()
    page.get_by_role("button", name="Potvrdit").click()
    expect(line).to_contain_text("potvrzené: admin")
    line.locator("input").check()
    page.get_by_label("komu").fill("četa 2")
    page.get_by_role("button", name="Přidělit").click()
    expect(line).to_contain_text("četa 2")
    line.locator("input").check()
    page.get_by_role("button", name="Odložit").click()
    reason = page.locator("#view").get_by_label("Důvod")
    expect(page.locator("#view .error")).to_have_text("Důvod: vyplňte")
    expect(reason).to_be_focused()
    reason.fill("čeká se na díl")
    page.get_by_role("button", name="Odložit").click()
    expect(line).to_have_count(0)
    go(tab, "alarms/shelved")
    expect(line).to_contain_text("čeká se na díl")
    (stored,) = [
        a
        for a in visitor.ask("/alarms?everything=true")["items"]
        if a["code"] == "communicationFailure"
    ]
    assert (stored["acknowledged_by"], stored["assigned"]) == ("admin", "četa 2")
    go(tab, "audit")
    expect(page.locator("#view tbody tr").first).to_contain_text("shelve")
    assert tab.troubles == []


def test_what_is_wrong_with_a_plan_is_said_in_czech_and_shown_in_its_field(
    town, browser
):
    tab = Tab(browser, town, "cs-CZ")
    tab.open(town.token)
    go(tab, "plan")
    view = tab.page.locator("#view")
    check = tab.page.get_by_role("button", name="1. Zkontrolovat")
    level, at = view.get_by_label("Úroveň 3"), view.get_by_label("od 3", exact=True)
    level.fill("20")
    check.click()
    error = view.locator(".error")
    expect(error).to_contain_text("jen 20 %, třída osvětlení žádá 40 %")
    expect(error).to_contain_text("Nejbližší noci: ")
    level.fill("120")
    check.click()
    expect(error).to_have_text(
        "Úroveň 3: „120“ tu stát nemůže, zadejte například 0–100"
    )
    expect(level).to_be_focused()
    level.fill("45.5")
    was = at.input_value()
    at.fill("25:00")
    check.click()
    expect(error).to_contain_text("„25:00“ tu stát nemůže, zadejte například 22:30")
    expect(at).to_be_focused()
    clean(tab, "plan")
    at.fill(was)
    check.click()
    expect(view.locator("[role=status]").first).to_contain_text("v pořádku")
    assert all("422" in text for text in tab.troubles), tab.troubles


def test_tonight_is_planned_published_and_seen_applied_and_two_do_not_collide(
    town, browser
):
    visitor = Visitor(town)
    one, other = (Tab(browser, town, "en-GB") for _ in range(2))
    for tab in (one, other):
        tab.open(town.token)
        go(tab, "plan")
        expect(tab.page.locator("#view .night")).to_contain_text("12 luminaires")
    levels = one.page.locator("#view").get_by_label("Level 3")
    before = visitor.ask("/programmes")[0]["steps"][2]["level"]
    check = one.page.get_by_role("button", name="1. Check")
    levels.fill("20")
    check.click()
    expect(one.page.locator("#view .error")).to_contain_text("needs 40 %")
    levels.fill("45")
    publish = one.page.get_by_role("button", name="2. Publish")
    expect(publish).to_be_disabled()
    check.click()
    expect(one.page.locator("#view [role=status]")).to_contain_text("sound")
    assert visitor.ask("/programmes")[0]["steps"][2]["level"] == before, "only checked"
    publish.click()
    expect(one.page.locator("#view [role=status]")).to_have_text("Published.")
    assert visitor.ask("/programmes")[0]["steps"][2]["level"] == 45
    expect(one.page.locator("#view .state-applied")).to_have_count(2, timeout=20_000)

    other.page.locator("#view").get_by_label("Level 3").fill("90")
    other.page.get_by_role("button", name="1. Check").click()
    expect(other.page.locator("#view .error")).to_contain_text("Somebody else")
    assert visitor.ask("/programmes")[0]["steps"][2]["level"] == 45
    one.page.locator("#view").get_by_label("from 3").fill("half past nine")
    check.click()
    expect(one.page.locator("#view .error")).to_contain_text("half past nine")
    refused = [text for tab in (one, other) for text in tab.troubles]
    assert all("Failed to load resource" in text for text in refused), refused
