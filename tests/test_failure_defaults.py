"""What happens when something fails: each row of the table, by its name.

A light too many beats a dark street. The table is in docs/explanation/lighting.md.
"""

import datetime as dt
import json
from zoneinfo import ZoneInfo

import msgspec
import pytest

from duha_backend.lighting.desk import next_noon
from duha_backend.lighting.inventory import Asset
from duha_backend.lighting.roads import Roads
from duha_backend.live import Live
from duha_backend.validate import Columns
from duha_contract.lighting import Sun
from duha_contract.messages import Desired
from duha_contract.programmes import Calendar, Effect, Period, Place, Programme, Step
from duha_contract.roads import Drying
from duha_edge.executor import FRESH_S, Executor
from duha_edge.technician import _unsafe
from tests.backend.nightwatch import Town, codes

PLZEN = Place(49.7475, 13.3776, "Europe/Prague")
PROGRAMME = Programme(
    "p",
    "P",
    (Step("sunset", 80), Step("22:00", 40)),
    (Period(),),
    (Effect("wet_road"),),
)
DOCUMENT = Desired(
    1, 1, "h", 0, PLZEN, (PROGRAMME,), (Calendar("c", "C", "p"),), {"*": "c"},
    drying=Drying(),
)  # fmt: skip


def at(text):
    zone = ZoneInfo("Europe/Prague")
    return dt.datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.fixture
def executor(tmp_path):
    return Executor(["L1"], PLZEN, tmp_path / "desired.json")


def test_without_backend_and_broker_the_stored_programme_goes_on_for_years(
    executor, tmp_path
):
    executor.accept(DOCUMENT)
    again = Executor(["L1"], PLZEN, tmp_path / "desired.json")  # after a power cut
    for year in (2027, 2031, 2036):
        assert again.decide("L1", at(f"{year}-01-15 19:00")).level == 80
        assert again.decide("L1", at(f"{year}-01-15 23:00")).level == 40
        assert again.decide("L1", at(f"{year}-01-15 13:00")).level == 0


async def test_without_backend_or_broker_somebody_is_told_after_a_while():
    town = Town("2026-11-24T19:00+01:00")
    await town.run(120)
    town.silent.add("R1")
    await town.run(600)
    assert codes(town.raised) == [("communicationFailure", "R1")]


def test_without_a_valid_programme_the_light_is_full_from_sunset_to_sunrise(
    executor, tmp_path
):
    (tmp_path / "broken.json").write_text(json.dumps({"v": 1}))
    for made in (executor, Executor(["L1"], PLZEN, tmp_path / "broken.json")):
        assert made.decide("L1", at("2026-11-23 20:00")).level == 100
        assert made.decide("L1", at("2026-11-23 13:00")).level == 0


def test_without_a_trusted_clock_and_without_a_light_sensor_the_light_is_on(executor):
    executor.accept(DOCUMENT)
    assert executor.to_write(at("2026-11-23 13:00"), 0.0, trusted=False) == {"L1": 100}
    assert executor.to_write(1000.0, 0.0) == {"L1": 100}  # 1970: nobody has set it


def test_without_a_trusted_clock_a_light_sensor_decides(executor):
    executor.accept(DOCUMENT)
    noon = at("2026-11-23 13:00")
    executor.bright(5000.0, 0.0, noon)
    assert executor.to_write(noon, 1.0, trusted=False) == {"L1": 0}
    assert executor.to_write(noon, 2 * FRESH_S, trusted=False) == {"L1": 100}  # stale


def test_without_a_link_to_the_gear_its_own_level_is_checked_to_be_full():
    fine = {"system_failure_level_pct": 100.0, "power_on_level_pct": 100.0}
    assert _unsafe(fine) == ""
    assert _unsafe({}) == ""  # a driver that does not say
    assert "gateway is silent" in _unsafe(fine | {"system_failure_level_pct": 80.0})
    assert "power comes back" in _unsafe(fine | {"power_on_level_pct": 0.0})


def test_a_stale_rain_gauge_gives_the_normal_class_and_never_less(executor):
    def place(name, kind, cabinet=""):
        return Asset(name, kind, cabinet, "d", "s", 49.7, 13.3)

    live = Live([place("R1", "cabinet"), place("L1", "luminaire", "R1"), place("G", "rain_gauge", "R1")])  # fmt: skip
    now = round(at("2026-11-23 23:00") * 1000)
    values = {"device": ["G"], "ts": [now], "quality": ["good"], "rain_mm": [0.0]}
    live.take("R1", [Columns.of("rain_gauge", values)])
    roads = Roads(live)
    roads.weigh(now)
    assert roads.conditions == {}
    roads.weigh(now + 16 * 60_000)
    (condition,) = roads.conditions["R1"]
    assert condition.detail == "no rain data"
    executor.accept(
        msgspec.structs.replace(
            DOCUMENT, conditions=(condition,), revision=2, hash="h2"
        )
    )
    assert executor.decide("L1", now / 1000 + 16 * 60).level == 100
    assert executor.decide("L1", condition.end / 1000).level == 40


def test_a_stale_light_sensor_leaves_it_to_the_sun(executor):
    dusky = Programme(
        "p", "P", (Step("sunset", 70),), (Period(early_min=30, late_min=30),)
    )
    document = Desired(1, 1, "x", 0, PLZEN, (dusky,), DOCUMENT.calendars, {"*": "c"})
    executor.accept(document)
    night = Sun(PLZEN).night(dt.date(2026, 11, 23))
    assert night is not None
    sunset = night.sunset
    executor.bright(5000.0, 0.0, sunset - FRESH_S)
    assert executor.decide("L1", sunset + 60).level == 70


def test_an_override_that_nobody_ends_ends_at_the_next_noon():
    for start in ("2026-11-23 22:00", "2026-11-24 05:00"):
        noon = at("2026-11-24 12:00")
        assert next_noon(PLZEN, round(at(start) * 1000)) == round(noon * 1000)


@pytest.mark.parametrize(
    ("contact", "code"),
    [
        ({"contactor_on": 0}, "switchingErrorOff"),
        ({"contactor_commanded": 0}, "switchingErrorOn"),
        ({"door_open": 1}, "cabinetDoorOpen"),
        ({"leakage_ma": 400}, "leakageDetected"),
    ],
)
async def test_a_stuck_contactor_an_open_door_and_leakage_are_reported_and_switch_nothing(
    contact, code
):
    town = Town("2026-11-24T19:00+01:00")
    town.contacts["R1"] = contact
    before = dict(town.desired)
    await town.run(600)
    assert codes(town.raised) == [(code, "R1")]
    assert town.desired == before
