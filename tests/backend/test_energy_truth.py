"""The savings that are told against the truth of simulated nights, with everything that goes wrong.

`DUHA_TEST_NIGHTS` says how many random nights are lived; 200 without it.
"""

import datetime as dt
import os
from typing import NamedTuple

import numpy as np
import pytest

from duha_backend.energy.lamps import lamp_nights
from duha_backend.energy.nights import City, darkness, settled
from duha_backend.energy.quarters import BEFORE, Quarters
from duha_backend.lighting.inventory import Asset, LuminaireType
from duha_backend.readings import QUARTER_MS
from duha_contract.lighting import Sun
from duha_contract.programmes import Place, noons
from duha_sim import physics

NIGHTS = int(os.environ.get("DUHA_TEST_NIGHTS", "200"))
PLACES = (
    Place(49.7475, 13.3776, "Europe/Prague"),
    Place(-33.87, 151.2, "Australia/Sydney"),
    Place(64.15, -21.94, "Atlantic/Reykjavik"),
)
SUNS = [Sun(place) for place in PLACES]
CHANGES = (dt.date(2026, 3, 28), dt.date(2026, 10, 24), dt.date(2026, 10, 3))
"""Evenings before the clock changes: nights of 23 and 25 hours."""
STEP_S = 60
A_QUARTER = QUARTER_MS // 1000 // STEP_S
RATED = {"A": 62.0, "B": 38.0, "C": 100.0}
CURVES = {
    name: np.array([physics.power(physics.LampType(w), x / 100) for x in range(101)])
    for name, w in RATED.items()
}
TYPES = {
    name: LuminaireType(
        name, name, RATED[name], 0.5, curve=((0.0, 0.5), *((float(x), CURVES[name][x]) for x in range(10, 101, 10)))
    )
    for name in RATED
}  # fmt: skip
CITY = City(TYPES, {})


class Night(NamedTuple):
    """A night that was lived: its luminaires, what they took, and what was read of it."""

    lamps: list[Asset]
    dark: np.ndarray
    taken_wh: np.ndarray  # (n, q), true
    before_late: Quarters
    read: Quarters


def live(chance, *, clean=False):
    """Live a random night of a small city."""
    where = chance.integers(len(PLACES))
    sun = SUNS[where]
    date = dt.date(2026, 1, 1) + dt.timedelta(days=int(chance.integers(365)))
    if chance.random() < 0.2:
        date = CHANGES[chance.integers(len(CHANGES))]
    begin, end = (round(t) for t in noons(sun.place, date))
    n = int(chance.integers(4, 12))
    names = chance.choice(list(RATED), n)
    lamps = [
        Asset(f"L{i}", "luminaire", f"R{i % 2}", "d", "s", 0, 0, type=str(name))
        for i, name in enumerate(names)
    ]
    minutes = BEFORE * A_QUARTER + (end - begin) // STEP_S
    level = levels_of(chance, sun, date, begin, minutes, n)
    watts = np.array(
        [CURVES[name][row] for name, row in zip(names, level, strict=True)]
    )
    watts = watts * (1 + chance.uniform(-0.04, 0.04, (n, 1)))  # not quite their type
    taken = watts * STEP_S / 3600
    per_quarter = taken.reshape(n, -1, A_QUARTER).sum(axis=2)
    raw = registers(chance, taken, clean)
    heard, at_once = polls(chance, n, minutes, clean)
    shown = level.copy()
    if not clean:
        frozen = freeze(chance, raw, shown)
        raw[~frozen] = with_glitches(chance, raw[~frozen], heard[~frozen])
    if chance.random() < 0.3:  # luminaires that measure no energy
        raw[chance.random(n) < 0.5] = np.nan
    quarters = [
        rolled(lamps, raw, shown, seen, begin, end) for seen in (heard & at_once, heard)
    ]
    dark = darkness(sun, date)
    return Night(lamps, dark, per_quarter[:, BEFORE:], *quarters)


