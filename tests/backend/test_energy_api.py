"""Energy over the API: coverage, bounds and what is excluded beside every sum."""

import csv
import datetime as dt
import io

import pytest

from duha_backend.energy.nights import CabinetNight, StretchNight
from duha_backend.lighting.inventory import Stretch
from duha_backend.lighting.tariff import Tariff
from tests.backend.test_api import api, city_folder

__all__ = ["api", "city_folder"]


def night(back, covered, cabinet="RVO-001"):
    """100 lamp-hours of 10 W, used by a half."""
    return CabinetNight(
        dt.datetime.now(dt.UTC).date() - dt.timedelta(days=back), cabinet, "d", 9, 8,
        lamps_wh=500.0 * covered, baseline_wh=1000.0 * covered, due_h=100.0,
        covered_h=100.0 * covered, saved_uncertainty_wh=10.0,
        unknown_wh=2400.0 * (1 - covered), unknown_baseline_wh=1000.0 * (1 - covered),
        excluded_lamps=1, excluded_wh=70.0,
    )  # fmt: skip


async def test_a_night_that_was_read_in_part_is_told_so_in_every_answer(api, free_port):
    book = api.backend.energy.book
    tariff = Tariff(price_per_kwh=4.0, co2_kg_per_kwh=0.5, source="x")
    book.settle([night(3, 1.0), night(2, 0.25)], tariff)
    told = (await api.ask("GET", "/energy?every=night"))["lines"]
    whole, part = told
    assert (whole["covered"], whole["partial"]) == (1, False)
    assert (whole["saved_kwh"], whole["unknown_high_kwh"]) == (0.5, 0)
    assert (part["covered"], part["partial"]) == (0.25, True)
    assert (part["baseline_kwh"], part["saved_kwh"]) == (0.25, 0.125)
    assert part["saved_co2_kg"] == pytest.approx(0.0625, abs=1e-3)
    assert (part["unknown_low_kwh"], part["unknown_high_kwh"]) == (0, 1.8)
    then = (dt.date(2025, 6, 10), dt.date(2025, 6, 11))
    old = [
        night(0, x)._replace(night=d) for x, d in zip((1.0, 0.25), then, strict=True)
    ]
    book.settle(old, tariff)
    span = "since=2025-06-01&until=2025-07-01"
    (year,) = (await api.ask("GET", f"/energy?every=year&{span}"))["lines"]
    assert (year["covered"], year["partial"]) == (0.625, True)
    assert (year["saved_kwh"], year["excluded_lamps"]) == (0.625, 1)
    last = (await api.ask("GET", "/headline"))["night"]
    assert (last["covered"], last["partial"], last["saved_kwh"]) == (0.25, True, 0.125)
    text = (await api.client.get("/energy.csv?every=night")).text
    assert [row["covered"] for row in csv.DictReader(io.StringIO(text))] == ["1.0", "0.25"]  # fmt: skip
    paper = await api.client.get("/energy.pdf?every=night")
    assert paper.content.startswith(b"%PDF")
    metrics = (await api.client.get(f"http://127.0.0.1:{free_port}/metrics")).text
    assert "duha_energy_nights_aside 0.0" in metrics


async def test_the_annual_consumption_of_a_stretch_is_its_own_lamps_and_well_read(api):
    registry, book = api.backend.registry, api.backend.energy.book
    for name in ("a", "b", "c"):
        registry.save(Stretch(name, name, "P2", length_m=100, width_m=10))
    date = night(2, 1.0).night
    parts = [
        StretchNight(date, "a", 2350.0, 24.0, 24.0),
        StretchNight(date, "b", 550.0, 24.0, 24.0),
        StretchNight(date, "c", 100.0, 24.0, 4.0),
    ]
    book.settle([night(2, 1.0)], Tariff(), parts)
    found = {one["stretch"]: one for one in await api.ask("GET", "/energy/indicators")}
    assert found["a"]["annual_wh_m2"] == pytest.approx(858, abs=1)
    assert found["b"]["annual_wh_m2"] == pytest.approx(201, abs=1)
    assert found["c"]["annual_wh_m2"] is None
    assert found["c"]["covered"] == pytest.approx(1 / 6)
