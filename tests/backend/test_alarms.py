"""Every alarm: raised within its stated time, its cause named, and none without cause."""

import random
from typing import Any

import pytest

from duha_backend.alarms.kinds import KINDS
from duha_backend.alarms.quiet import Quiet
from duha_backend.drainage.office import _stages
from duha_backend.drainage.rainfall import _alarms
from duha_backend.lighting.inventory import LuminaireType
from duha_backend.rain.quality import FLAGS
from duha_backend.runoff.watch import Watch
from duha_contract.messages import Status
from duha_runtime.supervision import Supervisor
from tests.backend.nightwatch import SUN, Town, at, codes, has_words

LAMP_FAULTS = {
    "burnt": "lampFailure",
    "day": "lampUnexpectedOn",
    "stuck": "dimmingFailure",
    "weak": "lampPowerTooLow",
    "hungry": "lampPowerTooHigh",
    "cycling": "cyclingFailure",
    "over": "supplyVoltageTooHigh",
    "under": "supplyVoltageTooLow",
    "hot": "highTemperature",
    "gear": "controlGearFailure",
    "factor": "powerFactorTooLow",
    "dead": "controlGearCommFailure",
}
CYCLES_S = 1200.0
"""A lamp that goes off and on with every second poll has cycled five times by then."""


@pytest.mark.parametrize(
    "most", [5, pytest.param(31, id="month", marks=pytest.mark.system)]
)
async def test_a_healthy_month_over_the_change_of_the_clock_raises_nothing(most):
    town = Town("2026-10-22T12:00+02:00", poll_s=300)
    days = 0.0
    while days < most:
        town.wet = town.chance.random() < 0.3
        await town.run(43_200)
        days += 0.5
    assert codes(town.raised) == []


@pytest.mark.parametrize("fault", LAMP_FAULTS)
async def test_a_fault_of_a_lamp_is_found_in_its_time_and_named(fault):
    """By night, except the lamp that burns by day; of known type where power is judged."""
    start = "2026-11-24T13:00+01:00" if fault == "day" else "2026-11-24T19:00+01:00"
    town = Town(start, seed=len(fault))
    await town.run(600)
    names = [a.id for a in town.live.luminaires if a.type]
    chosen = random.Random(7).sample(names, 4)
    began = town.now
    town.faults |= dict.fromkeys(chosen, fault)
    await town.run(3000)
    code = LAMP_FAULTS[fault]
    assert sorted(codes(town.raised)) == sorted((code, name) for name in chosen)
    stated = CYCLES_S if fault == "cycling" else KINDS[code].after_s
    for name in chosen:
        assert at(town.raised, code, name) - began <= stated + 2 * town.poll_s + 1
    for name in chosen:
        del town.faults[name]
    await town.run(8000 if fault == "cycling" else 1500)
    assert sorted(codes(town.cleared)) == sorted((code, name) for name in chosen)


async def test_ninety_nine_of_a_hundred_seeded_faults_are_found_with_their_cause():
    found = wrong = 0
    for seed in range(5):
        town = Town("2026-11-24T18:30+01:00", cabinets=4, lamps=30, seed=seed)
        await town.run(600)
        names = [a.id for a in town.live.luminaires if a.type]
        kinds = [fault for fault in LAMP_FAULTS if fault not in {"day", "cycling"}]
        seeded = {n: town.chance.choice(kinds) for n in town.chance.sample(names, 40)}
        town.faults |= seeded
        await town.run(1300)
        expected = {(LAMP_FAULTS[fault], name) for name, fault in seeded.items()}
        found += len(expected & set(codes(town.raised)))
        wrong += len(set(codes(town.raised)) - expected)
    assert found >= 198  # of 200
    assert wrong == 0


async def test_a_dead_segment_is_one_alarm_and_not_its_lamps():
    town = Town("2026-11-24T19:00+01:00")
    await town.run(300)
    town.faults["R1/F1"] = "dead"
    began = town.now
    await town.run(900)
    assert codes(town.raised) == [("segmentFailure", "R1/F1")]
    (news,) = town.raised
    assert news.affected == 10
    assert (
        news.ts / 1000 - began <= KINDS["segmentFailure"].after_s + 2 * town.poll_s + 1
    )
    del town.faults["R1/F1"]
    await town.run(600)
    assert codes(town.cleared) == [("segmentFailure", "R1/F1")]


