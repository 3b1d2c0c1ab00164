import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_contract.errors import ProgrammeError
from duha_contract.lighting import (
    Calendar,
    Condition,
    Override,
    Place,
    Programme,
    Rule,
    Step,
    Sun,
    check,
    level_at,
    plan,
)

PLZEN = Place(49.7475, 13.3776, "Europe/Prague")
SUN = Sun(PLZEN)
STREET = Programme(
    "street",
    "Street",
    (
        Step("sunset", 100),
        Step("22:00", 40),
        Step("05:00", 80),
        Step("sunrise", 0),
    ),
    wet_level=90,
)
PARTY = Programme("party", "Party", (Step("sunset", 100), Step("sunrise", 0)))
PROGRAMMES = {"street": STREET, "party": PARTY}
CALENDAR = Calendar("c", "C", "street")


def at(text: str) -> float:
    """POSIX time of a local time in Plzeň."""
    return (
        dt.datetime.fromisoformat(text)
        .replace(tzinfo=ZoneInfo("Europe/Prague"))
        .timestamp()
    )


def level(text, overrides=(), conditions=(), calendar=CALENDAR, device="L1"):
    return level_at(PROGRAMMES, calendar, overrides, conditions, SUN, at(text), device)


@pytest.mark.parametrize(
    ("moment", "wanted"),
    [
        ("2026-11-23 12:00", 0),
        ("2026-11-23 16:00", 0),
        ("2026-11-23 16:30", 100),
        ("2026-11-23 21:59", 100),
        ("2026-11-23 22:00", 40),
        ("2026-11-24 04:59", 40),
        ("2026-11-24 05:00", 80),
        ("2026-11-24 07:20", 80),
        ("2026-11-24 07:50", 0),
        ("2026-11-24 11:59", 0),
    ],
)
def test_a_night_of_a_programme(moment, wanted):
    assert level(moment).level == wanted


def test_the_reason_names_programme_and_step():
    (cause,) = level("2026-11-23 23:00").reason
    assert (cause.code, cause.name, cause.step) == ("programme", "Street", 2)
    assert cause.until == round(at("2026-11-24 05:00") * 1000)


def test_without_a_programme_the_street_is_lit_from_sunset_to_sunrise():
    assert level("2026-11-23 23:00", calendar=None) == (
        100.0,
        level("2026-11-23 23:00", calendar=None).reason,
    )
    assert level("2026-11-23 23:00", calendar=None).reason[0].code == "default"
    assert level("2026-11-23 13:00", calendar=None).level == 0
    lost = Calendar("x", "X", "no-such-programme")
    assert level("2026-11-24 03:00", calendar=lost).level == 100


def test_a_calendar_speaks_of_nights_not_of_days():
    """Saturday night is one night: it does not end at midnight."""
    weekend = Calendar("c", "C", "street", (Rule("party", weekdays=("sat",)),))
    assert level("2026-11-21 23:30", calendar=weekend).level == 100
    assert level("2026-11-22 03:00", calendar=weekend).level == 100
    assert level("2026-11-22 23:30", calendar=weekend).level == 40


def test_the_first_rule_that_covers_a_night_wins():
    day = dt.date(2026, 12, 31)
    rules = (Rule("party", day, day), Rule("street", dt.date(2026, 1, 1)))
    calendar = Calendar("c", "C", "street", rules)
    assert level("2027-01-01 02:00", calendar=calendar).level == 100
    assert level("2027-01-02 02:00", calendar=calendar).level == 40


def ms(text: str) -> int:
    return round(at(text) * 1000)


def test_rain_raises_to_the_normal_level_and_says_until_when():
    wet = Condition("wet_road", ms("2026-11-23 22:30"), ms("2026-11-23 23:40"))
    dry_then_wet = level("2026-11-23 23:00", conditions=[wet])
    assert dry_then_wet.level == 90
    assert [c.code for c in dry_then_wet.reason] == ["wet_road", "programme"]
    assert dry_then_wet.reason[0].until == wet.end
    assert level("2026-11-23 23:40", conditions=[wet]).level == 40


