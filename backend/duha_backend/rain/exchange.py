"""Rain to and from others: Delft-FEWS PI-JSON, SWMM rain files, CSV. Pure.

PI-JSON carries numbers as text, dates and times apart, and a value that stands for none. A
SWMM rain file has a station and a line for each wet step.
"""

import csv
import datetime as dt
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from duha_backend.errors import Invalid
from duha_backend.validate import Array

MISSING = "-999.0"
RELIABLE, FILLED, UNRELIABLE, MISSING_FLAG = 0, 5, 6, 9
"""Quality flags of Delft-FEWS: original, corrected or completed (0, 1, 2 reliable; 3, 4, 5
doubtful; 6, 7, 8 unreliable); 9 missing."""
_FIRST_YEAR, _LAST_YEAR = 1850, 2100
_MOST_MM = 2000.0
_WRONG = (
    ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


class Series(NamedTuple):
    """A series of one place.

    Attributes
    ----------
    location, parameter, unit : str
        Whose, of what, in which unit.
    times : (n,) float64
        POSIX times [s]; a sum belongs to the time at which it ends.
    values : (n,) float64
        NaN where there is none.
    flags : (n,) int
        FEWS flags: 0 original reliable, 5 completed and doubtful, 9 missing.
    name : str
        Of the place.
    latitude, longitude : float or None
        Where it is [°].
    accumulative : bool
        Whether values are sums over a step.
    """

    location: str
    parameter: str
    unit: str
    times: Array
    values: Array
    flags: Array
    name: str = ""
    latitude: float | None = None
    longitude: float | None = None
    accumulative: bool = True


def to_pi(series: Iterable[Series], module: str = "duha") -> dict[str, Any]:
    """Series as PI-JSON, in UTC."""
    return {
        "version": "1.34",
        "timeZone": "0.0",
        "timeSeries": [_one(each, module) for each in series],
    }


def _one(series: Series, module: str) -> dict[str, Any]:
    header: dict[str, Any] = {
        "type": "accumulative" if series.accumulative else "instantaneous",
        "moduleInstanceId": module,
        "locationId": series.location,
        "parameterId": series.parameter,
        "timeStep": _step(series.times),
        "missVal": MISSING,
        "stationName": series.name or series.location,
        "units": series.unit,
    }
    if len(series.times):
        header["startDate"] = _date(float(series.times[0]))
        header["endDate"] = _date(float(series.times[-1]))
    if series.latitude is not None and series.longitude is not None:
        header["lat"], header["lon"] = str(series.latitude), str(series.longitude)
    events = [
        {
            **_date(t),
            "value": MISSING if np.isnan(value) else f"{value:.6g}",
            "flag": str(MISSING_FLAG if np.isnan(value) else flag),
        }
        for t, value, flag in zip(
            series.times.tolist(),
            series.values.tolist(),
            series.flags.tolist(),
            strict=True,
        )
    ]
    return {"header": header, "events": events}


def _step(times: Array) -> dict[str, str]:
    steps = np.unique(np.diff(times))
    if len(steps) != 1:
        return {"unit": "nonequidistant"}
    return {"unit": "second", "multiplier": f"{steps[0]:.0f}"}


def _date(t: float) -> dict[str, str]:
    moment = dt.datetime.fromtimestamp(t, dt.UTC)
    return {"date": moment.strftime("%Y-%m-%d"), "time": moment.strftime("%H:%M:%S")}


def from_pi(raw: bytes | str) -> list[Series]:
    """Series from PI-JSON; values that are flagged as unreliable count as missing.

    Raises
    ------
    Invalid
        It is no such document; names the series and the event.
    """
    try:
        document = json.loads(raw)
        zone = dt.timezone(dt.timedelta(hours=float(document.get("timeZone", 0) or 0)))
        found = document["timeSeries"]
    except _WRONG as error:
        raise Invalid(f"no PI-JSON: {error}") from None
    if not isinstance(found, list):
        raise Invalid("no PI-JSON: `timeSeries` is no list")
    return [_read(number, each, zone) for number, each in enumerate(found, 1)]


def _read(number: int, each: Any, zone: dt.tzinfo) -> Series:
    where = f"series {number}"
    try:
        header, events = each["header"], each.get("events", [])
        where = f"series {number} ({header['locationId']})"
        missing = float(header.get("missVal", MISSING))
        times, values, flags = [], [], []
        for place, event in enumerate(events, 1):
            where = f"series {number} ({header['locationId']}), event {place}"
            moment = dt.datetime.fromisoformat(f"{event['date']}T{event['time']}")
            value, flag = float(event["value"]), _flag(event.get("flag", RELIABLE))
            times.append(_time(moment.replace(tzinfo=zone)))
            lost = value == missing or math.isnan(value) or flag >= UNRELIABLE
            values.append(np.nan if lost else _depth(value))
            flags.append(flag)
        return Series(
            str(header["locationId"]), str(header["parameterId"]),
            str(header.get("units", "")), np.array(times, dtype=float),
            np.array(values, dtype=float), np.array(flags, dtype=int),
            str(header.get("stationName", "")), _place(header, "lat"), _place(header, "lon"),
            header.get("type", "accumulative") == "accumulative",
        )  # fmt: skip
    except _WRONG as error:
        raise Invalid(f"{where}: {type(error).__name__} {error}"[:500]) from None


def _place(header: dict[str, Any], name: str) -> float | None:
    if header.get(name) in (None, ""):
        return None
    place = float(header[name])
    if not math.isfinite(place):
        raise ValueError(f"{name} is {place}")
    return place


def _time(moment: dt.datetime) -> float:
    """POSIX time [s]; raises ValueError for one that no reading has."""
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError(f"the year {moment.year} is not {_FIRST_YEAR} to {_LAST_YEAR}")
    return moment.timestamp()


def _depth(value: float) -> float:
    """A depth of rain [mm]; raises ValueError for what cannot have fallen."""
    if not abs(value) <= _MOST_MM:
        raise ValueError(f"{value:g} mm have never fallen in a step")
    return value


def _flag(value: Any) -> int:
    flag = int(value)
    if not 0 <= flag <= MISSING_FLAG:
        raise ValueError(f"flag {value!r} is none of FEWS, 0 to {MISSING_FLAG}")
    return flag


def to_swmm(series: Sequence[Series]) -> str:
    """Wet steps as a SWMM rain file (user-prepared): station, date, time, depth.

    Notes
    -----
    EPA SWMM 5.2 user's manual, section 11.3: one line for each station and wet step; SWMM
    takes a time for the beginning of its step, so that it is moved by one step here.
    """
    lines = []
    for each in series:
        step = float(np.diff(each.times).min()) if len(each.times) > 1 else 60.0
        for t, value in zip(each.times.tolist(), each.values.tolist(), strict=True):
            if value > 0:
                moment = dt.datetime.fromtimestamp(t - step, dt.UTC)
                lines.append(f"{each.location} {moment:%Y %m %d %H %M} {value:.4f}")
    return "\n".join(lines) + ("\n" if lines else "")


def from_csv(text: str) -> list[Series]:
    """Series from CSV: ``gauge,time,rain_mm``, a sum at the time at which it ends.

    Times are ISO; without a zone they are UTC. Comma, semicolon or tab; decimal comma or
    point.

    Raises
    ------
    Invalid
        Names the row that is no such thing.
    """
    header = text.split("\n", 1)[0]
    separator = max(";,\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text.lstrip("\ufeff")), delimiter=separator)
    rows: dict[str, list[tuple[float, float]]] = {}
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        if not {"gauge", "time", "rain_mm"} <= set(names):
            shown = ", ".join(names)[:200]
            raise Invalid(f"the header has gauge, time and rain_mm, not {shown}")
        reader.fieldnames = names
        for row in reader:
            moment = dt.datetime.fromisoformat(row["time"].strip())
            aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
            depth = _depth(float(row["rain_mm"].strip().replace(",", ".")))
            rows.setdefault(row["gauge"].strip(), []).append((_time(aware), depth))
    except csv.Error as error:
        raise Invalid(f"row {reader.line_num + 1}: {error}") from None
    except _WRONG as error:
        raise Invalid(f"row {reader.line_num}: {error}"[:500]) from None
    return [_series(gauge, found) for gauge, found in rows.items()]


def from_swmm(text: str, step_s: float = 60.0) -> list[Series]:
    """Series from a SWMM rain file: station, year, month, day, hour, minute, depth.

    Its times are of the beginning of a step; dry steps that it leaves out stay out.

    Raises
    ------
    Invalid
        Names the line that is no such thing.
    """
    rows: dict[str, list[tuple[float, float]]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(";", 1)[0].split()
        if not words:
            continue
        try:
            station, *date, depth = words
            year, month, day, hour, minute = (int(part) for part in date)
            moment = dt.datetime(year, month, day, hour, minute, tzinfo=dt.UTC)
            rows.setdefault(station, []).append(
                (_time(moment) + step_s, _depth(float(depth)))
            )
        except _WRONG as error:
            raise Invalid(f"line {number} of the rain file: {error}"[:500]) from None
    return [_series(station, found) for station, found in rows.items()]


def _series(gauge: str, rows: list[tuple[float, float]]) -> Series:
    times, depths = np.array(sorted(rows)).T
    return Series(gauge, "P.obs", "mm", times, depths, np.zeros(len(times), dtype=int))