async def test_lamps_that_died_before_their_segment_become_part_of_it():
    town = Town("2026-11-24T19:00+01:00")
    town.faults["R1-L00"] = "dead"
    await town.run(600)
    assert codes(town.raised) == [("controlGearCommFailure", "R1-L00")]
    town.faults["R1/F1"] = "dead"
    await town.run(900)
    assert ("controlGearCommFailure", "R1-L00") in codes(town.cleared)
    assert codes(town.raised)[1:] == [("segmentFailure", "R1/F1")]
    del town.faults["R1/F1"]
    await town.run(900)
    assert codes(town.raised)[2:] == [("controlGearCommFailure", "R1-L00")]


async def test_a_cabinet_all_of_whose_segments_are_silent_is_one_alarm():
    town = Town("2026-11-24T19:00+01:00")
    town.faults |= {"R1/F1": "dead", "R1/F2": "dead"}
    await town.run(900)
    assert codes(town.raised) == [("segmentFailure", "R1")]


async def test_a_lost_supply_explains_every_silent_lamp():
    town = Town("2026-11-24T19:00+01:00")
    await town.run(300)
    town.faults["R1"] = "supply"
    await town.run(1200)
    assert codes(town.raised) == [("supplyLoss", "R1")]
    assert town.raised[0].affected == 20
    assert "L1, L2, L3" in town.raised[0].detail


async def test_a_tripped_breaker_explains_the_segment_behind_it():
    town = Town("2026-11-24T19:00+01:00")
    town.faults["R1/F2"] = "dead"
    town.contacts["R1"] = {"breaker_tripped": 1}
    await town.run(1200)
    assert codes(town.raised) == [("circuitBreakerTripped", "R1")]


@pytest.mark.parametrize(
    ("contact", "code"),
    [
        ({"door_open": 1}, "cabinetDoorOpen"),
        ({"local_override": 1}, "localOverride"),
        ({"contactor_commanded": 0}, "switchingErrorOn"),
        ({"contactor_on": 0}, "switchingErrorOff"),
        ({"supply_ok": 0}, "supplyLoss"),
        ({"leakage_ma": 350}, "leakageDetected"),
    ],
)
async def test_a_contact_of_a_cabinet_is_an_alarm_in_its_time(contact, code):
    town = Town("2026-11-24T19:00+01:00")
    await town.run(120)
    town.contacts["R2"] = contact
    began = town.now
    await town.run(600)
    assert codes(town.raised) == [(code, "R2")]
    assert (
        at(town.raised, code, "R2") - began <= KINDS[code].after_s + 2 * town.poll_s + 1
    )
    town.contacts["R2"] = {}
    await town.run(900)
    assert codes(town.cleared) == [(code, "R2")]


async def test_leakage_that_comes_only_with_rain_is_a_bad_joint():
    town = Town("2026-11-24T19:00+01:00")
    await town.run(300)
    town.wet = True
    await town.run(300)
    town.contacts["R1"] = {"leakage_ma": 250}
    await town.run(600)
    assert codes(town.raised) == [("leakageInRain", "R1")]
    assert "joint" in town.raised[0].detail
    town.wet = False
    town.contacts["R1"] = {}
    await town.run(6 * 3600)
    town.contacts["R1"] = {"leakage_ma": 250}  # and now without any rain
    await town.run(600)
    assert codes(town.raised)[1:] == [("leakageDetected", "R1")]


async def test_a_cabinet_that_does_not_report_is_one_alarm_and_hides_the_rest():
    town = Town("2026-11-24T19:00+01:00")
    await town.run(300)
    town.silent.add("R2")
    began = town.now
    await town.run(3600)
    assert codes(town.raised) == [("communicationFailure", "R2")]
    stale = 1.65 * town.poll_s
    assert at(town.raised, "communicationFailure", "R2") - began <= stale + 120 + 2 * town.poll_s + 1  # fmt: skip
    assert town.raised[0].affected == 20
    town.silent.clear()
    await town.run(600)
    assert codes(town.cleared) == [("communicationFailure", "R2")]
    assert len(town.raised) == 1


