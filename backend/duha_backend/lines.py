"""Line protocol of InfluxDB, built directly from columns. Pure.

A reading becomes one line: the kind is the measurement, controller and device are the only
tags, so that a city has as many series as it has devices; everything else is a field.
"""

import gzip
from collections.abc import Sequence

import numpy as np

from duha_backend.readings import Frame, length
from duha_backend.validate import Array

TAGS = ("controller", "device")
_TEXT = ("quality",)
_LEVEL = 1
"""Of gzip: higher ones take several times as long, and save a third of a small thing."""
_MOST_CELLS = 50_000
"""Values of one quantity whose text is kept."""


def lines(measurement: str, frame: Frame) -> list[str]:
    """Lines of a frame, in its order; a line without any field is left out.

    Names of devices and controllers are ids of the contract, which need no escaping.
    """
    if not length(frame):
        return []
    tags = [name for name in TAGS if name in frame]
    shape = measurement + "".join(f",{name}=%s" for name in tags)
    heads = zip(*(frame[name].tolist() for name in tags), strict=True)
    fields = [
        map(_cells(name).__getitem__, column.tolist())
        for name, column in frame.items()
        if name not in TAGS and name != "ts" and _any(column)
    ]
    bodies = map("".join, zip(*fields, strict=True))
    rows = zip(heads, bodies, frame["ts"].tolist(), strict=bool(fields))
    return [f"{shape % head} {body[1:]} {ts}" for head, body, ts in rows if body]


def packed(part: Sequence[str]) -> bytes:
    """Lines as the compressed body of a request."""
    return gzip.compress("\n".join(part).encode(), compresslevel=_LEVEL)


def time_of(line: str) -> int:
    """Time of a line [ms]."""
    return int(line[line.rindex(" ") :])


def _any(column: Array) -> bool:
    return column.dtype == object or not np.isnan(column).all()


class _Cells(dict[float | str, str]):
    """Texts of a field's values, which come again and again; none for no value."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __missing__(self, value: float | str) -> str:
        if isinstance(value, str):
            text = f'"{value}"'
        elif value != value:  # noqa: PLR0124 - NaN alone differs from itself
            return ""
        else:
            text = repr(value).removesuffix(".0")
        if len(self) >= _MOST_CELLS:
            self.clear()
        cell = self[value] = f",{self._name}={text}"
        return cell


_known: dict[str, _Cells] = {}


def _cells(name: str) -> _Cells:
    return _known.setdefault(name, _Cells(name))
