"""The last reading of every device of a kind, in columns.

What is read in threads is replaced, never lengthened in place: the columns are swapped in
together, so that no reader sees two lengths.
"""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from duha_backend.readings import Frame
from duha_backend.validate import Array
from duha_contract.quantities import KINDS

MOST_STRANGERS = 100_000
"""Devices of a kind that nobody has registered, of which the last reading is kept."""
MOST_STRANGERS_EACH = 100
"""Those of one controller."""


@dataclass
class Reading:
    """The last reading of a device; what was not read that time is what it last was."""

    ts: int
    quality: str
    values: dict[str, float | None] = field(default_factory=dict)


QUALITIES = ("good", "no_answer", "invalid")
_CODES = {name: code for code, name in enumerate(QUALITIES)}


class _Columns(NamedTuple):
    """Columns of one length, always replaced together."""

    ts: Array
    quality: Array
    values: dict[str, Array]

    def longer(self, n: int) -> "_Columns":
        """The same with more rows, of devices never read."""
        more = n - len(self.ts)
        return _Columns(
            np.append(self.ts, np.zeros(more, dtype=np.int64)),
            np.append(self.quality, np.zeros(more, dtype=np.uint8)),
            {
                name: np.append(column, np.full(more, np.nan))
                for name, column in self.values.items()
            },
        )