def levels_of(chance, sun, date, begin, minutes, n):
    """Level of each luminaire in each minute [%], with dimming, overrides and failures."""
    t = begin - BEFORE * QUARTER_MS // 1000 + STEP_S * np.arange(minutes)
    level = np.zeros((n, minutes), dtype=int)
    for back in (-1, 0):
        night = sun.night(date + dt.timedelta(days=back))
        if night is None:
            continue
        lit = (t >= night.sunset) & (t < night.sunrise)
        length = night.sunrise - night.sunset
        deep = lit & (t >= night.sunset + 0.3 * length) & (t < night.sunset + 0.8 * length)  # fmt: skip
        level[:, lit] = chance.integers(60, 101)
        level[:, deep] = chance.integers(20, 80)
    for _ in range(chance.integers(0, 4)):  # by hand, wet roads, traffic
        some = chance.random(n) < 0.5
        first, last = np.sort(chance.integers(0, minutes, 2))
        level[some, first:last] = chance.choice([0, 30, 100])
    burnt = chance.random(n) < 0.05
    level[burnt, chance.integers(minutes) :] = 0
    return level


def registers(chance, taken, clean):
    """What the counters show in each minute [Wh]: their own error, resets, wraps."""
    n, minutes = taken.shape
    gain = 1 + chance.uniform(-0.01, 0.01) + chance.uniform(-0.02, 0.02, (n, 1))
    total = np.cumsum(taken * gain, axis=1)
    base = chance.uniform(0, 50_000, (n, 1))
    if chance.random() < 0.3:
        base[chance.random(n) < 0.5] = chance.uniform(0, 30)  # just installed
    counter = base + total
    modulus = np.inf
    if not clean and chance.random() < 0.3:
        modulus = chance.choice([2.0**16, 2.0**32])
        counter += modulus - base - total[:, [minutes // 2]] * chance.uniform(0, 2)
    for i in np.flatnonzero(chance.random(n) < (0.0 if clean else 0.2)):
        at = chance.integers(minutes)
        if counter[i, at] < modulus < counter[i, at] + 100:
            continue  # cannot be told from a wrap
        fresh = (
            0.0 if modulus < np.inf else chance.choice([0.0, chance.uniform(0, 90_000)])
        )
        if 0 < abs(fresh - counter[i, at]) < 5000 and fresh:
            fresh += (
                20_000  # one that stands where the old one did cannot be told from it
            )
        counter[i, at:] += fresh - counter[i, at]
    unit = chance.choice([1.0, 1.0, 1.0, 10.0])
    shown: np.ndarray = np.floor(np.mod(np.maximum(counter, 0), modulus) / unit) * unit
    return shown


def polls(chance, n, minutes, clean):
    """Which minutes were read of each luminaire, and which of those came in time."""
    period = int(chance.choice([1, 3, 5]))
    heard = np.zeros((n, minutes), dtype=bool)
    heard[:, ::period] = True
    at_once = np.ones((n, minutes), dtype=bool)
    if clean:
        return heard, at_once
    heard &= chance.random((n, minutes)) > chance.choice([0.0, 0.01, 0.2])
    for _ in range(chance.integers(0, 4)):  # cabinets and single luminaires fall silent
        here = np.arange(n) % 2 == chance.integers(2)
        if chance.random() < 0.5:
            here = chance.random(n) < 0.3
        first = chance.integers(minutes)
        last = first + int(chance.exponential(240)) + 5
        if chance.random() < 0.3:
            at_once[here, first:last] = False  # it is in the outbox
        else:
            heard[here, first:last] = False
    return heard, at_once


def with_glitches(chance, raw, heard):
    """Single readings, and a few in a row, that are not what the counter shows."""
    raw = raw.copy()
    for i in np.flatnonzero(chance.random(len(raw)) < 0.4):
        at = np.flatnonzero(heard[i])
        for _ in range(chance.integers(1, 4)):
            if not len(at):
                break
            first = chance.integers(len(at))
            some = at[first : first + chance.choice([1, 1, 2, 20])]
            raw[i, some] = chance.choice(
                [0.0, 0.0, 65_535.0, 4.2e9, raw[i, some[0]] + 5000]
            )
    return raw


def freeze(chance, raw, shown):
    """A gateway repeats the last answers of some luminaires for a while, and catches up.

    One that repeats the light, too, and never catches up cannot be told from a lamp that
    stays as it is.
    """
    n, minutes = raw.shape
    whole = np.zeros(n, dtype=bool)
    for i in np.flatnonzero(chance.random(n) < 0.1):
        first = chance.integers(minutes)
        last = min(minutes, first + int(chance.exponential(180)) + 5)
        whole[i] = chance.random() < 0.5
        if whole[i] and (last + 60 > minutes or (np.diff(raw[i]) < 0).any()):
            continue
        raw[i, first:last] = raw[i, first]
        if whole[i]:
            shown[i, first:last] = shown[i, first]
    return whole


def rolled(lamps, raw, level, heard, begin, end):
    """The readings in quarters of an hour, as the stores roll them up."""
    names = [lamp.id for lamp in lamps]
    made = Quarters.empty(names, begin * 1000, end * 1000)
    n = len(names)
    seen = heard.reshape(n, -1, A_QUARTER)
    answers = seen.sum(axis=2)
    last = A_QUARTER - 1 - np.argmax(seen[:, :, ::-1], axis=2)
    shown = np.take_along_axis(raw.reshape(seen.shape), last[:, :, None], 2)[:, :, 0]
    sums = (level.reshape(seen.shape) * seen).sum(axis=2)
    for i, name in enumerate(names):
        here = np.flatnonzero(answers[i])
        frame = {
            "device": np.array([name] * len(here), dtype=object),
            "ts": made.start + here * QUARTER_MS,
            "n": answers[i, here],
            "energy_wh": shown[i, here],
            "level_actual_pct": sums[i, here] / answers[i, here],
            "level_in_effect_pct": np.full(len(here), np.nan),
        }
        made.take(frame, "energy_wh", "level_actual_pct", "level_in_effect_pct")
    return made


SUMS = (
    "lamps_wh", "baseline_wh", "saved_uncertainty_wh", "unknown_wh",
    "unknown_baseline_wh", "due_h", "covered_h",
)  # fmt: skip


def judge(night, read):
    """What is told of a night, and whether it holds: of what is known, and of the whole."""
    found = settled(dt.date(2026, 1, 1), night.lamps, read, night.dark, CITY, {})
    assert found.failures == {}
    told = {x: sum(getattr(cabinet, x) for cabinet in found.cabinets) for x in SUMS}
    u = told["saved_uncertainty_wh"]
    kinds = [TYPES[lamp.type] for lamp in night.lamps]
    known = lamp_nights(read, kinds).known
    rated = np.array([[kind.rated_w] for kind in kinds])
    baseline = rated * night.dark * 0.25
    taken = night.taken_wh
    saved = told["baseline_wh"] - told["lamps_wh"]
    assert told["baseline_wh"] == pytest.approx((baseline * known).sum())
    true = ((baseline - taken) * known).sum()
    unknown = (taken * ~known).sum()
    holds = abs(saved - true) <= u and 0 <= unknown <= told["unknown_wh"]
    return told, holds, (saved, true, u)


def test_savings_lie_within_their_uncertainty_of_the_truth_in_all_nights():
    missed, shares, widths = [], [], []
    told: dict[str, float] = {}
    for number in range(NIGHTS):
        night = live(np.random.default_rng([2026, number]))
        for when, read in (("early", night.before_late), ("late", night.read)):
            told, holds, figures = judge(night, read)
            if not holds:
                missed.append((number, when, *figures))
        if told["due_h"]:
            shares.append(told["covered_h"] / told["due_h"])
            widths.append(told["saved_uncertainty_wh"] / max(1.0, told["lamps_wh"]))
    assert missed == []
    assert np.median(shares) > 0.8, "most of these nights can be told"
    assert np.median(widths) < 0.10, "and told well"
    print(
        f"{NIGHTS} nights; coverage {np.median(shares):.3f}, u {np.median(widths):.3f}"
    )
