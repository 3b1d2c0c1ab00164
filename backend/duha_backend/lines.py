"""Line protocol of InfluxDB, built directly from columns. Pure.

A reading becomes one line: the kind is the measurement, controller and device are the only
tags, so that a city has as many series as it has devices; everything else is a field.
"""

import gzip
from collections.abc import Iterator, Sequence

import numpy as np

from duha_backend.readings import Frame, length
from duha_backend.validate import Array

TAGS = ("controller", "device")
_TEXT = ("quality",)
_LEVEL = 1
"""Of gzip: higher ones take several times as long, and save a third of a small thing."""


def lines(measurement: str, frame: Frame) -> list[str]:
    """Lines of a frame, in its order; a line without any field is left out.

    Names of devices and controllers are ids of the contract, which need no escaping. Rows
    that have values for the same quantities are written by one format.
    """
    tags = [name for name in TAGS if name in frame]
    texts = [name for name in _TEXT if name in frame]
    others = (*TAGS, *_TEXT, "ts")
    numbers = {n: c for n, c in frame.items() if n not in others}
    made: list[str | None] = [None] * length(frame)
    for rows, present in _alike(numbers, length(frame)):
        fields = [*(f'{n}="%s"' for n in texts), *(f"{n}=%s" for n in present)]
        if not fields:
            continue
        head = measurement + "".join(f",{n}=%s" for n in tags)
        form = f"{head} {','.join(fields)} %d"
        columns = [
            *(frame[n][rows].tolist() for n in (*tags, *texts)),
            *(_texts(numbers[n][rows]) for n in present),
            frame["ts"][rows].tolist(),
        ]
        found = [form % row for row in zip(*columns, strict=True)]
        if len(found) == len(made):
            return found
        for row, line in zip(np.arange(len(made))[rows].tolist(), found, strict=True):
            made[row] = line
    return [line for line in made if line is not None]


def packed(part: Sequence[str]) -> bytes:
    """Lines as the compressed body of a request."""
    return gzip.compress("\n".join(part).encode(), compresslevel=_LEVEL)


def time_of(line: str) -> int:
    """Time of a line [ms]."""
    return int(line[line.rindex(" ") :])


def _alike(
    numbers: dict[str, Array], n: int
) -> Iterator[tuple[slice | Array, list[str]]]:
    """Rows with values for the same quantities, and which these are."""
    names = list(numbers)
    known = np.empty((len(names), n), dtype=bool)
    for k, name in enumerate(names):
        known[k] = ~np.isnan(numbers[name])
    some = np.flatnonzero(known.any(axis=1)).tolist()
    if known[some].all():
        yield slice(None), [names[k] for k in some]
        return
    shapes, of = np.unique(np.packbits(known, axis=0), axis=1, return_inverse=True)
    for shape in range(shapes.shape[1]):
        rows = np.flatnonzero(of.ravel() == shape)
        yield rows, [names[k] for k in np.flatnonzero(known[:, rows[0]]).tolist()]


class _Memo(dict[float, str]):
    """Texts of numbers; those of devices come again and again."""

    def __missing__(self, value: float) -> str:
        text = self[value] = repr(value)
        return text


def _texts(column: Array) -> list[str]:
    return list(map(_Memo().__getitem__, column.tolist()))
