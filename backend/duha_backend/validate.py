"""What of a message may be stored. Pure.

A batch that cannot be decoded is refused whole; a row with an impossible value, time
or owner is refused alone. What is refused keeps its reason and its bytes: it is
quarantined and acknowledged, because a poison message must not block the queue.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from duha_contract.errors import ContractError
from duha_contract.messages import EARLIEST_MS, LEAD_COLUMNS, Batch, Table, decode
from duha_contract.quantities import BY_NAME, KINDS, Quantity
from duha_contract.topics import is_id, parse

FUTURE_MS = 60_000
QUALITIES = frozenset(("good", "no_answer", "invalid"))


@dataclass(frozen=True, slots=True)
class Reject:
    """Something that was refused: why, and the bytes of it.

    `kind` is the kind of device of a single row; empty when a whole message, or a whole
    table, was refused.
    """

    controller: str
    reason: str
    raw: bytes
    kind: str = ""


Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """Accepted readings of one kind, column by column, all of one length.

    `device` and `quality` are arrays of strings (objects), `ts` of int64 [ms], every
    quantity of float64 with NaN where there was no value.
    """

    kind: str
    values: dict[str, Array]

    @classmethod
    def of(cls, kind: str, columns: Mapping[str, Iterable[Any]]) -> "Columns":
        """Columns from plain sequences, None where there is no value."""
        return cls(kind, {n: array(n, tuple(c)) for n, c in columns.items()})

    def __len__(self) -> int:
        return len(self.values["device"])


@dataclass(slots=True)
class Examined:
    """What became of one message."""

    controller: str
    batch: Batch | None = None
    tables: list[Columns] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    digest: bytes = b""
    """Stands for the bytes that came; empty where there were none."""


def examine(
    topic: str, payload: bytes, now_ms: int, owners: Mapping[str, str]
) -> Examined:
    """Decode a batch and check every row against the data dictionary.

    Parameters
    ----------
    topic, payload : str, bytes
        The message.
    now_ms : int
        Time of the backend [ms]; rows more than a minute ahead are refused.
    owners : mapping of str to str
        Controller of each registered device; a reading of somebody else's device is
        refused. Unregistered devices are accepted.
    """
    try:
        controller = parse(topic).controller
    except ContractError as error:
        return Examined("", rejects=[Reject("", str(error), payload)])
    result = Examined(controller, digest=hashlib.sha256(payload).digest())
    try:
        result.batch = decode(payload, Batch)
    except ContractError as error:
        result.rejects.append(Reject(controller, str(error), payload))
        return result
    for table in result.batch.tables:
        _examine_table(table, result, now_ms, owners)
    return result


def _examine_table(
    table: Table, result: Examined, now_ms: int, owners: Mapping[str, str]
) -> None:
    reason = _malformed(table)
    if reason is not None:
        raw = msgspec.json.encode(table)
        result.rejects.append(Reject(result.controller, reason, raw))
        return
    known = BY_NAME[table.kind]
    quantities = [known.get(name) for name in table.columns]
    columns = list(zip(*table.rows, strict=True))
    arrays = _all_fine(table, columns, quantities, now_ms, owners, result.controller)
    if arrays is None:
        good = _sifted(table, quantities, result, now_ms, owners)
        arrays = _arrays(table, list(zip(*good, strict=True)), quantities)
    if arrays:
        result.tables.append(Columns(table.kind, arrays))


def _sifted(
    table: Table,
    quantities: list[Quantity | None],
    result: Examined,
    now_ms: int,
    owners: Mapping[str, str],
) -> list[tuple[Any, ...]]:
    """The good rows of a table; the others are refused, each with its reason."""
    kept = []
    for row in table.rows:
        reason = _impossible(row, quantities, now_ms, owners, result.controller)
        if reason is None:
            kept.append(row)
            continue
        raw = msgspec.json.encode(dict(zip(table.columns, row, strict=True)))
        result.rejects.append(Reject(result.controller, reason, raw, table.kind))
    return kept


def array(name: str, column: tuple[Any, ...]) -> Array:
    """A column as an array of the type that its name has in `Columns`."""
    if name == "ts":
        return np.array(column, dtype=np.int64)
    if name in LEAD_COLUMNS:
        return np.array(column, dtype=object)
    return np.array(column, dtype=np.float64)  # None becomes NaN


def _arrays(
    table: Table, columns: list[tuple[Any, ...]], quantities: list[Quantity | None]
) -> dict[str, Array]:
    """What is to be stored; columns that the data dictionary does not know are not."""
    return {
        name: array(name, column)
        for name, column, quantity in zip(
            table.columns, columns, quantities, strict=bool(columns)
        )
        if quantity is not None or name in LEAD_COLUMNS
    }


def _malformed(table: Table) -> str | None:
    """Why a table cannot be read at all."""
    if table.kind not in KINDS:
        return f"there is no kind {table.kind!r}"
    if table.columns[:3] != LEAD_COLUMNS:
        return f"columns begin with {', '.join(LEAD_COLUMNS)}"
    if len(set(table.columns)) != len(table.columns):
        return "a column appears twice"
    if any(len(row) != len(table.columns) for row in table.rows):
        return "a row has another length than its columns"
    return None


def _all_fine(
    table: Table,
    columns: list[tuple[Any, ...]],
    quantities: list[Quantity | None],
    now_ms: int,
    owners: Mapping[str, str],
    controller: str,
) -> dict[str, Array] | None:
    """Arrays of a table when every row passes; column by column, for nearly always all do."""
    if not columns:
        return {}
    devices, times, qualities = columns[:3]
    try:
        fine = (
            all(owners.get(d, controller) == controller and is_id(d) for d in devices)
            and set(map(type, times)) == {int}
            and min(times) >= EARLIEST_MS
            and max(times) <= now_ms + FUTURE_MS
            and QUALITIES.issuperset(qualities)
            and all(
                _NUMBERS.issuperset(map(type, column))
                for column, quantity in zip(columns[3:], quantities[3:], strict=True)
                if quantity is not None
            )
        )
        arrays = _arrays(table, columns, quantities) if fine else None
    except (TypeError, OverflowError):
        return None
    if arrays is None:
        return None
    for quantity in quantities:
        if quantity is not None:
            values = arrays[quantity.name]
            # Comparisons with NaN are false: no value is never out of range.
            if ((values < quantity.low) | (values > quantity.high)).any():
                return None
    return arrays


_NUMBERS = frozenset((int, float, type(None)))


def _in_range(value: object, quantity: Quantity) -> bool:
    if value is None:
        return True
    return type(value) in _NUMBERS and quantity.low <= value <= quantity.high  # type: ignore[operator]


def _impossible(
    row: tuple[Any, ...],
    quantities: list[Quantity | None],
    now_ms: int,
    owners: Mapping[str, str],
    controller: str,
) -> str | None:
    """Why a row cannot be true; None when it can."""
    device, ts, quality = row[:3]
    if not isinstance(device, str) or not is_id(device):
        return f"{device!r} is no device id"
    if owners.get(device, controller) != controller:
        return f"{device} belongs to {owners[device]}, not to {controller}"
    if type(ts) is not int or ts < EARLIEST_MS:
        return f"{device}: time {ts!r} is before 2020"
    if ts > now_ms + FUTURE_MS:
        return f"{device}: time {ts} is {(ts - now_ms) / 1000:.0f} s in the future"
    if quality not in QUALITIES:
        return (
            f"{device}: quality {quality!r} is none of {', '.join(sorted(QUALITIES))}"
        )
    for value, quantity in zip(row[3:], quantities[3:], strict=True):
        if quantity is not None and not _in_range(value, quantity):
            return (
                f"{device}: {quantity.name} = {value!r} is outside "
                f"{quantity.low:g} to {quantity.high:g}"
            )
    return None
