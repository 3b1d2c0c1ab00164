"""What the edge does over a year is what the backend has shown, minute by minute."""

import datetime as dt
import os
import random

import astral
import astral.sun
import numpy as np
import pytest

from duha_backend.lighting.nights import grid, levels
from duha_backend.lighting.refusals import refusals
from duha_contract.lighting import Condition, Override, Sun
from duha_contract.messages import Desired
from duha_contract.programmes import (
    WEEKDAYS,
    Calendar,
    Effect,
    Period,
    Place,
    Programme,
    Rule,
    Step,
)
from duha_edge.executor import Executor

PLZEN = Place(49.7475, 13.3776, "Europe/Prague")
SUN = Sun(PLZEN)
FIRST = dt.date(2026, 11, 24)
HOUR_MS = 3_600_000


def a_programme(name, chance):
    evening = chance.choice(["20:00", "21:30", "22:00", "sunset+90", "23:15"])
    morning = chance.choice(["04:30", "05:00", "sunrise-60", "03:50"])
    steps = [Step("sunset", chance.randint(40, 100), chance.choice([0, 60, 600]))]
    steps.append(Step(evening, chance.randint(20, 90), chance.choice([0, 45, 1800])))
    if chance.random() < 0.6:
        steps.append(Step(morning, chance.randint(30, 100), chance.choice([0, 300])))
    early, late = chance.choice([0, 20]), chance.choice([0, 25])
    effects = [
        Effect(
            chance.choice(["wet_road", "traffic", "motion"]),
            chance.choice([None, 70, 95]),
            start=chance.choice(["", "19:00"]),
            end=chance.choice(["", "sunrise-10", "04:00"]),
        )
        for _ in range(chance.randint(0, 2))
    ]
    active = (Period("sunset", "sunrise", early, late),)
    return Programme(name, name, tuple(steps), active, tuple(effects))


def a_calendar(chance, programmes):
    rules = [
        Rule(
            chance.choice(programmes).id,
            first=chance.choice([None, dt.date(2027, 2, 1)]),
            last=chance.choice([None, dt.date(2027, 6, 30)]),
            weekdays=tuple(chance.sample(WEEKDAYS, chance.randint(0, 3))),
            nth=chance.choice([(), (1, -1)]),
        )
        for _ in range(chance.randint(0, 3))
    ]
    rules.append(
        Rule(programmes[0].id, dt.date(2000, 12, 20), dt.date(2000, 1, 6), yearly=True)
    )
    return Calendar("c", "C", programmes[-1].id, tuple(rules))


def a_valid_calendar(chance):
    while True:
        programmes = [a_programme(f"p{n}", chance) for n in range(3)]
        calendar = a_calendar(chance, programmes)
        if not refusals({p.id: p for p in programmes}, calendar, SUN, FIRST, 20.0):
            return programmes, calendar


def moments(chance, times, most_hours):
    start = round(chance.uniform(times[0], times[-1]) * 1000)
    return start, start + round(chance.uniform(0.02, most_hours) * HOUR_MS)


def overrides(chance, times):
    for n in range(chance.randint(0, 40)):
        start, end = moments(chance, times, 30)
        devices = chance.choice([None, ("L1",), ("L2",)])
        yield Override(
            f"o{n:03d}", chance.randint(0, 100), start, end, devices=devices,
            emergency=chance.random() < 0.1, fade_s=chance.choice([0, 0, 300]),
        )  # fmt: skip


def conditions(chance, times):
    for _ in range(chance.randint(0, 60)):
        kind = chance.choice(["wet_road", "traffic", "motion", "dark", "bright"])
        start, end = moments(chance, times, 5)
        devices = chance.choice([None, ("L1",)])
        yield Condition(kind, start, end, "x", devices)


