"""The messages of the wire, version 1: typed, frozen, JSON, UTC milliseconds.

Readers ignore fields they do not know; a new field is optional. Anything else is a
new version on a new topic root.
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from duha_contract.errors import MessageError
from duha_contract.lighting import (
    NORMAL,
    Condition,
    Decision,
    Override,
    Sun,
    level_at,
)
from duha_contract.programmes import Calendar, Place, Programme
from duha_contract.roads import Drying

M = TypeVar("M", bound=msgspec.Struct)
VERSION = 1
MAX_BYTES = 128 * 1024
LEAD_COLUMNS = ("device", "ts", "quality")
EARLIEST_MS = 1_577_836_800_000  # 2020-01-01: older readings come from an unset clock

I64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer that every store and language can hold."""
Seq = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
"""Number of a batch within its outbox."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Ranges = Annotated[tuple[tuple[Seq, Seq], ...], msgspec.Meta(max_length=1000)]
"""Ranges of batch numbers, both ends included."""
Name = Annotated[str, msgspec.Meta(max_length=128)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]

Quality = Literal["good", "no_answer", "invalid"]
ClockState = Literal["trusted", "unset", "rebased"]
"""`unset`: times are of a clock that nobody had set; `rebased`: they were, and have been
put right since, from the monotonic time of their boot."""


class Table(msgspec.Struct, frozen=True):
    """Readings of one kind of device, in columns.

    `columns` begin with device, ts [ms] and quality, then quantities of the data
    dictionary. A missing value is null, never a made-up number.
    """

    kind: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class Event(msgspec.Struct, frozen=True):
    """Something that happened at an instant."""

    ts: I64
    code: Name
    device: Name | None = None
    detail: Text = ""


class Report(msgspec.Struct, frozen=True):
    """What the controller has made of a desired document."""

    ts: I64
    revision: Count
    hash: Name
    applied: Count
    diverged: tuple[str, ...] = ()


class Batch(msgspec.Struct, frozen=True):
    """One row of a controller's outbox.

    `outbox` names the outbox file and `seq` counts its rows from 1 without a gap;
    together with the controller they name the batch for ever. `since` [ms] is when the
    monotonic clock of `boot` stood at zero: a time less `since` is monotonic time.
    """

    v: I64
    boot: Name
    outbox: Name
    seq: Seq
    clock: ClockState
    tables: tuple[Table, ...] = ()
    events: tuple[Event, ...] = ()
    reports: tuple[Report, ...] = ()
    since: I64 = 0


class Envelope(msgspec.Struct, frozen=True):
    """Identity of a batch whose content cannot be decoded: enough to acknowledge it."""

    v: I64
    outbox: Name
    seq: Seq


class Ack(msgspec.Struct, frozen=True):
    """Ranges of `seq`, both ends included, that the backend has committed.

    `resend` asks for every unacknowledged batch at once: the backend has restarted.
    """

    v: I64
    outbox: Name
    ranges: Ranges = ()
    resend: bool = False


class Status(msgspec.Struct, frozen=True):
    """State of a controller; retained, and the last will.

    `alarms` are sentences about what is wrong with the controller itself now; `lost`
    counts batches that a full outbox has dropped; `site` names the site file in force and
    `site_error` says why a newer one was refused.
    """

    v: I64
    online: bool
    ts: I64 = 0
    version: Name = ""
    boot: Name = ""
    clock: ClockState = "trusted"
    period_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0
    backlog: Count = 0
    missed_cycles: Count = 0
    silent_units: Count = 0
    lost: Count = 0
    alarms: Annotated[tuple[Text, ...], msgspec.Meta(max_length=100)] = ()
    site: Name = ""
    site_error: Text = ""


class Desired(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the controller shall do, whole: it replaces the document before it.

    Attributes
    ----------
    assignments : dict of str to str
        Calendar of each luminaire; ``*`` stands for all others.
    normals : dict of str to float
        Normal class level [%] of those that have another than 100.
    drying : Drying or None
        How roads dry here, for the controller's own gauges; None: they do not count.
    term : int
        Of the leader that has issued it: a document of an earlier term is out of date.
    """

    v: I64
    revision: Count
    hash: Name
    issued: I64
    place: Place
    programmes: tuple[Programme, ...] = ()
    calendars: tuple[Calendar, ...] = ()
    assignments: dict[str, str] = {}
    overrides: tuple[Override, ...] = ()
    conditions: tuple[Condition, ...] = ()
    normals: dict[str, float] = {}
    drying: Drying | None = None
    term: Count = 0

    def decide(
        self, device: str, t: float, local: tuple[Condition, ...] = ()
    ) -> Decision:
        """Level [%] and reason of a luminaire at POSIX time `t` [s].

        `local` are conditions that the controller knows by itself.
        """
        wanted = self.assignments.get(device) or self.assignments.get("*")
        return level_at(
            {programme.id: programme for programme in self.programmes},
            next((c for c in self.calendars if c.id == wanted), None),
            self.overrides,
            self.conditions + local,
            Sun(self.place),
            t,
            device,
            self.normals.get(device, NORMAL),
        )


def encode(message: msgspec.Struct) -> bytes:
    """Encode any message as JSON."""
    return msgspec.json.encode(message)


def decode(payload: bytes, kind: type[M]) -> M:
    """Decode and check a message.

    Raises
    ------
    MessageError
        Not JSON, not this message, another version, nested too deeply, or too large.
    """
    if len(payload) > MAX_BYTES:
        raise MessageError(f"{len(payload)} bytes are more than {MAX_BYTES}")
    try:
        message = msgspec.json.decode(payload, type=kind)
    except RecursionError:
        raise MessageError(f"no {kind.__name__.lower()}: nested too deeply") from None
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise MessageError(f"no {kind.__name__.lower()}: {error}") from None
    version = getattr(message, "v", VERSION)
    if version != VERSION:
        raise MessageError(f"version {version} of the contract is not spoken here")
    return message
