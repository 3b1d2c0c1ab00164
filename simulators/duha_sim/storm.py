"""Rain over a city: moving cells from a seed, or a recorded series."""

import csv
import datetime as dt
import math
import random
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

KM_PER_DEGREE = 111.2


@dataclass(frozen=True, slots=True)
class Cell:
    """A shower: a Gaussian in space and time that moves with the wind.

    Attributes
    ----------
    t : float
        Time of its peak [s].
    lasts_s, radius_km : float
        Standard deviation in time [s] and in space [km].
    latitude, longitude : float
        Where its centre is at the peak [°].
    east_m_s, north_m_s : float
        Its motion [m/s].
    peak_mm_h : float
        Intensity in its centre at the peak [mm/h].
    """

    t: float
    lasts_s: float
    radius_km: float
    latitude: float
    longitude: float
    east_m_s: float
    north_m_s: float
    peak_mm_h: float


@dataclass(frozen=True, slots=True)
class Storm:
    """Several cells; `intensity` is their sum."""

    cells: tuple[Cell, ...]

    def intensity(self, t: float, latitude: float, longitude: float) -> float:
        """Rain intensity [mm/h] at a time and place."""
        return sum(_cell_intensity(c, t, latitude, longitude) for c in self.cells)


@dataclass(frozen=True, slots=True)
class Replay:
    """A recorded series, the same over the whole city: times [s], intensities [mm/h]."""

    times: tuple[float, ...]
    mm_h: tuple[float, ...]

    def intensity(self, t: float, latitude: float, longitude: float) -> float:
        """Rain intensity [mm/h]: the last recorded one; zero outside the record."""
        del latitude, longitude
        index = bisect_right(self.times, t) - 1
        inside = index >= 0 and t <= self.times[-1]
        return self.mm_h[index] if inside else 0.0


Weather = Storm | Replay


def _cell_intensity(cell: Cell, t: float, latitude: float, longitude: float) -> float:
    age = t - cell.t
    if abs(age) > 4 * cell.lasts_s:
        return 0.0
    cosine = math.cos(math.radians(cell.latitude))
    east = (longitude - cell.longitude) * KM_PER_DEGREE * cosine
    north = (latitude - cell.latitude) * KM_PER_DEGREE
    dx = east - cell.east_m_s * age / 1000
    dy = north - cell.north_m_s * age / 1000
    distance = (dx * dx + dy * dy) / (2 * cell.radius_km**2)
    value = cell.peak_mm_h * math.exp(-distance - (age / cell.lasts_s) ** 2 / 2)
    return value if value >= 0.05 else 0.0


def generate(
    seed: int, arrival: float, latitude: float, longitude: float, cells: int = 5
) -> Storm:
    """A storm that comes from the south-west and reaches the place at `arrival` [s]."""
    chance = random.Random(seed)
    return Storm(
        tuple(
            Cell(
                t=arrival + chance.uniform(600, 900) + 900 * number,
                lasts_s=chance.uniform(420, 720),
                radius_km=chance.uniform(1.2, 2.6),
                latitude=latitude + chance.uniform(-0.012, 0.012),
                longitude=longitude + chance.uniform(-0.02, 0.02),
                east_m_s=chance.uniform(3, 7),
                north_m_s=chance.uniform(2, 5),
                peak_mm_h=chance.uniform(14, 42),
            )
            for number in range(cells)
        )
    )


def read_csv(lines: Iterable[str], start: float) -> Replay:
    """Replay a record of two columns, ``time,mm_h``, moved so that it begins at `start`.

    Raises
    ------
    ValueError
        A row is not an ISO time and a number, or times do not increase; names the row.
    """
    times: list[float] = []
    values: list[float] = []
    for row in csv.DictReader(lines):
        number = len(times) + 2
        try:
            t = dt.datetime.fromisoformat(row["time"]).timestamp()
            value = float(row["mm_h"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"row {number}: not 'time,mm_h': {row}") from None
        if not (0 <= value < math.inf) or (times and t <= times[-1]):
            raise ValueError(f"row {number}: rain falls, and time goes on: {row}")
        times.append(t)
        values.append(value)
    if not times:
        raise ValueError("the record holds no rain")
    return Replay(tuple(start + t - times[0] for t in times), tuple(values))
