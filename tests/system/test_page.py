"""The page in a real browser: both languages, without a network, by hand and by rule."""

import os
import re
import time
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from tests.conftest import tool
from tests.system.conftest import Visitor

pytestmark = [pytest.mark.browser, pytest.mark.system, pytest.mark.timeout(240)]
SOFTWARE_GL = [
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--no-sandbox",
]


@pytest.fixture
def browser():
    chromium = tool("chromium")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=SOFTWARE_GL)
        yield made
        made.close()


class Tab:
    """A tab of the browser that keeps what it asked for and what went wrong."""

    def __init__(self, browser, town, locale):
        self.context = browser.new_context(
            viewport={"width": 1440, "height": 900}, locale=locale, bypass_csp=False
        )
        self.page = self.context.new_page()
        self.folder = town.folder
        self.requests: list[str] = []
        self.troubles: list[str] = []
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("pageerror", lambda e: self.troubles.append(str(e)))
        self.page.on(
            "console",
            lambda m: self.troubles.append(m.text) if m.type == "error" else None,
        )
        self.root = f"http://127.0.0.1:{town.http_port}/"

    def open(self, token=""):
        self.page.goto(self.root + (f"#token={token}" if token else ""))
        if token:
            self.page.wait_for_selector("html[data-ready]", timeout=30_000)

    def outside_requests(self):
        return [
            u for u in self.requests if not u.startswith((self.root, "data:", "blob:"))
        ]


def picture(tab, folder, name):
    """Keep a screenshot for people to look at, and for the documentation."""
    data = tab.page.screenshot(path=Path(folder) / f"{name}.png")
    assert len(data) > 40_000  # an empty view compresses to much less


def test_an_operator_signs_in_dims_a_cabinet_and_sees_it(start, browser):
    town = start("--cabinets", "2", "--luminaires", "8", "--gauges", "2", "--now")
    visitor = Visitor(town)
    visitor.until(
        "levels",
        lambda: visitor.ask("/luminaires/RVO-001-L003")["commanded"] is not None,
    )
    tab = Tab(browser, town, "cs-CZ")
    tab.open()
    page = tab.page
    expect(page.locator("html")).to_have_attribute("lang", "cs")
    page.get_by_label("Token").fill("nonsense")
    page.get_by_role("button", name="Přihlásit").click()
    expect(page.locator("#signin .error")).to_have_text("Takový token neexistuje.")
    page.get_by_label("Token").fill(town.token)
    page.get_by_role("button", name="Přihlásit").click()
    page.wait_for_selector("html[data-ready]", timeout=30_000)
    tab.troubles.clear()  # the browser tells of the two refused sign-ins

    page.locator("select[name=target]").select_option(label="rozvaděč RVO-001")
    page.get_by_label("Úroveň").fill("35")
    page.get_by_label("Důvod").fill("zkouška")
    page.get_by_role("button", name="Nastavit do této doby").click()
    first = page.locator("#overrides li").first
    expect(first).to_contain_text("rozvaděč RVO-001: 35 %")
    expect(first.locator("b")).to_have_text("platí", timeout=10_000)
    centre(tab, "RVO-001", town)
    detail = page.locator("#detail")
    expect(detail).to_contain_text("RVO-001-L")
    expect(detail.locator(".levels dd")).to_have_text(["35 %"] * 3, timeout=15_000)
    expect(detail).to_contain_text("ručně 35 %")
    first.get_by_role("button", name="Ukončit").click()
    expect(first.locator("b")).to_have_text("zrušeno")

    page.get_by_role("button", name="English").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.locator("#problems h2")).to_contain_text("Problems")
    expect(first.locator("b")).to_have_text("cancelled")
    assert tab.outside_requests() == []
    assert tab.troubles == []


