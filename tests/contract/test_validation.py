"""The border of desired documents, and their order."""

import datetime as dt
import math

import msgspec
import pytest

from duha_contract.errors import ContractError, ProgrammeError
from duha_contract.lighting import Condition, Override, Sun, bounded, level_at
from duha_contract.messages import Desired, supersedes
from duha_contract.programmes import (
    Calendar,
    Effect,
    Period,
    Place,
    Programme,
    Rule,
    Step,
    check,
    segments,
)
from duha_contract.roads import Drying, Road, advance, dry_at
from duha_contract.validation import evaluate_ahead, validate_desired

PLZEN = Place(49.7475, 13.3776, "Europe/Prague")
NOW_MS = 1_795_561_200_000  # 2026-11-24 23:00 in Plzeň
STREET = Programme("p", "P", (Step("sunset", 100), Step("22:00", 40)), (Period(),))
GOOD = Desired(
    1, 7, "h", 0, PLZEN, (STREET,), (Calendar("c", "C", "p", (Rule("p"),)),),
    {"*": "c", "L1": "c"}, (Override("o", 50, NOW_MS, NOW_MS + 1000),),
    (Condition("wet_road", NOW_MS, NOW_MS + 1000),), {"L1": 80.0}, Drying(),
)  # fmt: skip


def changed(**what):
    return msgspec.structs.replace(GOOD, **what)


def override(**what):
    return changed(overrides=(msgspec.structs.replace(GOOD.overrides[0], **what),))


def street(**what):
    return changed(programmes=(msgspec.structs.replace(STREET, **what),))


def test_a_good_document_passes():
    validate_desired(GOOD)
    evaluate_ahead(GOOD, ["L1", "L2"], NOW_MS / 1000)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(changed(place=Place(49, 13, "No/Where")), id="no zone"),
        pytest.param(changed(place=Place(49, 13, "Europe")), id="a folder of zones"),
        pytest.param(changed(place=Place(49, 13, "z" * 9000)), id="a long zone"),
        pytest.param(changed(place=Place(math.nan, 13, "UTC")), id="no latitude"),
        pytest.param(changed(place=Place(91, 13, "UTC")), id="latitude"),
        pytest.param(changed(place=Place(49, -math.inf, "UTC")), id="longitude"),
        pytest.param(override(level=-1e9), id="level below"),
        pytest.param(override(level=math.inf), id="level infinite"),
        pytest.param(override(fade_s=math.inf), id="fade infinite"),
        pytest.param(override(fade_s=-1.0), id="fade negative"),
        pytest.param(override(end=2**62), id="end in another age"),
        pytest.param(override(start=-1), id="start before 2000"),
        pytest.param(override(start=2**70), id="start of 70 bits"),
        pytest.param(override(devices=("L 1",)), id="no id"),
        pytest.param(override(id=""), id="override without id"),
        pytest.param(override(id="x" * 257), id="override with a long id"),
        pytest.param(override(reason="\0"), id="NUL"),
        pytest.param(override(reason="\ud800"), id="no UTF-8"),
        pytest.param(changed(overrides=GOOD.overrides * 5001), id="overrides"),
        pytest.param(changed(conditions=GOOD.conditions * 5001), id="conditions"),
        pytest.param(changed(programmes=(STREET,) * 201), id="programmes"),
        pytest.param(changed(normals={"L1": math.nan}), id="normal level"),
        pytest.param(changed(normals={"L1": 101.0}), id="normal level above"),
        pytest.param(changed(assignments={"L\0": "c"}), id="NUL in a key"),
        pytest.param(changed(drying=Drying(humidity=2.0)), id="humidity"),
        pytest.param(changed(drying=Drying(hold_s=math.inf)), id="hold"),
        pytest.param(street(steps=()), id="no step"),
        pytest.param(street(steps=(Step("25:00", 50),)), id="no time"),
        pytest.param(street(steps=(Step("22:00", math.nan),)), id="step level"),
        pytest.param(street(steps=(Step("22:00", 50, 1e300),)), id="step fade"),
        pytest.param(street(steps=STREET.steps * 101), id="steps"),
        pytest.param(street(active=(Period("dusk"),)), id="period"),
        pytest.param(street(active=(Period(early_min=math.nan),)), id="early"),
        pytest.param(street(effects=(Effect("traffic", 120),)), id="effect level"),
        pytest.param(
            street(effects=(Effect("wet_road", 50, "min"),)), id="rain lowers"
        ),
        pytest.param(street(effects=(Effect("motion", start="x"),)), id="effect time"),
    ],
)
def test_a_document_that_no_controller_can_hold_to_is_refused(bad):
    with pytest.raises(ContractError):
        validate_desired(bad)


def test_a_programme_is_checked_in_every_night_of_a_year():
    """At midsummer the sun rises before five: the period is empty, and harmless."""
    morning = Programme(
        "m", "M", (Step("05:00", 80),), (Period("05:00", "sunrise", early_min=30),)
    )
    with pytest.raises(ProgrammeError, match="in the night of"):
        check(morning, PLZEN)
    nights = [dt.date(2026, 1, 1) + dt.timedelta(days=n) for n in range(365)]
    assert all(segments(morning, PLZEN, night) for night in nights)


def test_a_period_by_the_sun_passes_where_nights_are_short():
    sensed = Programme("s", "S", (Step("sunset", 80),), (Period("sunset", "sunrise", 60, 60),))  # fmt: skip
    for place in (PLZEN, Place(69.65, 18.96, "Europe/Oslo")):
        check(sensed, place)


def test_a_programme_that_cannot_be_evaluated_lights_like_the_default():
    broken = Programme("b", "B", (Step("25:00", 50),))
    calendar = Calendar("c", "C", "b")
    for hour, level in ((0, 100.0), (13, 0.0)):
        t = NOW_MS / 1000 + 3600 * hour
        found = level_at({"b": broken}, calendar, (), (), Sun(PLZEN), t)
        assert (found.level, found.reason[0].code) == (level, "default")


@pytest.mark.parametrize(
    ("level", "given"),
    [(50.0, 50.0), (-1e9, 0.0), (1e9, 100.0), (math.nan, 100.0), (-math.inf, 0.0)],
)
def test_a_level_is_brought_to_what_gear_knows(level, given):
    assert bounded(level) == given
    hand = Override("o", level, NOW_MS - 1, NOW_MS + 1)
    assert level_at({}, None, (hand,), (), Sun(PLZEN), NOW_MS / 1000).level == given


def test_air_that_takes_no_water_leaves_roads_wet_for_two_days():
    still = Drying(humidity=1.0, wind_m_s=0.0, traffic_mm_h=0.0)
    for warm in (None, -243.12, 1e9, -1e9, math.nan):
        road = advance(Road(0.0), still, 0.0, rain_mm=1.0, temperature_c=warm)
        assert 0 < dry_at(road, still) <= 48 * 3600
    assert advance(Road(0.0), Drying(), 0.0, math.nan).film_mm == 0.0
    assert advance(Road(0.0), Drying(), 0.0, math.inf).film_mm == 0.4


@pytest.mark.parametrize(
    ("term", "revision", "content", "taken"),
    [
        (2, 1, "other", True),
        (1, 8, "other", True),
        (1, 7, "other", True),
        (1, 7, "h", False),
        (1, 6, "other", False),
        (0, 99, "other", False),
    ],
)
def test_term_and_revision_say_which_document_is_newer(term, revision, content, taken):
    old = changed(term=1)
    new = changed(term=term, revision=revision, hash=content)
    assert supersedes(new, old) is taken
    assert supersedes(new, None)
