"""What was refused, once more: quarantined bytes as a message that can be examined."""

from collections.abc import Mapping
from typing import Any

import msgspec

from duha_backend.books import MOST_RAW
from duha_backend.validate import Examined, examine
from duha_contract.errors import ContractError
from duha_contract.messages import Batch, Table, decode, encode
from duha_contract.topics import Topic

_LEAD = ("device", "ts", "quality")


def replayed(row: Mapping[str, Any], now_ms: int, owners: Mapping[str, str]) -> Examined:  # fmt: skip
    """Examine one row of the quarantine by the rules of now [ms].

    A replayed batch has a name of its own, so that no store mistakes it for one that it
    holds already.
    """
    controller, raw = row["controller"], bytes(row["raw"])
    refused = Examined(controller)
    if not controller:
        refused.refuse(row["reason"], raw)
        return refused
    if len(raw) >= MOST_RAW:
        refused.refuse(f"only its first {MOST_RAW} bytes were kept", raw)
        return refused
    try:
        batch = _row(row["kind"], raw) if row["kind"] else _message(raw)
        named = msgspec.structs.replace(batch, outbox="quarantine", seq=row["id"])
        payload = encode(named)
    except (ContractError, ValueError, TypeError, AttributeError) as error:
        refused.refuse(str(error), raw)
        return refused
    return examine(Topic("", controller, "data"), payload, now_ms, owners)


def _message(raw: bytes) -> Batch:
    """A batch; older versions kept a malformed table as it stood."""
    try:
        return decode(raw, Batch)
    except ContractError as error:
        try:
            table = decode(raw, Table)
        except ContractError:
            raise error from None
        return _batch(table)


def _row(kind: str, raw: bytes) -> Batch:
    """A batch of one row that was refused alone."""
    values = msgspec.json.decode(raw)
    lead = {name: values.pop(name, None) for name in _LEAD}
    return _batch(Table(kind, (*lead, *values), ((*lead.values(), *values.values()),)))


def _batch(table: Table) -> Batch:
    return Batch(1, "", "quarantine", 1, "trusted", (table,))
