"""What the lights do without a backend: simulated months in seconds."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from duha_contract.errors import ProgrammeError
from duha_contract.lighting import Override, Sun
from duha_contract.messages import Desired
from duha_contract.programmes import (
    Calendar,
    Effect,
    Period,
    Place,
    Programme,
    Step,
)
from duha_contract.roads import Drying
from duha_edge.executor import FRESH_S, RETRY_S, Executor
from duha_edge.profiles import Write

PLZEN = Place(49.7475, 13.3776, "Europe/Prague")
STREET = Programme(
    "p", "P", (Step("sunset", 100), Step("22:00", 40), Step("sunrise", 0))
)


def at(text):
    return (
        dt.datetime.fromisoformat(text)
        .replace(tzinfo=ZoneInfo("Europe/Prague"))
        .timestamp()
    )


def document(revision=1, programme=STREET, **more):
    return Desired(
        1, revision, f"hash{revision}", 0, PLZEN, (programme,),
        (Calendar("c", "C", "p"),), {"L1": "c", "L2": "c"}, **more,
    )  # fmt: skip


@pytest.fixture
def executor(tmp_path):
    return Executor(["L1", "L2"], PLZEN, tmp_path / "desired.json")


def obey(executor, now, monotonic=0.0):
    """Do what the executor asks, as devices that obey."""
    due = executor.to_write(now, monotonic)
    for device, level in due.items():
        executor.told(device, level, monotonic)
        executor.saw(device, float(level))
    return due


def test_without_a_document_the_street_is_lit_at_night(executor):
    assert obey(executor, at("2026-11-23 13:00")) == {"L1": 0, "L2": 0}
    assert obey(executor, at("2026-11-23 18:00")) == {"L1": 100, "L2": 100}
    assert obey(executor, at("2026-11-23 18:01")) == {}


def test_without_a_clock_the_street_is_lit(executor):
    assert obey(executor, 100.0) == {"L1": 100, "L2": 100}


def test_a_month_of_nights_over_the_clock_change_without_a_backend(executor):
    executor.accept(document())
    sun = Sun(PLZEN)
    now, end, switched = at("2026-10-10 12:00"), at("2026-11-09 12:00"), 0
    while now < end:
        switched += len(obey(executor, now))
        night = sun.night(sun.date_of(now))
        assert night is not None
        local = dt.datetime.fromtimestamp(now, ZoneInfo("Europe/Prague"))
        late = local.hour >= 22 or local.hour < 12
        dark = night.sunset <= now < night.sunrise
        assert executor.commanded("L1") == ((40 if late else 100) if dark else 0)
        now += 300
    assert switched == 2 + 30 * 3 * 2  # off at first, then three steps a night


def test_the_document_is_kept_over_a_restart(executor, tmp_path):
    assert executor.accept(document(7))
    again = Executor(["L1"], PLZEN, tmp_path / "desired.json")
    assert again.revision == 7
    assert obey(again, at("2026-11-23 23:00")) == {"L1": 40}


def test_a_broken_file_gives_the_default_not_a_stop(tmp_path):
    (tmp_path / "desired.json").write_bytes(b'{"half')
    executor = Executor(["L1"], PLZEN, tmp_path / "desired.json")
    assert executor.revision == 0
    assert obey(executor, at("2026-11-23 23:00")) == {"L1": 100}


def test_the_same_document_a_hundred_times_changes_nothing(executor):
    assert executor.accept(document())
    assert not any(executor.accept(document()) for _ in range(100))


def test_a_programme_that_cannot_be_is_refused_and_the_old_one_stays(executor):
    executor.accept(document(1))
    with pytest.raises(ProgrammeError):
        executor.accept(document(2, Programme("p", "P", (Step("25:99", 1),))))
    assert executor.revision == 1
    assert obey(executor, at("2026-11-23 23:00")) == {"L1": 40, "L2": 40}


def test_an_override_ends_by_itself(executor):
    start, end = at("2026-11-23 20:00"), at("2026-11-23 21:00")
    override = Override(
        "o", 10, round(start * 1000), round(end * 1000), devices=("L2",)
    )
    executor.accept(document(overrides=(override,)))
    assert obey(executor, start) == {"L1": 100, "L2": 10}
    assert obey(executor, end - 1) == {}
    assert obey(executor, end) == {"L2": 100}


def test_drift_is_healed_and_reported(executor):
    executor.accept(document())
    now = at("2026-11-23 23:00")
    obey(executor, now)
    first = executor.report(1)
    assert first is not None
    assert (first.revision, first.applied, first.diverged) == (1, 2, ())
    executor.reported(first)
    assert executor.report(2) is None
    executor.saw("L1", 77.0)  # somebody turned the knob
    report = executor.report(3)
    assert report is not None
    assert report.diverged == ("L1",)
    executor.reported(report)
    assert executor.to_write(now, RETRY_S) == {"L1": 40}
    obey(executor, now, RETRY_S)
    healed = executor.report(4)
    assert healed is not None
    assert healed.diverged == ()


def test_a_luminaire_that_does_not_answer_is_diverged_and_asked_again(executor):
    now = at("2026-11-23 23:00")
    obey(executor, now)
    executor.saw("L2", None)
    assert executor.to_write(now, 1.0) == {}
    assert executor.to_write(now, RETRY_S) == {"L2": 100}


def test_without_a_clock_a_light_sensor_decides(executor):
    executor.bright(500.0, 0.0, 0.0)
    assert executor.to_write(100.0, 1.0) == {"L1": 0, "L2": 0}
    executor.bright(30.0, 2.0, 0.0)  # dusk: still enough, it was bright before
    assert set(executor.to_write(100.0, 2.0).values()) == {0}
    executor.bright(10.0, 3.0, 0.0)
    assert set(executor.to_write(100.0, 3.0).values()) == {100}
    executor.bright(500.0, 4.0, 0.0)
    assert set(executor.to_write(100.0, 4.0 + FRESH_S + 1).values()) == {100}  # stale
    night = at("2026-11-23 23:00")
    assert set(executor.to_write(night, 5.0, trusted=False).values()) == {0}
    assert set(executor.to_write(night, 5.0).values()) == {
        100
    }  # it has no say otherwise


WET = Programme(
    "p", "P", (Step("sunset", 60), Step("sunrise", 0)), effects=(Effect("wet_road"),)
)


def test_a_gauge_of_its_own_raises_the_light_until_the_road_is_dry(executor):
    executor.accept(document(programme=WET, drying=Drying()))
    now = at("2026-11-23 20:00")
    assert obey(executor, now) == {"L1": 60, "L2": 60}
    executor.rained("SR-01", 0.2, now)
    assert obey(executor, now) == {"L1": 100, "L2": 100}
    end = executor.decide("L1", now).reason[0].until / 1000
    assert end - now >= Drying().hold_s
    assert obey(executor, end - 1) == {}
    assert obey(executor, end) == {"L1": 60, "L2": 60}


def test_more_rain_keeps_the_road_wet_and_an_earlier_end_never_shortens_it(executor):
    executor.accept(document(programme=WET, drying=Drying()))
    now = at("2026-11-23 20:00")
    ends = []
    for minutes, mm in ((0, 0.4), (5, 0.2), (10, 0.0), (15, 0.2)):
        executor.rained("SR-01", mm, now + 60 * minutes)
        ends.append(executor.decide("L1", now + 60 * minutes).reason[0].until)
    assert ends == sorted(ends)


def test_without_leave_of_the_document_gauges_of_its_own_do_not_count(executor):
    executor.accept(document(programme=WET))
    now = at("2026-11-23 20:00")
    executor.rained("SR-01", 5.0, now)
    assert executor.decide("L1", now).level == 60


def test_with_a_clock_a_light_sensor_moves_the_period_of_a_programme(executor):
    dusky = Programme("p", "P", (Step("sunset", 70),), (Period(early_min=30),))
    executor.accept(document(programme=dusky))
    before = at("2026-11-23 16:00")  # sunset is at 16:14
    assert obey(executor, before) == {"L1": 0, "L2": 0}
    executor.bright(5.0, 0.0, before)
    assert obey(executor, before) == {"L1": 70, "L2": 70}
    assert obey(executor, before + FRESH_S) == {}  # sunset has come meanwhile
    assert executor.decide("L1", before + FRESH_S).reason[0].code == "programme"


def test_a_luminaire_that_cannot_be_decided_falls_back_and_the_others_do_not(executor):
    executor.accept(document(1, Programme("p", "P", (Step("12:00", 30),))))
    executor.accept(document(2))
    night = at("2026-11-23 23:00")
    healthy, failing = Desired.decide, {"L1"}

    def decide(self, device, t, local=()):
        if device in failing and self.revision >= 2:
            raise ZeroDivisionError("a bug")
        return healthy(self, device, t, local)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Desired, "decide", decide)
        assert executor.to_write(night, 0.0) == {"L1": 30, "L2": 40}
        assert executor.failing == {"L1": "ZeroDivisionError: a bug"}
        failing.clear()
        assert executor.decide("L1", night + 61).level == 40
    assert executor.failing == {}


def test_without_any_document_that_can_be_evaluated_the_light_is_on(tmp_path):
    nowhere = Place(49.7, 13.4, "No/Where")
    executor = Executor(["L1"], nowhere, tmp_path / "desired.json")
    assert executor.to_write(at("2026-11-23 13:00"), 0.0) == {"L1": 100}


GEAR = [
    pytest.param(Write(10, 100), 0, 10, "no off", id="no off"),
    pytest.param(Write(10, 100, off=True), 0, 0, "", id="off beside the range"),
    pytest.param(Write(10, 100), 5, 10, "", id="least level"),
    pytest.param(Write(0, 90), 100, 90, "", id="most level"),
    pytest.param(Write(10.5, 90.5), 4, 11, "", id="whole levels"),
    pytest.param(Write(0, 100), 40, 40, "", id="all levels"),
]


@pytest.mark.parametrize(("gear", "asked", "written", "reason"), GEAR)
def test_a_level_that_gear_cannot_do_becomes_the_nearest_and_no_off_is_reported(
    gear, asked, written, reason, tmp_path
):
    executor = Executor({"L1": gear}, PLZEN, tmp_path / "desired.json")
    executor.accept(document(1, Programme("p", "P", (Step("12:00", asked),))))
    now = at("2026-11-23 23:00")
    assert obey(executor, now) == {"L1": written}
    assert gear.allows(written)
    report = executor.report(0)
    assert report is not None
    assert report.diverged == (("L1",) if reason else ())
    assert reason in report.reasons.get("L1", "")
    assert obey(executor, now, RETRY_S) == {}  # it is not told again and again


def test_a_report_is_made_until_it_is_kept(executor):
    executor.accept(document())
    obey(executor, at("2026-11-23 23:00"))
    refused = executor.report(1)
    assert refused is not None
    again = executor.report(2)
    assert again is not None
    assert again.applied == refused.applied == 2
    executor.reported(again)
    assert executor.report(3) is None
