"""Sums, events and tables of rain, with how rare they are. Pure."""

import datetime as dt
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from duha_backend.rain.events import (
    DURATIONS_MIN,
    SATURATED_DAYS,
    Idf,
    antecedent,
    events,
    running,
    saturated,
)
from duha_backend.rain.series import MINUTE_MS
from duha_backend.validate import Array

WET_DAY_MM = 0.1
STATISTICS_H, OPERATION_H = 6.0, 1.5
"""Minimum inter-event times: for statistics, and about the time of concentration."""


class Rare(NamedTuple):
    """The greatest sum of a duration [min], when it ended [ms], and how rare it is [a].

    `period` is for people: "3.4", or "< 2" and "> 10" beyond the ends of the table.
    """

    duration_min: int
    depth_mm: float
    end: int
    period_a: float | None
    period: str | None


def rarest(rain_mm: Array, start_ms: int, table: Idf | None) -> list[Rare]:
    """Greatest sums of each duration in minutes of rain, with their return periods.

    Return periods are None without a table, or beyond its durations.
    """
    found = []
    for minutes in DURATIONS_MIN:
        sums = running(np.nan_to_num(rain_mm), minutes)
        if not len(sums):
            continue
        at = int(np.argmax(sums))
        depth = float(sums[at])
        end = start_ms + (at + 1) * MINUTE_MS
        found.append(Rare(minutes, depth, end, *period(table, minutes, depth)))
    return found


def period(
    table: Idf | None, minutes: float, depth_mm: float
) -> tuple[float | None, str | None]:
    """Return period [a] of a depth, and as text; None where the table says nothing.

    Beyond the ends of the table it is that of its end, and the text says so.
    """
    if table is None or not table.durations[0] <= minutes <= table.durations[-1]:
        return None, None
    found = table.period_of(minutes, depth_mm)
    least, most = float(table.periods[0]), float(table.periods[-1])
    if found == 0:
        return least, f"< {least:g}"
    if found > most:
        return most, f"> {most:g}"
    return round(found, 2), f"{found:.2g}"


def sums_now(rain_mm: Array, table: Idf | None) -> list[dict[str, Any]]:
    """Sums of the last minutes, by duration; None where a minute of them is missing."""
    found = []
    for minutes in DURATIONS_MIN:
        last = rain_mm[-minutes:]
        known = len(last) == minutes and not np.isnan(last).any()
        depth = round(float(last.sum()), 3) if known else None
        rare, said = (
            period(table, minutes, depth) if depth is not None else (None, None)
        )
        found.append(
            {
                "duration_min": minutes,
                "depth_mm": depth,
                "period_a": rare,
                "period": said,
            }
        )
    return found


def ground(daily_mm: Array) -> dict[str, Any]:
    """How wet the ground is, by the depths of the last days, the last one last."""
    return {
        "antecedent_mm": round(antecedent(daily_mm), 2),
        "last_10_days_mm": round(float(np.nansum(daily_mm[-SATURATED_DAYS:])), 2),
        "saturated": saturated(daily_mm),
    }


def event_list(
    rain_mm: Array, start_ms: int, dry_h: float, table: Idf | None
) -> list[dict[str, Any]]:
    """Events of minutes of rain, with the rarest sum of each.

    Times are of the first and the end of the last wet minute [ms].
    """
    found = []
    for event in events(rain_mm, 1.0, dry_h):
        part = rain_mm[event.first : event.last + 1]
        rare = rarest(part, start_ms + event.first * MINUTE_MS, table)
        known = [one for one in rare if one.period_a is not None]
        worst = max(
            known,
            key=lambda one: (one.period_a or 0.0, (one.period or "").startswith(">")),
            default=None,
        )
        found.append(
            {
                "start": start_ms + event.first * MINUTE_MS,
                "end": start_ms + (event.last + 1) * MINUTE_MS,
                "depth_mm": round(event.depth_mm, 3),
                "most_mm_h": round(event.most_mm * 60, 2),
                "missing_min": int(np.isnan(part).sum()),
                "sums": [one._asdict() for one in rare],
                "rarest": worst._asdict() if worst else None,
            }
        )
    return found


def table_of(daily: dict[dt.date, float], every: str) -> list[dict[str, Any]]:
    """Months or years of daily depths: sum, wet days, the wettest day.

    Parameters
    ----------
    daily : dict of date to float
        Depth of each day on which rain fell [mm].
    every : {"month", "year"}
        Length of a row.
    """
    cut = 7 if every == "month" else 4
    rows: dict[str, list[tuple[float, dt.date]]] = {}
    for day, depth in sorted(daily.items()):
        rows.setdefault(day.isoformat()[:cut], []).append((depth, day))
    return [
        {
            "period": name,
            "depth_mm": round(sum(depth for depth, _ in days), 2),
            "wet_days": sum(depth >= WET_DAY_MM for depth, _ in days),
            "most_mm": round(max(days)[0], 2),
            "most_on": max(days)[1].isoformat(),
        }
        for name, days in rows.items()
    ]


def by_day(ts: Array, rain_mm: Array, zone: str) -> dict[dt.date, float]:
    """Depth of each local day [mm] from sums of quarter-hours at times [ms].

    Hours would not do: zones differ from UTC by multiples of a quarter-hour.
    """
    where = ZoneInfo(zone)
    found: dict[dt.date, float] = {}
    for t, depth in zip(ts.tolist(), rain_mm.tolist(), strict=True):
        day = dt.datetime.fromtimestamp(t / 1000, where).date()
        found[day] = found.get(day, 0.0) + depth
    return found