def test_rain_by_day_lights_no_lamp():
    wet = Condition("wet_road", ms("2026-11-23 10:00"), ms("2026-11-23 14:00"))
    assert level("2026-11-23 13:00", conditions=[wet]).level == 0


def override(level_, start="2026-11-23 20:00", end="2026-11-23 23:00", **more):
    return Override("o", level_, ms(start), ms(end), **more)


def test_an_override_holds_until_its_end():
    assert level("2026-11-23 19:59", [override(15)]).level == 100
    assert level("2026-11-23 22:30", [override(15)]).level == 15
    assert level("2026-11-23 23:00", [override(15)]).level == 40


def test_an_override_is_for_those_it_names():
    mine = override(15, devices=("L2",))
    assert level("2026-11-23 22:30", [mine], device="L1").level == 40
    assert level("2026-11-23 22:30", [mine], device="L2").level == 15


def test_an_emergency_goes_before_a_later_override():
    emergency = override(100, emergency=True)
    later = override(5, start="2026-11-23 21:00")
    found = level("2026-11-23 22:30", [emergency, later])
    assert found.level == 100
    assert found.reason[0].code == "emergency"


def test_fades_are_straight():
    fading = Programme("f", "F", (Step("20:00", 100), Step("22:00", 40, fade_s=600)))
    calendar = Calendar("c", "C", "f")
    found = level_at({"f": fading}, calendar, (), (), SUN, at("2026-11-23 22:05"))
    assert found.level == pytest.approx(70)


def test_both_days_of_the_clock_change_have_a_whole_night():
    for night, hours in (("2026-03-28", 10), ("2026-10-24", 12)):
        points = plan(STREET, PLZEN, dt.date.fromisoformat(night))
        times = [point.t for point in points]
        assert times == sorted(times)
        ten, five = points[1].t, points[2].t
        assert (five - ten) / 3600 == {10: 6, 12: 8}[hours]


@pytest.mark.parametrize(
    "step",
    [Step("25:00", 10), Step("noon", 10), Step("sunset+", 1), Step("20:00", 101)],
)
def test_a_step_that_cannot_be_is_refused_by_name(step):
    with pytest.raises(ProgrammeError, match="bad"):
        check(Programme("bad", "B", (step,)), PLZEN)


levels = st.integers(0, 100)
moments = st.floats(at("2026-01-01 00:00"), at("2027-01-01 00:00"))
times = st.one_of(
    st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59)),
    st.builds(
        "{}{:+d}".format, st.sampled_from(["sunset", "sunrise"]), st.integers(-90, 90)
    ),
)
programmes = st.builds(
    Programme,
    st.just("p"),
    st.just("P"),
    st.lists(
        st.builds(Step, times, levels, st.integers(0, 600)), min_size=1, max_size=8
    ).map(tuple),
    st.one_of(st.none(), levels),
)


@given(programmes, moments)
def test_rain_never_lowers_light(programme, t):
    calendar = Calendar("c", "C", "p")
    wet = Condition("wet_road", 0, 2**50)
    dry = level_at({"p": programme}, calendar, (), (), SUN, t)
    rainy = level_at({"p": programme}, calendar, (), [wet], SUN, t)
    assert 0 <= dry.level <= 100
    assert rainy.level >= dry.level
    assert (rainy.level > 0) == (dry.level > 0)
    assert dry.reason
    assert rainy.reason[-1] == dry.reason[-1]


@given(moments)
def test_a_night_runs_from_noon_to_noon(t):
    date = SUN.date_of(t)
    assert SUN.date_of(at(f"{date} 12:00")) == date
    assert at(f"{date} 12:00") <= t < at(f"{date + dt.timedelta(days=1)} 12:00")
