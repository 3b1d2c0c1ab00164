"""What a readings store does, whichever database is behind it.

Two stores keep to it: `duck` (embedded) and `influx`. Times go in and come out as POSIX
milliseconds; what comes out is a `Frame`, columns of one length.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from duha_backend.validate import Array, Examined, Reject
from duha_contract.quantities import DERIVED

Step = Literal["raw", "15m", "1d"]
LATE: Literal["late"] = "late"
"""Stands for a step where rain of a quarter is to be judged again."""
Frame = dict[str, Array]
"""Columns: `ts` int64 [ms], text as objects, quantities float64 with NaN for no value."""

QUARTER_MS = 15 * 60_000
DAY_MS = 24 * 3_600_000
FRAME_ROWS = 20_000
"""Most rows of one frame of an export."""
STEP_MS: dict[Step, int] = {"15m": QUARTER_MS, "1d": DAY_MS}


class Retention(NamedTuple):
    """How long readings are kept [days]; None is for ever."""

    raw: int | None = 31
    quarters: int | None = 1100
    days: int | None = None

    def of(self, kind: str) -> int | None:
        """How long a kind is kept that was worked out: rain as long as days."""
        return self.days if home(kind) == "1d" else self.quarters


def home(kind: str) -> Step:
    """With which step a kind is kept: what was worked out outlives raw readings."""
    if kind not in DERIVED:
        return "raw"
    return "1d" if kind == "rain" else "15m"


USUAL = Retention()


class Curve(NamedTuple):
    """Which readings of a whole cabinet, or of the city, become one curve.

    `cabinet` empty means the city; quantities are those of the data dictionary.
    """

    kind: str
    quantities: tuple[str, ...]
    cabinet: str = ""


class Readings(Protocol):
    """A store of readings.

    `write` is idempotent: device and time are the key of a reading, and what is known is
    not written again. Every call raises StoreDown when the store cannot be reached or
    cannot do it now; whoever calls keeps the messages and comes again.

    Attributes
    ----------
    reused : Counter
        Of each controller, batches whose number had stood for other content before. They
        are stored all the same; a store that does not look at numbers counts none.
    linger_s : float
        How long messages are gathered for one commit when few come [s]: long enough that
        small commits do not cost more than the readings in them.
    """

    reused: Counter[str]
    linger_s: float

    async def write(
        self, messages: Sequence[Examined], received_ms: int
    ) -> list[Reject]:
        """Store the readings of messages, durably; returns what the store refused."""

    async def put(self, kind: str, frame: Frame) -> None:
        """Store what was worked out of readings; the last that is put stands.

        The frame stands for all its devices within its span. No value of a row is NaN
        where a former one might be a number: `quality` says which rows have no value.
        """

    async def latest(self, kind: str, since_ms: int) -> Frame:
        """The last reading of every device of a kind since a time [ms]."""

    async def window(
        self, kind: str, device: str, since_ms: int, until_ms: int,
        step: Step = "raw", limit: int | None = None,
    ) -> Frame:  # fmt: skip
        """Readings of a device in a span [ms), oldest first; `n` counts those of a step."""

    async def curve(
        self, curve: Curve, since_ms: int, until_ms: int, step: Step
    ) -> Frame:
        """Readings of many devices together, step by step, with `devices` and `answered`."""

    async def rain(
        self, since_ms: int, until_ms: int, bin_ms: int, kind: str = "rain_gauge"
    ) -> Frame:
        """Rain of every device in bins that have any: device, ts, rain_mm."""

    async def rain_readings(self, since_ms: int) -> Frame:
        """Every reading with rain since a time [ms], oldest first."""

    async def roll(self, kind: str, step: Step, start_ms: int) -> None:
        """Work out a step anew from what is finer: of each device, and of each cabinet."""

    async def expire(self, retention: Retention, now_ms: int) -> None:
        """Delete what is older than it is kept, and give its room back."""

    def export(
        self, kind: str, since_ms: int, until_ms: int, devices: Sequence[str] = ()
    ) -> AsyncIterator[Frame]:
        """All readings of a span, in frames of bounded size."""

    def quarters(self, kind: str, since_ms: int, until_ms: int) -> AsyncIterator[Frame]:
        """Quarters of every device that are worked out, in frames of bounded size."""

    async def counts(self) -> dict[str, int]:
        """How many rows each kind holds, about."""

    async def backup(self, folder: Path) -> str | None:
        """Copy the store into a folder while it runs; None when it is no file of ours."""

    async def close(self) -> None:
        """Let go of it."""


def best_step(since_ms: int, until_ms: int) -> Step:
    """The step that draws a span well: at most a few thousand points."""
    span = until_ms - since_ms
    if span <= 36 * 3_600_000:
        return "raw"
    return "15m" if span <= 92 * DAY_MS else "1d"


def gaps(
    times: Array, since_ms: int, until_ms: int, longest_ms: int
) -> list[tuple[int, int]]:
    """Spans without a reading that are longer than they should be.

    Parameters
    ----------
    times : (n,) int64
        Times of the readings [ms], ascending.
    since_ms, until_ms : int
        The span that was asked for; its ends count as readings.
    longest_ms : int
        What is no gap yet.
    """  # fmt: skip
    edges = np.concatenate(([since_ms], times, [until_ms]))
    wide = np.flatnonzero(np.diff(edges) > longest_ms)
    return [(int(edges[i]), int(edges[i + 1])) for i in wide]


def slices(counted: Frame, since_ms: int, until_ms: int) -> list[tuple[int, int]]:
    """Cut a span [ms) where its rows fill frames.

    Parameters
    ----------
    counted : Frame
        Starts of short bins `ts` [ms], ascending, and the rows `n` of each.

    Returns
    -------
    list of (int, int)
        Spans that hold at most `FRAME_ROWS` rows, or one bin; without a row, none.
    """
    found: list[tuple[int, int]] = []
    begin, rows = since_ms, 0
    for ts, n in zip(counted["ts"].tolist(), counted["n"].tolist(), strict=True):
        if rows and rows + n > FRAME_ROWS:
            cut = max(ts, begin)
            found.append((begin, cut))
            begin, rows = cut, 0
        rows += n
    return [*found, (begin, until_ms)] if rows else found


def rows_of(frame: Frame) -> list[dict[str, Any]]:
    """A frame as rows; no value is None."""
    columns = [plain(column) for column in frame.values()]
    names = list(frame)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def plain(column: Array) -> list[Any]:
    """A column as a list, None for no value."""
    if column.dtype.kind != "f":
        return column.tolist()  # type: ignore[no-any-return]
    found = column.astype(object)
    found[np.isnan(column)] = None
    return found.tolist()  # type: ignore[no-any-return]


def length(frame: Mapping[str, Array]) -> int:
    """Rows of a frame."""
    return len(next(iter(frame.values()), ()))


def merged(messages: Sequence[Examined]) -> dict[str, Frame]:
    """The tables of many messages as one frame for each kind."""
    parts: dict[str, list[tuple[Frame, str]]] = {}
    for message in messages:
        for table in message.tables:
            found = parts.setdefault(table.kind, [])
            found.append((table.values, message.controller))
    return {kind: _joined(found) for kind, found in parts.items()}


def _joined(parts: list[tuple[Frame, str]]) -> Frame:
    names = list(dict.fromkeys(name for values, _ in parts for name in values))
    lengths = [length(values) for values, _ in parts]
    frame = {
        name: np.concatenate(
            [
                v[name] if name in v else np.full(n, np.nan)
                for (v, _), n in zip(parts, lengths, strict=True)
            ]
        )
        for name in names
    }
    owners = np.array([controller for _, controller in parts], dtype=object)
    frame["controller"] = np.repeat(owners, lengths)
    return frame
