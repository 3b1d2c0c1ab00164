"""What an operator and a manager look at first: availability, alarms, power, savings."""

import datetime as dt
from typing import Any

import numpy as np

from duha_backend.alarms.book import Book
from duha_backend.alarms.lamps import Ratings
from duha_backend.city import City
from duha_backend.energy.book import EnergyBook
from duha_backend.lighting.inventory import LuminaireType
from duha_backend.live import NOT_NETWORKED, STALE, Live
from duha_backend.registry import Registry
from duha_backend.validate import Array

LOOK_BACK_DAYS = 10
"""Savings are those of the last settled night, if it is not older."""


class Headline:
    """The figures of the whole city that are not in every tick.

    Parameters
    ----------
    live, registry : Live, Registry
        What is, and what luminaires take.
    alarms, energy : Book, EnergyBook
        What stands, and what nights took.
    """

    def __init__(
        self, live: Live, registry: Registry, alarms: Book, energy: EnergyBook
    ) -> None:
        self._live = live
        self._registry = registry
        self._alarms = alarms
        self._energy = energy
        self._ratings: tuple[object, object, Ratings] = (None, None, Ratings([], {}))
        self._said: tuple[int, dict[str, Any]] = (-1, {})

    def now(self, now_ms: int) -> dict[str, Any]:
        """Availability [%], alarms by state, power asked for [kW], the last night's energy.

        They are worked out once a tick, however many pages ask.

        `availability_pct` is the share of networked luminaires without a fault that answer;
        `lit_uncommanded` counts those that burn though nobody told them to;
        `expected_kw` is what luminaires of known types take at the levels they were told,
        None where that is known of none.
        """
        seq = self._live.tick_now.seq
        if self._said[0] != seq:
            self._said = (seq, self._figures(now_ms))
        return self._said[1]

    def _figures(self, now_ms: int) -> dict[str, Any]:
        states = self._alarms.tally(now_ms)
        codes = self._alarms.codes(now_ms)
        city = self._live.city
        expected = self._power(city, np.arange(len(city.luminaires)))
        return {
            "availability_pct": availability(city.state),
            "alarms": states,
            "lit_uncommanded": codes.get("lampUnexpectedOn", 0),
            "expected_kw": None if expected is None else expected / 1000,
            "night": self._night(now_ms),
        }

    def expected_w(self, cabinet: str) -> float | None:
        """Power [W] that the lamps of a cabinet take at the levels they were told.

        None where nothing is known of any: no level, or no type.
        """
        city = self._live.city
        rows = np.array(city.of_cabinet.get(cabinet, ()), dtype=np.int64)
        return self._power(city, rows)

    def _power(self, city: City, rows: Array) -> float | None:
        lamps = city.latest["luminaire"]
        level = lamps.values["level_commanded_pct"][rows]
        rows, level = rows[~np.isnan(level)], level[~np.isnan(level)]
        hours = np.nan_to_num(lamps.values["burning_h"][rows])
        watts = self._rated(city).expected(rows, level, hours)
        known = ~np.isnan(watts)
        return float(watts[known].sum()) if known.any() else None

    def _rated(self, city: City) -> Ratings:
        types = {kind.id: kind for kind in self._registry.all(LuminaireType)}
        lamps, known, ratings = self._ratings
        if lamps is not city.luminaires or known != types:
            ratings = Ratings(city.luminaires, types)
            self._ratings = (city.luminaires, types, ratings)
        return ratings

    def _night(self, now_ms: int) -> dict[str, Any] | None:
        today = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC).date()
        since, until = today - dt.timedelta(LOOK_BACK_DAYS), today + dt.timedelta(1)
        lines = self._energy.report(since, until, "night")
        if not lines:
            return None
        last = lines[-1]
        return {
            "date": last.period,
            "kwh": last.kwh,
            "baseline_kwh": last.baseline_kwh,
            "saved_kwh": last.saved_kwh,
            "saved_uncertainty_kwh": last.saved_uncertainty_kwh,
            "unknown_low_kwh": last.unknown_low_kwh,
            "unknown_high_kwh": last.unknown_high_kwh,
            "excluded_lamps": last.excluded_lamps,
            "covered": last.covered,
            "partial": last.partial,
        }


def availability(state: Array) -> float | None:
    """Share [%] of networked luminaires of which nothing is wrong; None without any."""
    networked = state != NOT_NETWORKED
    if not networked.any():
        return None
    return 100 * float((state[networked] < STALE).mean())
