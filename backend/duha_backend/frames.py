"""Frames from the series of InfluxQL, and one worked out of another. Pure."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np

from duha_backend.readings import DAY_MS, FRAME_ROWS, Frame, length
from duha_backend.validate import Array
from duha_contract.quantities import BY_NAME, KINDS


class One(msgspec.Struct, frozen=True):
    """One series of an answer in InfluxQL: rows in columns, and the tags of all."""

    columns: list[str]
    values: list[list[Any]] = []
    tags: dict[str, str] = {}


Series = list[One]
_TEXT = ("device", "controller", "quality")


def columns(series: Series, names: Iterable[str]) -> Frame:
    """Series as one frame of ts, tags and the named fields, ordered by time."""
    parts: dict[str, list[Any]] = {}
    wanted = (*_TEXT, *names)
    found = {column for s in series for column in (*s.columns, *s.tags)}
    for one in series:
        given = dict(
            zip(one.columns, zip(*one.values, strict=True), strict=bool(one.values))
        )
        n = len(one.values)
        parts.setdefault("ts", []).extend(given.get("time", ()))
        for name in wanted:
            if name in found:
                tag = (one.tags.get(name),) * n
                parts.setdefault(name, []).extend(given.get(name, tag))
    order = np.argsort(np.array(parts.get("ts", ()), dtype=np.int64), kind="stable")
    frame = {"ts": np.array(parts.get("ts", ()), dtype=np.int64)[order]}
    for name in wanted:
        if name in _TEXT and name not in parts:
            continue
        kind: Any = object if name in _TEXT else np.float64
        values = parts.get(name, [None] * len(order))
        frame[name] = np.array(values, dtype=kind)[order]
    return frame


def readings(kind: str, series: Series) -> Frame:
    """Raw readings in the order of columns that every store has."""
    frame = columns(series, BY_NAME[kind])
    lead = [n for n in ("device", "ts", "controller", "quality") if n in frame]
    return {name: frame[name] for name in (*lead, *BY_NAME[kind])}


def means(kind: str) -> list[str]:
    """Quantities that become a mean; quarters count the values behind them.

    The count is a field ``<quantity>_n``, left out where it is `n`, as nearly always.
    """
    return [q.name for q in KINDS[kind] if q.over_time == "mean"]


def with_behind(kind: str) -> tuple[str, ...]:
    """Fields of a quarter: quantities, and the values behind those that are means."""
    return ("n", *BY_NAME[kind], *(f"{name}_n" for name in means(kind)))


def without_behind(kind: str, frame: Frame) -> Frame:
    """A step as it is given to others."""
    hidden = {f"{name}_n" for name in means(kind)}
    return {name: column for name, column in frame.items() if name not in hidden}


def with_counts(kind: str, values: Frame, counted: Frame) -> Frame:
    """Quarters with how many readings were good; those without any value too."""
    both = joined([values, counted])
    if not length(both):
        return {}
    groups = Groups(both["ts"], both["device"], both["controller"])
    frame: Frame = {name: both[name][groups.first] for name in ("device", "controller")}
    frame["ts"] = both["ts"][groups.first]
    nothing = np.full(length(both), np.nan)
    frame["n"] = np.nan_to_num(groups.sum(both.get("n", nothing)))
    for name in BY_NAME[kind]:
        frame[name] = groups.sum(both[name])  # one value in each group, or none
    for name in means(kind):
        behind = groups.sum(both.get(f"{name}_n", nothing))
        frame[f"{name}_n"] = np.where(behind == frame["n"], np.nan, behind)
    return frame


def in_days(kind: str, quarters: Frame) -> Frame:
    """Quarters in days; means are weighed by the values behind them."""
    if not length(quarters):
        return {}
    day = quarters["ts"] // DAY_MS * DAY_MS
    groups = Groups(day, quarters["device"])
    first = groups.first
    frame: Frame = {
        "device": quarters["device"][first],
        "ts": day[first],
        "controller": quarters["controller"][first],
        "n": groups.sum(quarters["n"]),
    }
    for q in KINDS[kind]:
        values = quarters[q.name]
        if q.over_time == "mean":
            behind = quarters.get(f"{q.name}_n", quarters["n"])
            weights = np.where(np.isnan(behind), quarters["n"], behind)
            frame[q.name] = groups.mean(values, weights)
        else:
            frame[q.name] = getattr(groups, q.over_time)(values)
    return frame


def cabinets(kind: str, frame: Frame) -> Frame:
    """Devices of a step as those of whole cabinets."""
    answered = frame | {
        "devices": np.ones(length(frame)),
        "answered": (frame["n"] > 0).astype(float),
    }
    parts = []
    for controller in dict.fromkeys(frame["controller"].tolist()):
        mine = frame["controller"] == controller
        part = {name: column[mine] for name, column in answered.items()}
        cabinet = together(kind, part, part["ts"], list(BY_NAME[kind]))
        cabinet["controller"] = np.full(length(cabinet), controller, dtype=object)
        parts.append(cabinet)
    return joined(parts)


def together(kind: str, frame: Frame, times: Array, quantities: Iterable[str]) -> Frame:
    """Devices together at each time: powers add up, levels have a mean."""
    if not length(frame):
        return frame
    groups = Groups(times)
    found: Frame = {
        "ts": times[groups.first],
        "devices": groups.sum(frame["devices"]),
        "answered": groups.sum(frame["answered"]),
    }
    for name in quantities:
        if BY_NAME[kind][name].over_devices == "sum":
            found[name] = groups.sum(frame[name])
        else:
            found[name] = groups.mean(frame[name], frame["devices"])
    return found


class Groups:
    """Rows that share their keys, in the order of the keys."""

    def __init__(self, *keys: Array) -> None:
        codes = [
            np.unique(
                key.astype(str) if key.dtype == object else key, return_inverse=True
            )[1]
            for key in keys
        ]
        table = np.stack(codes, axis=1)
        _, self.first, self._of = np.unique(
            table, axis=0, return_index=True, return_inverse=True
        )
        self._n = len(self.first)

    def sum(self, values: Array) -> Array:
        """Sum of each group; NaN where it has no value at all."""
        known = ~np.isnan(values)
        found = np.bincount(self._of[known], values[known], self._n).astype(float)
        found[np.bincount(self._of[known], minlength=self._n) == 0] = np.nan
        return found

    def mean(self, values: Array, weights: Array) -> Array:
        """Weighted mean of each group."""
        known = ~np.isnan(values)
        total = self.sum(np.where(known, values * weights, np.nan))
        weight = self.sum(np.where(known, weights, np.nan))
        found: Array = np.divide(
            total, weight, out=np.full(self._n, np.nan), where=weight > 0
        )
        return found

    def last(self, values: Array) -> Array:
        """Last value of each group; rows are ordered by time."""
        known = np.flatnonzero(~np.isnan(values))
        found = np.full(self._n, np.nan)
        found[self._of[known]] = values[known]
        return found

    def max(self, values: Array) -> Array:
        """Largest value of each group."""
        found = np.full(self._n, np.nan)
        np.fmax.at(found, self._of, values)
        return found


def joined(parts: list[Frame]) -> Frame:
    """Frames one after the other; a column that one lacks has no values there."""
    parts = [part for part in parts if length(part)]
    if not parts:
        return {}
    names = list(dict.fromkeys(name for part in parts for name in part))
    return {
        name: np.concatenate(
            [p[name] if name in p else np.full(length(p), np.nan) for p in parts]
        )
        for name in names
    }


def before(frame: Frame, until_ms: int) -> Frame:
    """Rows before a time."""
    return _where(frame, lambda ts: ts < until_ms)


def within(frame: Frame, since_ms: int) -> Frame:
    """Rows from a time on."""
    return _where(frame, lambda ts: ts >= since_ms)


def _where(frame: Frame, test: Callable[[Array], Array]) -> Frame:
    if not length(frame):
        return frame
    kept = test(frame["ts"])
    return {name: column[kept] for name, column in frame.items()}


def rainy(frame: Frame, order: tuple[str, str]) -> Frame:
    """Rows with rain, in order."""
    if "device" not in frame:
        empty = np.array([])
        return {
            "device": empty.astype(object),
            "ts": empty.astype(np.int64),
            "rain_mm": empty,
        }
    wet = frame["rain_mm"] > 0
    kept = {name: frame[name][wet] for name in ("device", "ts", "rain_mm")}
    index = np.lexsort([kept[name] for name in reversed(order)])
    return {name: column[index] for name, column in kept.items()}


def cut(frame: Frame) -> list[Frame]:
    """A frame in frames of at most `FRAME_ROWS` rows."""
    starts = range(0, length(frame), FRAME_ROWS)
    return [{n: c[s : s + FRAME_ROWS] for n, c in frame.items()} for s in starts]
