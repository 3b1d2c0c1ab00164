"""A synthetic year of rain over a city: showers that move, and fronts. Seeded."""

import numpy as np

STEPS_A_DAY = 288


def gauges(count=20, size_m=9000.0, seed=3):
    """Places on a shaken grid [m]."""
    chance = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(count)))
    cell = size_m / side
    grid = [((i % side + 0.5) * cell, (i // side + 0.5) * cell) for i in range(count)]
    return np.array(grid) + chance.normal(0, cell * 0.2, (count, 2))


def year(places, seed=1, days=365):
    """Rain [mm in five minutes] of each gauge: about 170 wet spells."""
    chance = np.random.default_rng(seed)
    rain = np.zeros((len(places), days * STEPS_A_DAY))
    day = 0.0
    while (day := day + chance.exponential(2.1)) < days - 1:
        spell = _spell(places, chance)
        start = int(day * STEPS_A_DAY)
        end = min(start + spell.shape[1], rain.shape[1])
        rain[:, start:end] += spell[:, : end - start]
    return rain


def _spell(places, chance):
    shower = chance.random() < 0.4
    steps = int((chance.uniform(1, 3) if shower else chance.uniform(3, 10)) * 12)
    t = np.arange(steps) * 300.0
    field = np.zeros((len(places), steps))
    angle, speed = chance.uniform(0, 2 * np.pi), chance.uniform(3, 13)
    for _ in range(chance.integers(1, 5 if shower else 3)):
        radius = chance.uniform(1500, 4000) if shower else chance.uniform(1e4, 4e4)
        peak = chance.uniform(6, 50) if shower else chance.uniform(0.5, 4)
        at = chance.uniform(0.2, 0.8) * steps * 300
        life = chance.uniform(900, 2400) if shower else steps * 105
        begin = places.mean(axis=0) + chance.normal(0, 3000 if shower else 8000, 2)
        x = begin[0] + np.cos(angle) * speed * (t - at)
        y = begin[1] + np.sin(angle) * speed * (t - at)
        apart = (places[:, 0, None] - x) ** 2 + (places[:, 1, None] - y) ** 2
        field += peak * np.exp(-apart / (2 * radius**2) - ((t - at) / life) ** 2 / 2)
    field *= np.exp(chance.normal(0, 0.08, field.shape))
    return np.where(field < 0.1, 0.0, field) / 12


def tipped(rain, tip_mm=0.2):
    """What tipping buckets make of it."""
    tips = np.floor(np.cumsum(rain, axis=1) / tip_mm + 1e-9)
    return np.diff(tips, axis=1, prepend=0) * tip_mm