def centre(tab, cabinet, town):
    """Click on the luminaire of a cabinet that lies nearest to the middle of the map."""
    box = tab.page.locator("#map canvas").bounding_box()
    lamps = [d for c in town.city.cabinets for d in c.devices if d.kind == "luminaire"]
    west, east = (f(d.longitude for d in lamps) for f in (min, max))
    south, north = (f(d.latitude for d in lamps) for f in (min, max))
    mine = [d for d in lamps if d.id.startswith(cabinet)]
    # The map fits all luminaires in, 48 pixels from its edge: the scale follows.
    import math

    narrow = math.cos(math.radians((north + south) / 2))
    scale = min(
        (box["width"] - 96) / ((east - west) * narrow),
        (box["height"] - 96) / (north - south),
    )
    wanted = mine[0]
    x = (
        box["x"]
        + box["width"] / 2
        + (wanted.longitude - (east + west) / 2) * narrow * scale
    )
    y = box["y"] + box["height"] / 2 - (wanted.latitude - (north + south) / 2) * scale
    tab.page.mouse.click(x, y)


@pytest.mark.parametrize(
    ("locale", "title"), [("cs-CZ", "Závady"), ("en-GB", "Problems")]
)
def test_the_page_is_accessible_and_asks_nobody_else(start, browser, locale, title):
    town = start(
        "--cabinets", "1", "--luminaires", "6", "--gauges", "1", "--rtu", "0", "--now"
    )
    tab = Tab(browser, town, locale)
    tab.context.route(
        re.compile(r"^(?!http://127\.0\.0\.1)"), lambda route: route.abort()
    )
    tab.open(town.token)
    assert town.token not in tab.page.url
    expect(tab.page.locator("#problems h2")).to_contain_text(title)
    expect(tab.page.locator("#link")).to_contain_text("●")
    found = Axe().run(
        tab.page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]}
    )
    assert found.violations_count == 0, found.generate_report()
    assert tab.outside_requests() == []
    assert tab.troubles == []


def test_the_page_tells_a_cabinet_that_went_away(start, browser):
    town = start(
        "--cabinets", "2", "--luminaires", "4", "--gauges", "1", "--rtu", "0", "--now"
    )
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    town.kill("RVO-002")
    expect(tab.page.locator("#problems")).to_contain_text(
        "cabinet RVO-002: no data for", timeout=12_000
    )
    expect(tab.page.locator("#figures")).to_contain_text("1 / 2")


PICTURED = {
    "alarms": "alarms",
    "plan": "plan",
    "runoff": "runoff/sewer-today",
    "cabinet": "cabinets/RVO-001",
    "rain": "rain/SR-01",
}


def test_pictures_of_a_rainy_evening(start, browser, tmp_path):
    """Those of README and docs: the demo as it looks when the road is wet."""
    from duha_sim.trouble import change

    folder = os.environ.get("DUHA_PICTURES") or tmp_path
    town = start("--speed", "40")
    visitor = Visitor(town)
    path = town.folder / "devices" / "trouble.json"
    change(path, "RVO-002-L012", "burnt_out")
    change(path, "RVO-001-L007", "dead")
    visitor.until(
        "a wet road in every cabinet but one",
        lambda: sum(bool(c["wet_road"]) for c in visitor.ask("/controllers")) >= 2,
        limit=120,
    )
    dimmed = {"target": {"kind": "cabinet", "id": "RVO-003"}, "level": 25, "minutes": 120, "reason": "star party"}  # fmt: skip
    town.ask("POST", "/overrides", dimmed)
    tabs = {"": Tab(browser, town, "en-GB"), "-cs": Tab(browser, town, "cs-CZ")}
    for tab in tabs.values():
        tab.open(town.token)
    time.sleep(6)
    for ending, tab in tabs.items():
        tab.page.evaluate("() => { location.hash = '#/luminaire/RVO-003-L020'; }")
        expect(tab.page.locator("#detail .levels dd")).to_have_count(3, timeout=10_000)
        time.sleep(2)
        picture(tab, folder, f"page{ending}")
    expect(tabs[""].page.locator("#figures .wet dd")).to_contain_text("mm")
    visitor.until("a storm", lambda: visitor.ask("/models")[0]["watches"][0].get("stage"), 90)  # fmt: skip
    for name, view in PICTURED.items():
        for ending, tab in tabs.items():
            tab.page.evaluate("to => { location.hash = to; }", f"#/{view}")
            time.sleep(3)
            picture(tab, folder, f"{name}{ending}")
    for tab in tabs.values():
        assert tab.outside_requests() == []
        assert tab.troubles == []