def executed(executor, times):
    """Levels that the executor commands, asked every minute as the agent does."""
    found = np.empty(len(times))
    told = 0
    for n, t in enumerate(times.tolist()):
        due = executor.to_write(t, t)
        if "L1" in due:
            told = due["L1"]
            executor.told("L1", told, t)
            executor.saw("L1", float(told))
        found[n] = told
    return found


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(4), id="some"),
        pytest.param(
            range(4, int(os.environ.get("DUHA_TEST_CALENDARS", "40"))),
            id="more",
            marks=[pytest.mark.system, pytest.mark.timeout(900)],
        ),
    ],
)
def test_the_edge_does_over_a_year_what_the_preview_shows(seeds, tmp_path):
    times = grid(SUN, FIRST, 366)
    for seed in seeds:
        chance = random.Random(seed)
        programmes, calendar = a_valid_calendar(chance)
        held = sorted(overrides(chance, times), key=lambda o: o.id)
        seen = tuple(conditions(chance, times))
        normal = chance.choice([100.0, 85.0])
        document = Desired(
            1, 1, f"h{seed}", 0, PLZEN, tuple(programmes), (calendar,), {"*": "c"},
            tuple(held), seen, {"L1": normal},
        )  # fmt: skip
        executor = Executor(["L1"], PLZEN, tmp_path / f"desired-{seed}.json")
        executor.accept(document)
        shown = levels(
            {p.id: p for p in programmes},
            calendar,
            held,
            seen,
            SUN,
            times,
            "L1",
            normal,
        )
        done = executed(executor, times)
        wrong = np.flatnonzero(done != [round(x) for x in shown.tolist()])
        assert not len(wrong), (
            f"seed {seed}: {len(wrong)} minutes, first {times[wrong[0]]}"
        )


EVERYWHERE = [
    pytest.param(Place(1.87, -157.4, "Pacific/Kiritimati"), id="Kiritimati"),
    pytest.param(Place(-13.83, -171.77, "Pacific/Apia"), id="Apia"),
    pytest.param(Place(-43.95, -176.56, "Pacific/Chatham"), id="Chatham"),
    pytest.param(Place(69.65, 18.96, "Europe/Oslo"), id="Tromso"),
    pytest.param(Place(78.22, 15.65, "Arctic/Longyearbyen"), id="Longyearbyen"),
    pytest.param(Place(-77.85, 166.67, "Antarctica/McMurdo"), id="McMurdo"),
]
BY_THE_SUN = [
    pytest.param(None, id="default"),
    pytest.param(Programme("p", "P", (Step("sunset", 100),), (Period(),)), id="period"),
    pytest.param(
        Programme("p", "P", (Step("sunset", 100), Step("sunrise", 0))), id="steps"
    ),
]


@pytest.mark.parametrize("place", EVERYWHERE)
@pytest.mark.parametrize("programme", BY_THE_SUN)
def test_lamps_are_lit_while_the_sun_is_down_wherever_on_earth(
    place, programme, tmp_path
):
    """Polar night: always; midnight sun: never; astral says where the sun stands."""
    observer = astral.Observer(place.latitude, place.longitude)
    times = grid(Sun(place), dt.date(2026, 1, 1), 365, 5 * 3600.0)
    executor = Executor(["L1"], place, tmp_path / "desired.json")
    programmes = {} if programme is None else {"p": programme}
    calendar = None if programme is None else Calendar("c", "C", "p")
    if programme is not None and calendar is not None:
        document = Desired(1, 1, "h", 0, place, (programme,), (calendar,), {"*": "c"})
        assert executor.accept(document)
    shown = levels(programmes, calendar, (), (), Sun(place), times, "L1")
    for t, level in zip(times.tolist(), shown.tolist(), strict=True):
        moment = dt.datetime.fromtimestamp(t, dt.UTC)
        assert executor.decide("L1", t).level == level, moment
        height = astral.sun.elevation(observer, moment, with_refraction=False) + 0.833
        if abs(height) > 0.05:
            assert level == (100 if height < 0 else 0), moment


@pytest.mark.parametrize("place", EVERYWHERE)
def test_a_calendar_by_the_sun_is_not_refused_wherever_on_earth(place):
    programme = Programme("p", "P", (Step("sunset", 100),), (Period(),))
    calendar = Calendar("c", "C", "p")
    assert not refusals({"p": programme}, calendar, Sun(place), FIRST, 50.0)
    dark = Programme("p", "P", (Step("12:00", 0),), (Period(),), part_night=False)
    found = refusals({"p": dark}, calendar, Sun(place), FIRST)
    assert "dark" in {refusal.code for refusal in found}


@pytest.mark.parametrize("minutes", ["+15", "-15"])
def test_offsets_from_a_sun_that_does_not_rise_leave_no_gap(minutes, tmp_path):
    place = Place(69.65, 18.96, "Europe/Oslo")
    active = (Period(f"sunset{minutes}", f"sunrise{minutes}"),)
    steps = (Step(f"sunset{minutes}", 80), Step(f"sunrise{minutes}", 0))
    for programme in (
        Programme("p", "P", (Step("sunset", 80),), active),
        Programme("p", "P", steps),
    ):
        times = grid(Sun(place), dt.date(2026, 12, 15), 5)
        calendar = Calendar("c", "C", "p")
        shown = levels({"p": programme}, calendar, (), (), Sun(place), times)
        assert set(shown.tolist()) == {80.0}
