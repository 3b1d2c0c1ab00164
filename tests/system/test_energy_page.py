"""Nights that were read in part, on the page: what is not known is said, never saved."""

import datetime as dt
import os
from pathlib import Path

import pytest
from playwright.sync_api import expect

from duha_backend.database import Database
from duha_backend.energy.book import EnergyBook
from duha_backend.energy.nights import CabinetNight
from duha_backend.lighting.tariff import Tariff
from tests.system.test_page import Tab, browser
from tests.system.test_views import clean, go

__all__ = ["browser"]
pytestmark = [pytest.mark.browser, pytest.mark.system, pytest.mark.timeout(300)]
TODAY = dt.datetime.now(dt.UTC).date()
TARIFF = Tariff(price_per_kwh=4.2, co2_kg_per_kwh=0.4, source="contract 2026")


def cabinet_night(back, cabinet, covered):
    """Six luminaires of 62 W dimmed to a half, read for a share of a night of 14 h."""
    baseline, wh = 6 * 62 * 14.0, 6 * 62 * 14.0 * 0.55
    unread = 1 - covered
    return CabinetNight(
        TODAY - dt.timedelta(days=back), cabinet, "d", 7, 6, 1, wh * covered, wh * covered, wh * covered,
        6000.0, 900.0, 192.0, 120.0 + 6 * 62 * 12 * unread, baseline * covered, 14.0, 84.0, 84.0 * covered,
        60.0 * covered, 6 * 62 * 24 * unread, baseline * unread, 1, 310.0, 0.0, 1.0,
    )  # fmt: skip


@pytest.fixture
def town(start):
    return start(
        "--cabinets", "2", "--luminaires", "6", "--gauges", "1", "--rtu", "0", "--now"
    )


def picture(tab, name):
    folder = os.environ.get("DUHA_PICTURES", tab.folder)
    tab.page.screenshot(path=Path(folder) / f"energy-{name}.png", full_page=True)


def test_a_night_that_was_read_in_part_says_so_everywhere(town, browser):
    engine = Database(f"sqlite:///{town.folder}/backend/registry.db")
    shares = {2: (1.0, 0.26), 3: (1.0, 1.0), 4: (1.0, 0.0), 5: (0.97, 1.0)}
    nights = [
        cabinet_night(back, cabinet, share)
        for back, both in shares.items()
        for cabinet, share in zip(("RVO-001", "RVO-002"), both, strict=True)
    ]
    EnergyBook(engine).settle(nights, TARIFF)
    engine.dispose()
    tab = Tab(browser, town, "en-GB")
    tab.open(town.token)
    figure = tab.page.locator("[data-figure=saved]")
    expect(figure.locator("dd")).to_have_text("unknown", timeout=15_000)
    expect(figure.locator("dt")).to_contain_text("only 63 % read")
    go(tab, "energy")
    picture(tab, "months")
    tab.page.get_by_label("period").select_option("night")
    table = tab.page.locator("#view .scroll table").first
    last = table.locator("tbody tr", has_text=nights[0].night.isoformat())
    whole, part = (
        last.filter(has_text=name).locator("td") for name in ("RVO-001", "RVO-002")
    )
    expect(whole.nth(7)).to_have_text("100 %")
    expect(whole.nth(5)).not_to_contain_text("◐")
    expect(whole.nth(6)).to_have_text("0")
    expect(part.nth(7)).to_have_text("26 %")
    expect(part.nth(5)).to_contain_text("◐")
    dark = table.locator("tbody tr", has_text=nights[4].night.isoformat())
    silent = dark.filter(has_text="RVO-002").locator("td").all_inner_texts()
    assert silent[3:6] == ["–", "–", "unknown"]
    expect(part.nth(6)).to_contain_text("0–")
    expect(tab.page.locator("#view")).to_contain_text("unknown, not saved")
    expect(tab.page.locator("#view")).to_contain_text("2 luminaires without a type")
    tab.page.wait_for_timeout(500)  # the chart is drawn when the place is there
    picture(tab, "en")
    clean(tab, "energy")
    tab.page.locator("#language").click()
    expect(tab.page.locator("#view h2")).to_have_text("Energie")
    expect(tab.page.locator("#view")).to_contain_text("neznámé, ne ušetřené")
    tab.page.wait_for_timeout(500)
    picture(tab, "cs")
    assert tab.troubles == []
