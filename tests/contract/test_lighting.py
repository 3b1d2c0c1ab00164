import datetime as dt
import itertools
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_contract.errors import ProgrammeError
from duha_contract.lighting import Condition, Override, Sun, level_at
from duha_contract.programmes import (
    Calendar,
    Effect,
    Period,
    Place,
    Programme,
    Rule,
    Step,
    check,
    noons,
    plan,
    segments,
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
    effects=(Effect("wet_road", 90),),
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
    assert level("2026-11-23 23:00", calendar=None).level == 100
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
periods = st.builds(
    Period,
    st.sampled_from(["sunset", "sunset-20", "16:30"]),
    st.sampled_from(["sunrise", "sunrise+10", "06:30"]),
    st.sampled_from([0, 15, 45]),
    st.sampled_from([0, 30]),
)
effects = st.builds(
    Effect,
    st.sampled_from(["wet_road", "traffic", "motion"]),
    st.one_of(st.none(), levels),
    st.sampled_from(["max", "set", "min"]),
    st.sampled_from(["", "20:00"]),
    st.sampled_from(["", "23:30", "sunrise"]),
)
steps = st.lists(
    st.builds(Step, times, levels, st.integers(0, 600)), min_size=1, max_size=8
).map(tuple)
programmes = st.builds(
    Programme,
    st.just("p"),
    st.just("P"),
    steps,
    st.lists(periods, max_size=2).map(tuple),
    st.lists(effects, max_size=2).map(tuple),
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


@given(programmes, moments)
def test_the_segments_of_a_night_have_no_hole(programme, t):
    date = SUN.date_of(t)
    night = segments(programme, PLZEN, date)
    assert (night[0].start, night[-1].end) == noons(PLZEN, date)
    assert all(a.end == b.start for a, b in itertools.pairwise(night))
    assert all(0 <= s.level <= 100 and 0 <= s.then <= 100 for s in night)


@given(programmes, moments, st.floats(0, 1))
def test_nothing_changes_before_a_decision_says_so(programme, t, share):
    calendar = Calendar("c", "C", "p")
    conditions = [Condition("motion", round(t * 1000) + 5000, 2**50)]
    now = level_at({"p": programme}, calendar, (), conditions, SUN, t)
    later = t + share * max(0.0, now.until - t) * 0.999
    if now.until > t:
        then = level_at({"p": programme}, calendar, (), conditions, SUN, later)
        assert then.level == now.level


ASTRO = Programme(
    "a",
    "A",
    (Step("sunset", 100), Step("22:00", 50)),
    active=(Period(early_min=30, late_min=30),),
)


def astro(moment, *seen):
    conditions = [Condition(kind, 0, 2**50, "12 lx") for kind in seen]
    return level_at(
        {"a": ASTRO}, Calendar("c", "C", "a"), (), conditions, SUN, at(moment)
    )


def test_outside_its_active_period_a_programme_is_off():
    assert [
        astro(f"2026-11-23 {hour}").level for hour in ("15:30", "17:00", "23:00")
    ] == [0, 100, 50]
    assert astro("2026-11-24 09:00").level == 0


@pytest.mark.parametrize(
    ("moment", "seen", "wanted"),
    [
        ("2026-11-23 15:50", "dark", 100),  # sunset is at 16:14
        ("2026-11-23 15:50", "bright", 0),
        ("2026-11-23 15:20", "dark", 0),
        ("2026-11-23 16:20", "bright", 0),
        ("2026-11-23 16:20", "dark", 100),
        ("2026-11-23 16:50", "bright", 100),
        ("2026-11-24 07:45", "dark", 50),  # sunrise is at 07:33
        ("2026-11-24 07:20", "bright", 0),
        ("2026-11-24 08:30", "dark", 0),
    ],
)
def test_a_light_sensor_moves_the_ends_of_the_night_within_its_window(
    moment, seen, wanted
):
    found = astro(moment, seen)
    assert found.level == wanted
    moved = astro(moment).level != wanted
    assert (found.reason[0].code == seen) == moved


def test_without_a_light_sensor_the_sun_decides():
    assert astro("2026-11-23 16:10").level == 0
    assert astro("2026-11-23 16:20").level == 100


def motion(programme, moment, level_=None):
    conditions = [Condition("motion", 0, 2**50, "D1", devices=("L1",))]
    return level_at(
        {"p": programme},
        Calendar("c", "C", "p"),
        (),
        conditions,
        SUN,
        at(moment),
        "L1",
        level_ or 100,
    ).level


def test_motion_lights_a_lamp_that_sleeps_but_never_by_day():
    sleeping = Programme(
        "p",
        "P",
        (Step("sunset", 0),),
        (Period(),),
        (Effect("motion"),),
        part_night=True,
    )
    assert motion(sleeping, "2026-11-23 23:00") == 100
    assert motion(sleeping, "2026-11-23 23:00", level_=70) == 70
    assert motion(sleeping, "2026-11-23 13:00") == 0


def test_an_effect_holds_within_its_hours():
    late = Programme(
        "p",
        "P",
        (Step("sunset", 30),),
        (Period(),),
        (Effect("motion", 80, start="22:00", end="04:00"),),
    )
    assert [motion(late, f"2026-11-23 {hour}") for hour in ("21:59", "22:00")] == [
        30,
        80,
    ]
    assert [motion(late, f"2026-11-24 0{hour}") for hour in ("3:59", "4:00")] == [
        80,
        30,
    ]


def test_traffic_may_lower_the_light_and_rain_goes_before():
    quiet = Programme(
        "p", "P", (Step("sunset", 80),), (Period(),),
        (Effect("traffic", 40, "min"), Effect("wet_road")),
    )  # fmt: skip
    both = [Condition("traffic", 0, 2**50), Condition("wet_road", 0, 2**50)]
    c = Calendar("c", "C", "p")
    t = at("2026-11-23 23:00")
    assert level_at({"p": quiet}, c, (), both[:1], SUN, t).level == 40
    assert level_at({"p": quiet}, c, (), both, SUN, t).level == 100


def test_an_effect_of_rain_that_lowers_is_refused_by_name():
    bad = Programme(
        "bad", "B", (Step("sunset", 80),), effects=(Effect("wet_road", 10, "min"),)
    )
    with pytest.raises(ProgrammeError, match="never lower"):
        check(bad, PLZEN)


def test_an_override_with_a_ramp_goes_there_on_a_straight_line():
    ramp = override(0, fade_s=600)
    assert level("2026-11-23 20:05", [ramp]).level == pytest.approx(50)
    assert level("2026-11-23 20:10", [ramp]).level == 0


@pytest.mark.parametrize(
    ("rule", "nights", "others"),
    [
        (Rule("p", weekdays=("fri",), nth=(1,)), ["2026-11-06"], ["2026-11-13", "2026-11-05"]),
        (Rule("p", weekdays=("sun",), nth=(-1,)), ["2026-11-29"], ["2026-11-22"]),
        (Rule("p", dt.date(2000, 12, 20), dt.date(2000, 1, 6), yearly=True),
         ["2026-12-24", "2031-01-06"], ["2026-12-19", "2027-01-07"]),
        (Rule("p", dt.date(2000, 7, 1), dt.date(2000, 8, 31), yearly=True),
         ["2026-07-01"], ["2026-09-01"]),
        (Rule("p", holidays="CZ", dates=(dt.date(2026, 11, 17),)),
         ["2026-11-17"], ["2026-11-18"]),
        (Rule("p", holidays="CZ"), [], ["2026-11-17"]),
    ],
)  # fmt: skip
def test_rules_speak_of_the_nights_they_name(rule, nights, others):
    assert all(rule.covers(dt.date.fromisoformat(night)) for night in nights)
    assert not any(rule.covers(dt.date.fromisoformat(night)) for night in others)