class Latest:
    """The last reading of every device of a kind, in columns.

    Values change in place, rows are only added, and columns get longer all at once. A
    device that is forgotten makes another `Latest`.

    Parameters
    ----------
    devices : iterable of str
        Devices that have a row although they were never read.
    registered : container of str, optional
        Devices that are never strangers; those of `devices` by default.

    Attributes
    ----------
    index : dict of str to int
        Row of each device; a row at the end may not be filled yet.
    """

    def __init__(
        self,
        kind: str,
        devices: Iterable[str] = (),
        registered: Container[str] | None = None,
    ) -> None:
        self.kind = kind
        self.index = {device: i for i, device in enumerate(devices)}
        self._registered = frozenset(self.index) if registered is None else registered
        self._strangers: dict[str, str] = {}
        self._strangers_of: Counter[str] = Counter()
        empty = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint8)
        names = {q.name: np.zeros(0) for q in KINDS[kind]}
        self._columns = _Columns(*empty, names).longer(len(self.index))
        self._encoded = (-1, b"")

    @property
    def ts(self) -> Array:
        """When each device was read [ms], (n,) int64; 0 for never."""
        return self._columns.ts

    @property
    def quality(self) -> Array:
        """Place of each quality in `QUALITIES`, (n,) uint8."""
        return self._columns.quality

    @property
    def values(self) -> dict[str, Array]:
        """Each quantity, (n,) float64; NaN where there never was a value."""
        return self._columns.values

    @property
    def strangers(self) -> dict[str, str]:
        """Devices that nobody has registered, with their controllers."""
        return self._strangers

    def take(self, frame: Frame, controller: str = "") -> Array:
        """Take readings; older ones than those known change nothing. The rows changed.

        Of a frame from the store the controllers are in a column of their own.
        """
        frame = self._without_strangers(frame, controller)
        rows = self._rows(frame["device"].tolist())
        columns = self._columns
        newer = frame["ts"] >= columns.ts[rows]
        if not newer.all():
            frame = {name: column[newer] for name, column in frame.items()}
            rows = rows[newer]
        if len(set(rows.tolist())) < len(rows):  # of several, the last in time stands
            order = np.argsort(frame["ts"], kind="stable")
            frame = {name: column[order] for name, column in frame.items()}
            rows = rows[order]
        columns.ts[rows] = frame["ts"]
        columns.quality[rows] = [_CODES[q] for q in frame["quality"].tolist()]
        for name, column in columns.values.items():
            if name in frame:
                known = ~np.isnan(frame[name])
                column[rows[known]] = frame[name][known]
        return rows

    def _without_strangers(self, frame: Frame, controller: str) -> Frame:
        """Readings without those of strangers that are too many."""
        devices = frame["device"].tolist()
        if all(device in self.index for device in devices):
            return frame
        whose = (
            frame["controller"].tolist()
            if "controller" in frame
            else [controller] * len(devices)
        )
        kept = [
            device in self.index or self._admitted(device, owner)
            for device, owner in zip(devices, whose, strict=True)
        ]
        if all(kept):
            return frame
        return {name: column[np.array(kept)] for name, column in frame.items()}

    def _admitted(self, device: str, controller: str) -> bool:
        """Whether a device without a row gets one."""
        if device in self._registered or device in self._strangers:
            return True
        few = self._strangers_of[controller] < MOST_STRANGERS_EACH
        if not few or len(self._strangers) >= MOST_STRANGERS:
            return False
        self._strangers[device] = controller
        self._strangers_of[controller] += 1
        return True

    def adopt(self, other: "Latest") -> None:
        """Take over what another knows of the devices of this one."""
        mine = [(i, other.index[d]) for d, i in self.index.items() if d in other.index]
        if not mine:
            return
        to, of = np.array(mine).T
        columns = self._columns
        columns.ts[to], columns.quality[to] = other.ts[of], other.quality[of]
        for name, column in columns.values.items():
            column[to] = other.values[name][of]

    def renewed(
        self, registered: Container[str], devices: Iterable[str], since_ms: int
    ) -> "Latest":
        """The same for other assets, without strangers silent since a time [ms].

        Parameters
        ----------
        registered : container of str
            Devices that are no strangers now.
        devices : iterable of str
            Those that have the first rows.
        """
        ts = self._columns.ts
        first = list(devices)
        known = set(first)
        kept = [
            device
            for device, i in self.index.items()
            if device not in known
            and (device in registered or (i < len(ts) and ts[i] >= since_ms))
        ]
        made = Latest(self.kind, [*first, *kept], registered)
        for device in kept:
            if device not in registered:
                owner = self._strangers.get(device, "")
                made._strangers[device] = owner
                made._strangers_of[owner] += 1
        made.adopt(self)
        return made

    def reading(self, device: str) -> Reading | None:
        """The last reading of a device."""
        columns, i = self._columns, self.index.get(device)
        if i is None or i >= len(columns.ts) or not columns.ts[i]:
            return None
        values = {
            name: None if np.isnan(column[i]) else float(column[i])
            for name, column in columns.values.items()
        }
        return Reading(int(columns.ts[i]), QUALITIES[columns.quality[i]], values)

    def encode(
        self, names: Sequence[str], devices: Sequence[str] | None = None
    ) -> bytes:
        """Times, qualities and some quantities of all or some devices, JSON in columns."""
        columns = self._columns
        if devices is not None:
            return self._encode_some(columns, names, devices)
        n = len(columns.ts)
        known, device = self._encoded
        if known != n:  # names of 200,000 devices are written out once
            device = msgspec.json.encode(list(self.index)[:n])
            self._encoded = (n, device)
        found: dict[str, Any] = {
            "device": msgspec.Raw(device),
            "ts": columns.ts.tolist(),
            "quality": columns.quality.tolist(),
        }
        for name in names:
            found[name] = columns.values[name].tolist()  # NaN is written as null
        return msgspec.json.encode({"qualities": QUALITIES, "columns": found})

    def _encode_some(
        self, columns: _Columns, names: Sequence[str], devices: Sequence[str]
    ) -> bytes:
        n = len(columns.ts)
        known = [d for d in devices if self.index.get(d, n) < n]
        rows = np.array([self.index[device] for device in known], dtype=np.int64)
        found = {
            "device": known,
            "ts": columns.ts[rows].tolist(),
            "quality": columns.quality[rows].tolist(),
        } | {name: columns.values[name][rows].tolist() for name in names}
        return msgspec.json.encode({"qualities": QUALITIES, "columns": found})

    def _rows(self, devices: list[str]) -> Array:
        """Rows of devices; those never seen get one."""
        index = self.index
        for device in devices:
            if device not in index:
                index[device] = len(index)
        if len(index) > len(self._columns.ts):
            self._columns = self._columns.longer(len(index))
        return np.fromiter((index[d] for d in devices), np.int64, len(devices))
