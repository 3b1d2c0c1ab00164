"""What the edge does over a year is what the backend has shown, minute by minute."""

import datetime as dt
import random

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
            range(4, 200),
            id="two-hundred",
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