async def test_a_controller_that_has_just_come_on_line_is_no_failure():
    town = Town("2026-11-24T19:00+01:00")
    town.silent |= {"R1", "R2"}
    for cabinet in town.names:
        town.live.told(cabinet, Status(1, online=True, period_s=60))
    await town.run(600)
    assert codes(town.raised) == []
    town.live.told("R1", Status(1, online=False))  # its last will
    await town.run(600)
    assert codes(town.raised) == [("communicationFailure", "R1")]


async def test_a_segment_that_is_no_longer_reported_is_one_alarm():
    """Its controller reports, but nothing of these lamps, not even that they are silent."""
    town = Town("2026-11-24T19:00+01:00")
    await town.run(300)
    for name in town.lamps:
        if (
            town.live.assets[name].cabinet == "R1"
            and town.live.assets[name].feeder == "F1"
        ):
            town.faults[name] = "unheard"
    await town.run(3000)
    assert codes(town.raised) == [("segmentFailure", "R1/F1")]
    town.faults.clear()
    await town.run(900)
    assert codes(town.cleared) == [("segmentFailure", "R1/F1")]


async def test_a_controller_without_a_clock_and_one_that_does_not_obey():
    town = Town("2026-11-24T19:00+01:00")
    await town.run(120)
    town.status["R1"] = "unset"
    town._told("R2", hash_="h2")
    await town.run(600)
    assert sorted(codes(town.raised)) == [
        ("clockError", "R1"),
        ("programmeNotApplied", "R2"),
    ]
    town.status["R1"] = "trusted"
    town._told("R2", hash_="h2", reported="h2")
    await town.run(600)
    assert len(town.cleared) == 2


async def test_a_gauge_that_is_no_longer_reported_is_missing_data():
    town = Town("2026-11-24T19:00+01:00")
    await town.run(120)
    town.faults["SR-01"] = "gone"
    await town.run(3600)
    assert codes(town.raised) == [("missingData", "SR-01")]


async def test_a_cabinet_that_is_switched_off_by_day_is_quiet_then():
    town = Town("2026-11-24T13:00+01:00")
    town.quiet = [Quiet("day", cabinets=("R1",))]
    town.faults |= {"R1/F1": "dead", "R1/F2": "dead", "R2-L03": "dead"}
    await town.run(2 * 3600)
    assert codes(town.raised) == [("controlGearCommFailure", "R2-L03")]
    night = SUN.night(SUN.date_of(town.now))
    assert night is not None
    await town.run(night.sunset - town.now + 900)
    assert codes(town.raised)[1:] == [("segmentFailure", "R1")]


async def test_what_stood_before_a_restart_is_not_raised_again_but_cleared():
    town = Town("2026-11-24T19:00+01:00")
    town.engine.adopt([("lampFailure", "R1-L03"), ("cabinetDoorOpen", "R2")])
    town.faults["R1-L03"] = "burnt"
    await town.run(900)
    assert codes(town.raised) == []
    assert codes(town.cleared) == [("cabinetDoorOpen", "R2")]
    del town.faults["R1-L03"]
    await town.run(300)
    assert codes(town.cleared)[1:] == [("lampFailure", "R1-L03")]


async def test_a_segment_that_came_back_while_nobody_looked_is_over():
    town = Town("2026-11-24T19:00+01:00")
    town.engine.adopt([("segmentFailure", "R1/F1"), ("segmentFailure", "R2")])
    town.faults["R1/F1"] = "dead"
    await town.run(1200)
    assert codes(town.raised) == []
    assert codes(town.cleared) == [("segmentFailure", "R2")]


