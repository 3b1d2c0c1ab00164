"""A calendar that would leave a street dark is refused, and says where and when."""

import datetime as dt

import pytest

from duha_backend.errors import Invalid
from duha_backend.lighting.days import dated, public
from duha_backend.lighting.refusals import refusals
from duha_contract.lighting import Sun
from duha_contract.programmes import (
    Calendar,
    Effect,
    Period,
    Place,
    Programme,
    Rule,
    Step,
)

SUN = Sun(Place(49.7475, 13.3776, "Europe/Prague"))
TONIGHT = dt.date(2026, 11, 24)
ASTRO = (Period(),)


def programme(*steps, active=ASTRO, **more):
    made = tuple(Step(*step) if isinstance(step, tuple) else step for step in steps)
    return Programme("p", "P", made, active, **more)


def refused(*programmes, calendar=None, least=0.0):
    by_id = {p.id: p for p in programmes}
    return refusals(by_id, calendar or Calendar("c", "C", "p"), SUN, TONIGHT, least)


def codes(*programmes, **more):
    return {refusal.code for refusal in refused(*programmes, **more)}


FINE = programme(("sunset", 100), ("22:00", 50), ("05:00", 80))


def test_a_usual_programme_is_fine():
    assert refused(FINE, least=50) == []


def test_a_gap_at_night_is_refused():
    (found,) = refused(programme(("sunset", 100), ("01:00", 0), ("04:00", 100)))
    assert (found.code, found.programme, found.rule) == ("dark", "p", 0)
    assert found.nights == tuple(TONIGHT + dt.timedelta(days=n) for n in range(3))
    assert "no light from 01:00" in str(found)
    assert "2026-11-24, 2026-11-25, 2026-11-26" in str(found)


def test_a_part_night_that_is_meant_is_taken_where_no_class_forbids_it():
    park = programme(("sunset", 60), ("23:00", 0), part_night=True)
    assert refused(park) == []
    assert codes(park, least=30) == {"dark"}


def test_light_below_the_class_is_refused():
    (found,) = refused(FINE, least=60)
    assert found.code == "below_class"
    assert "50 % from 22:00, the lighting class needs 60 %" in str(found)


def test_an_input_that_lowers_below_the_class_is_refused():
    quiet = programme(("sunset", 80), effects=(Effect("traffic", 30, "min"),))
    assert codes(quiet, least=40) == {"below_class"}
    assert codes(quiet, least=30) == set()


def test_lamps_on_by_day_are_refused():
    """A fixed morning and an end at sunrise: in summer the end comes first."""
    summer = programme(
        ("sunset", 100), ("23:00", 0), ("06:00", 100), ("sunrise", 0), active=(),
        part_night=True,
    )  # fmt: skip
    found = {refusal.code: refusal for refusal in refused(summer)}
    assert set(found) == {"lit_by_day", "contradiction"}
    assert found["lit_by_day"].nights[0] > dt.date(2027, 3, 1)
    forgotten = programme(("sunset", 100), active=())
    assert codes(forgotten) == {"lit_by_day"}


def test_contradictory_steps_are_refused():
    assert codes(programme(("sunset", 100), ("22:00", 50), ("22:00", 60))) == {
        "contradiction"
    }
    turned = refused(programme(("22:00", 100), ("sunset", 50), ("05:00", 60)))
    assert [refusal.code for refusal in turned] == ["contradiction"]
    assert "step 2 (sunset) comes before step 1 (22:00)" in str(turned[0])


def test_a_contradiction_of_the_shortest_nights_alone_is_refused():
    late = programme(("sunset", 100), ("21:00", 60), ("05:00", 80), active=())
    nights = [r.nights for r in refused(late) if r.code == "contradiction"]
    assert nights
    assert all(night.month in {5, 6, 7, 8} for found in nights for night in found)


def test_a_gap_of_the_longest_nights_alone_is_refused():
    winter = programme(("sunset", 100), active=(Period("sunset", "07:20"),))
    found = {refusal.code: refusal for refusal in refused(winter)}
    assert set(found) == {"dark", "lit_by_day"}
    assert {night.month for night in found["dark"].nights} <= {12, 1}
    assert found["lit_by_day"].nights[0].month in {3, 4, 5}


def test_a_gap_that_only_the_change_of_the_clock_opens_is_refused():
    parts = (Period("sunset", "03:00"), Period("02:30", "sunrise"))
    (found,) = refused(programme(("sunset", 100), active=parts))
    assert found.code == "dark"
    assert found.nights == (dt.date(2027, 3, 27),)


def test_the_night_of_the_other_change_of_the_clock_is_fine():
    calendar = Calendar(
        "c", "C", "p", (Rule("p", dt.date(2027, 10, 30), dt.date(2027, 10, 31)),)
    )
    assert refused(FINE, calendar=calendar, least=50) == []


def test_a_programme_that_is_not_there_is_refused():
    (found,) = refused(
        FINE, calendar=Calendar("c", "C", "p", (Rule("q", weekdays=("sat",)),))
    )
    assert (found.code, found.programme, found.rule) == ("unknown_programme", "q", 1)
    assert found.nights[0] == dt.date(2026, 11, 28)


def test_more_switching_than_drivers_like_is_refused():
    often = tuple(Period(f"{h}:00", f"{h}:30") for h in (18, 19, 20, 21))
    flicker = programme(("sunset", 100), active=often, part_night=True)
    assert "switches" in codes(flicker)


def test_a_light_sensor_that_errs_may_not_leave_a_street_dark():
    def moved(**window):
        return codes(programme(("sunset", 100), active=(Period(**window),)))

    assert moved(early_min=30, late_min=30) == set()
    assert moved(late_min=60) == {"dark"}
    assert moved(early_min=90) == {"dark", "lit_by_day"}


def test_the_rule_that_darkens_is_named():
    dark = Programme("q", "Q", (Step("sunset", 0),), ASTRO)
    calendar = Calendar(
        "c",
        "C",
        "p",
        (Rule("p", weekdays=("mon",)), Rule("q", weekdays=("sun",), nth=(-1,))),
    )
    (found,) = refused(FINE, dark, calendar=calendar)
    assert (found.programme, found.rule) == ("q", 2)
    assert found.nights == (
        dt.date(2026, 11, 29),
        dt.date(2026, 12, 27),
        dt.date(2027, 1, 31),
    )


def test_holidays_are_written_out_for_the_years_to_come():
    calendar = Calendar("c", "C", "p", (Rule("p", holidays="CZ"),))
    dates = dated(calendar, TONIGHT).rules[0].dates
    assert {dt.date(2026, 11, 17), dt.date(2027, 7, 6), dt.date(2028, 12, 24)} <= set(
        dates
    )
    easter = {dt.date(2027, 3, 26), dt.date(2027, 3, 29)}  # Good Friday, Easter Monday
    assert easter <= set(public("CZ", (2027,)))
    assert len(public("CZ", (2027,))) == 13


def test_a_country_that_is_none_is_refused_by_name():
    with pytest.raises(Invalid, match="XQ"):
        dated(Calendar("c", "C", "p", (Rule("p", holidays="XQ"),)), TONIGHT)
