"""What of a message may be stored: the one border for everything that controllers send.

A batch that cannot be decoded is refused whole; a row, an event or a report that cannot
be true is refused alone. What is refused keeps its reason and its bytes: it is
quarantined and acknowledged, because a poison message must not block the queue.

`examine` never raises: what no rule foresees is refused with the name of the error. Pure.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from duha_contract.errors import ContractError
from duha_contract.messages import (
    EARLIEST_MS,
    LEAD_COLUMNS,
    Batch,
    Envelope,
    Event,
    Report,
    Table,
    decode,
)
from duha_contract.quantities import BY_NAME, KINDS, Quantity
from duha_contract.topics import Topic, is_id, parse

FUTURE_MS = 60_000
QUALITIES = frozenset(("good", "no_answer", "invalid"))
MOST_TABLES = 64
MOST_COLUMNS = 100
LONGEST_NAME = 64
"""Longest name of a column [characters]."""
MOST_DIVERGED = 5000
MOST_REJECTS = 100
"""Rows of a message that are refused one by one; those after them go together."""
REASON_CHARS = 300
VALUE_CHARS = 80
"""How much of a value its refusal shows [characters]."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_NUMBERS = frozenset((int, float, type(None)))
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Reject:
    """Something that was refused: why, and the bytes of it.

    `kind` is the kind of device of a single row; empty when `raw` is a message: the whole
    one, or a batch of just the table, event or report that was refused.
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
    """What became of one message.

    Attributes
    ----------
    batch : Batch or None
        What was decoded, with the events and reports that were accepted.
    envelope : Envelope or None
        Identity of a batch that could not be decoded: enough to acknowledge it.
    """

    controller: str
    batch: Batch | None = None
    tables: list[Columns] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    envelope: Envelope | None = None
    digest: bytes = b""
    """Stands for the bytes that came; empty where there were none."""

    def refuse(self, reason: str, raw: bytes, kind: str = "") -> None:
        """Note something that was refused."""
        self.rejects.append(Reject(self.controller, clipped(reason), raw, kind))


class _Rules(NamedTuple):
    """By what the rows of a message are judged; times in ms."""

    controller: str
    owners: Mapping[str, str]
    now_ms: int
    oldest_ms: int

    def untimely(self, ts: object) -> str | None:
        """Why a reading cannot be of this time; None when it can."""
        if type(ts) is not int or ts < EARLIEST_MS:
            return f"time {said(ts)} is before 2020"
        if ts > self.now_ms + FUTURE_MS:
            ahead = min(ts - self.now_ms, 2**63) / 1000
            return f"time {said(ts)} is {ahead:.0f} s in the future"
        if ts < self.oldest_ms:
            days = (self.now_ms - self.oldest_ms) / _DAY_MS
            return f"time {ts} is older than readings are kept ({days:.0f} days)"
        return None


def clipped(text: str, most: int = REASON_CHARS) -> str:
    """Text that every store can hold: bounded, without control characters."""
    plain = _CONTROL.sub("\ufffd", text[:most])
    return plain if len(text) <= most else f"{plain}…"


def is_text(text: str) -> bool:
    """Whether every store can hold a text: no control characters, no lone surrogates."""
    return _CONTROL.search(text) is None


def said(value: object) -> str:
    """A value as its refusal shows it: bounded, whatever it is."""
    try:
        return clipped(repr(value), VALUE_CHARS)
    except (ValueError, RecursionError):  # an integer of thousands of digits; depth
        return f"a huge {type(value).__name__}"


def examine(
    topic: str | Topic,
    payload: bytes,
    now_ms: int,
    owners: Mapping[str, str],
    oldest_ms: int = EARLIEST_MS,
) -> Examined:
    """Decode a batch and check all of it against contract and data dictionary.

    Parameters
    ----------
    topic, payload : str or Topic, bytes
        The message.
    now_ms : int
        Time of the backend [ms]; rows more than a minute ahead are refused.
    owners : mapping of str to str
        Controller of each registered device; a reading of another controller's device is
        refused. Unregistered devices are accepted.
    oldest_ms : int
        Readings from before this time [ms] are refused: they are not kept.
    """
    try:
        controller = (topic if isinstance(topic, Topic) else parse(topic)).controller
    except ContractError as error:
        return Examined("", rejects=[Reject("", clipped(str(error)), payload)])
    result = Examined(controller, digest=hashlib.sha256(payload).digest())
    try:
        _examine(result, payload, _Rules(controller, owners, now_ms, oldest_ms))
    except Exception as error:  # noqa: BLE001 - what nobody foresaw stops no other message
        found = result.batch
        result = Examined(controller)
        result.envelope = _envelope(found) if found is not None else None
        result.refuse(f"could not be examined: {type(error).__name__}", payload)
    return result


def _examine(result: Examined, payload: bytes, rules: _Rules) -> None:
    try:
        batch = result.batch = decode(payload, Batch)
    except ContractError as error:
        result.envelope = _identity(payload)
        result.refuse(str(error), payload)
        return
    reason = _unusable(batch)
    if reason is not None:
        result.batch, result.envelope = None, _envelope(batch)
        result.refuse(reason, payload)
        return
    for table in batch.tables:
        _examine_table(table, result, rules)
    if batch.events or batch.reports:
        _examine_notes(batch, result, rules)


def _identity(payload: bytes) -> Envelope | None:
    """Identity of a batch that is refused whole, where it has one."""
    try:
        found = decode(payload, Envelope)
    except ContractError:
        return None
    return found if is_text(found.outbox) else None


def _envelope(batch: Batch) -> Envelope:
    return Envelope(batch.v, batch.outbox, batch.seq)


def _unusable(batch: Batch) -> str | None:
    """Why nothing of a batch can be used."""
    if not (is_text(batch.boot) and is_text(batch.outbox)):
        return "boot or outbox has control characters"
    if len(batch.tables) > MOST_TABLES:
        return f"{len(batch.tables)} tables are more than {MOST_TABLES}"
    return None


# -- events and reports ------------------------------------------------------------------


def _examine_notes(batch: Batch, result: Examined, rules: _Rules) -> None:
    """Keep the events and reports that can be true, and refuse the others."""
    events, reports = [], []
    for event in batch.events:
        reason = _impossible_event(event, rules)
        if reason is None:
            events.append(event)
        else:
            result.refuse(f"event: {reason}", _part(batch, events=(event,)))
    for report in batch.reports:
        reason = _impossible_report(report, rules)
        if reason is None:
            reports.append(report)
        else:
            result.refuse(f"report: {reason}", _part(batch, reports=(report,)))
    if len(events) < len(batch.events) or len(reports) < len(batch.reports):
        result.batch = msgspec.structs.replace(
            batch, events=tuple(events), reports=tuple(reports)
        )


def _part(batch: Batch, **parts: Any) -> bytes:
    """A batch with nothing but the part that was refused, so that it can be replayed."""
    empty: dict[str, Any] = {"tables": (), "events": (), "reports": ()}
    return _raw(msgspec.structs.replace(batch, **(empty | parts)))


def _raw(value: object) -> bytes:
    """What was refused, as JSON; what JSON cannot say, as Python writes it."""
    try:
        return msgspec.json.encode(value)
    except (OverflowError, ValueError, TypeError, RecursionError):
        return said(value).encode()


def _unlikely(ts: int, rules: _Rules) -> str | None:
    """Why nothing can have happened at this time; an unset clock begins in 1970."""
    if ts < 0:
        return f"time {ts} is before 1970"
    if ts > rules.now_ms + FUTURE_MS:
        return f"time {ts} is {(ts - rules.now_ms) / 1000:.0f} s in the future"
    return None


def _impossible_event(event: Event, rules: _Rules) -> str | None:
    if not event.code or not is_text(event.code):
        return f"{said(event.code)} is no code"
    if event.device and not is_id(event.device):
        return f"{said(event.device)} is no device id"
    if not is_text(event.detail):
        return f"{event.code}: its detail has control characters"
    return _unlikely(event.ts, rules)


def _impossible_report(report: Report, rules: _Rules) -> str | None:
    if not is_text(report.hash):
        return "its hash has control characters"
    if len(report.diverged) > MOST_DIVERGED:
        return f"{len(report.diverged)} diverged are more than {MOST_DIVERGED}"
    for device in report.diverged:
        if not is_id(device):
            return f"{said(device)} is no device id"
    return _unlikely(report.ts, rules)


# -- tables ------------------------------------------------------------------------------


def _examine_table(table: Table, result: Examined, rules: _Rules) -> None:
    reason = _malformed(table)
    if reason is not None:
        assert result.batch is not None  # noqa: S101 - it has this table
        result.refuse(reason, _part(result.batch, tables=(table,)))
        return
    known = BY_NAME[table.kind]
    quantities = [known.get(name) for name in table.columns]
    columns = list(zip(*table.rows, strict=True))
    arrays = _all_fine(table, columns, quantities, rules)
    if arrays is None:
        good = _sifted(table, quantities, result, rules)
        arrays = _arrays(table, list(zip(*good, strict=True)), quantities)
    if arrays:
        result.tables.append(Columns(table.kind, arrays))


def _sifted(
    table: Table,
    quantities: list[Quantity | None],
    result: Examined,
    rules: _Rules,
) -> list[tuple[Any, ...]]:
    """The good rows of a table; the others are refused, each with its reason."""
    kept, rest, why = [], [], ""
    for row in table.rows:
        reason = _impossible(row, quantities, rules)
        if reason is None:
            kept.append(row)
        elif len(result.rejects) < MOST_REJECTS:
            raw = _raw(dict(zip(table.columns, row, strict=True)))
            result.refuse(reason, raw, table.kind)
        else:
            rest.append(row)
            why = why or reason
    if rest:
        assert result.batch is not None  # noqa: S101 - it has this table
        more = msgspec.structs.replace(table, rows=tuple(rest))
        raw = _part(result.batch, tables=(more,))
        result.refuse(f"{len(rest)} rows more; the first: {why}", raw)
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
    columns = table.columns
    if table.kind not in KINDS:
        return f"there is no kind {said(table.kind)}"
    if columns[:3] != LEAD_COLUMNS:
        return f"columns begin with {', '.join(LEAD_COLUMNS)}"
    if len(columns) > MOST_COLUMNS:
        return f"{len(columns)} columns are more than {MOST_COLUMNS}"
    if max(map(len, columns)) > LONGEST_NAME:
        return f"a column's name is longer than {LONGEST_NAME}"
    if len(set(columns)) != len(columns):
        return "a column appears twice"
    if any(len(row) != len(columns) for row in table.rows):
        return "a row has another length than its columns"
    return None


def _all_fine(
    table: Table,
    columns: list[tuple[Any, ...]],
    quantities: list[Quantity | None],
    rules: _Rules,
) -> dict[str, Array] | None:
    """Arrays of a table when every row passes; column by column, for nearly always all do."""
    if not columns:
        return {}
    devices, times, qualities = columns[:3]
    try:
        fine = (
            _owned(set(devices), rules)
            and set(map(type, times)) == {int}
            and min(times) >= max(EARLIEST_MS, rules.oldest_ms)
            and max(times) <= rules.now_ms + FUTURE_MS
            and QUALITIES.issuperset(qualities)
            and all(
                _NUMBERS.issuperset(map(type, column))
                for column, quantity in zip(columns[3:], quantities[3:], strict=True)
                if quantity is not None
            )
        )
        arrays = _arrays(table, columns, quantities) if fine else None
    except (TypeError, OverflowError):  # what cannot be in a set; huge integers
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


def _owned(devices: set[Any], rules: _Rules) -> bool:
    """Whether all devices may be this controller's; a registered one has a good id."""
    controller, owners = rules.controller, rules.owners
    for device in devices:
        owner = owners.get(device)
        if owner != controller and (owner is not None or not is_id(device)):
            return False
    return True


def _in_range(value: object, quantity: Quantity) -> bool:
    if value is None:
        return True
    return type(value) in _NUMBERS and quantity.low <= value <= quantity.high  # type: ignore[operator]


def _impossible(
    row: tuple[Any, ...], quantities: list[Quantity | None], rules: _Rules
) -> str | None:
    """Why a row cannot be true; None when it can."""
    device, ts, quality = row[:3]
    if not isinstance(device, str) or not is_id(device):
        return f"{said(device)} is no device id"
    owner = rules.owners.get(device, rules.controller)
    if owner != rules.controller:
        return f"{device} belongs to {owner}, not to {rules.controller}"
    untimely = rules.untimely(ts)
    if untimely is not None:
        return f"{device}: {untimely}"
    if not isinstance(quality, str) or quality not in QUALITIES:
        known = ", ".join(sorted(QUALITIES))
        return f"{device}: quality {said(quality)} is none of {known}"
    for value, quantity in zip(row[3:], quantities[3:], strict=True):
        if quantity is not None and not _in_range(value, quantity):
            return (
                f"{device}: {quantity.name} = {said(value)} is outside "
                f"{quantity.low:g} to {quantity.high:g}"
            )
    return None