async def test_what_is_taken_out_of_the_city_takes_its_alarms_along():
    town = Town("2026-11-24T19:00+01:00")
    town.engine.adopt([("lampFailure", "X9"), ("cabinetDoorOpen", "R9")])
    town.faults["R1-L03"] = "burnt"
    await town.run(600)
    assert codes(town.raised) == [("lampFailure", "R1-L03")]
    assert codes(town.cleared) == [("lampFailure", "X9"), ("cabinetDoorOpen", "R9")]
    town.live.set_assets([a for a in town.live.assets.values() if a.id != "R1-L03"])
    await town.run(120)
    assert codes(town.cleared)[2:] == [("lampFailure", "R1-L03")]


async def test_other_assets_keep_what_is_known_of_the_rest():
    town = Town("2026-11-24T19:00+01:00")
    town.faults["R1-L03"] = "burnt"
    await town.run(600)
    town.live.set_assets([a for a in town.live.assets.values() if a.id != "R1-L00"])
    await town.run(600)
    assert codes(town.raised) == [("lampFailure", "R1-L03")]
    assert codes(town.cleared) == []


def test_the_page_has_words_for_floods_and_none_for_what_it_does_not_know():
    watch = Watch("w", "Chamber at the mill", "m", "node", "J1", "depth_m", (0.5, 1.0))
    likely = [{"stage": 2, "minutes": 35.0, "member": "dry"}]
    ahead = [{"stage": 2, "minutes": 35.0, "member": "persistence"}]
    stages: list[dict[str, object]] = [
        {"stage": 1, "value": 0.612, "likely": likely},
        {"likely": ahead},
    ]
    said = [detail for at in stages for _, _, detail in _stages(watch, at)]
    assert len(said) == 3
    assert all(has_words(detail) for detail in said), said
    gauges = [detail for some in (FLAGS, FLAGS[1:6], FLAGS[6:]) for _, detail in _alarms(some)]  # fmt: skip
    assert len(gauges) == 7
    assert all(has_words(detail) for detail in gauges), gauges
    assert not has_words("ERROR 205: invalid keyword at line 7 of [JUNCTIONS]")


async def test_one_check_that_fails_does_not_stop_the_others(monkeypatch):
    town = Town("2026-11-24T19:00+01:00")
    supervisor = Supervisor()
    town.engine._barrier = supervisor.barrier
    out_of_bounds = lambda _now: town.live.luminaires[10**6]  # noqa: E731
    monkeypatch.setattr(town.engine, "_others", out_of_bounds)
    await town.run(600)
    name = town.live.luminaires[0].id
    town.faults[name] = "burnt"
    await town.run(600)
    assert codes(town.raised) == [("lampFailure", name)]
    assert [failure.part for failure in supervisor.failing] == ["alarms: cabinets"]


async def test_a_type_that_cannot_be_evaluated_does_not_stop_the_alarms():
    town = Town("2026-11-24T19:00+01:00")
    supervisor = Supervisor()
    town.engine._barrier = supervisor.barrier
    bad = LuminaireType("LED62", "L", 62.0, curve=((0.0, 1.0), (0.0,)))  # type: ignore[arg-type]
    town.engine._types = lambda: {"LED62": bad}
    town.engine.refresh()
    await town.run(120)
    town.silent.add("R2")
    await town.run(900)
    assert ("communicationFailure", "R2") in codes(town.raised)


async def test_a_controller_that_says_a_part_of_it_fails_is_an_alarm():
    town = Town("2026-11-24T19:00+01:00")
    await town.run(120)
    said = "part line /dev/ttyS1 failed: OSError: no such device"
    status = Status(1, True, 0, period_s=60, alarms=(said, "full disk"))
    town.live.told("R1", status)
    town.engine.tick(round(town.now * 1000) + 6000)
    news = town.engine.tick(round(town.now * 1000) + 20_000)
    assert [(n.code, n.object, n.detail) for n in news] == [("partFailed", "R1", said)]


async def test_a_clock_that_is_far_off_is_an_alarm_with_its_figure():
    town = Town("2026-11-24T19:00+01:00")
    skewed: Any = town.live.controllers["R1"]
    skewed.clock_skew_s = -17.0
    await town.run(600)
    assert [(n.code, n.object, n.detail) for n in town.raised] == [
        ("clockError", "R1", "-17 s")
    ]
