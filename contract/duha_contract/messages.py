"""The messages of the wire, version 1: typed, frozen, JSON, UTC milliseconds.

Readers ignore fields they do not know; a new field is optional. Anything else is a
new version on a new topic root.
"""

from typing import Any, Literal, TypeVar

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

    ts: int
    code: str
    device: str | None = None
    detail: str = ""


class Report(msgspec.Struct, frozen=True):
    """What the controller has made of a desired document."""

    ts: int
    revision: int
    hash: str
    applied: int
    diverged: tuple[str, ...] = ()


class Batch(msgspec.Struct, frozen=True):
    """One row of a controller's outbox.

    `outbox` names the outbox file and `seq` counts its rows from 1 without a gap;
    together with the controller they name the batch for ever. `since` [ms] is when the
    monotonic clock of `boot` stood at zero: a time less `since` is monotonic time.
    """

    v: int
    boot: str
    outbox: str
    seq: int
    clock: ClockState
    tables: tuple[Table, ...] = ()
    events: tuple[Event, ...] = ()
    reports: tuple[Report, ...] = ()
    since: int = 0


class Ack(msgspec.Struct, frozen=True):
    """Ranges of `seq`, both ends included, that the backend has committed.

    `resend` asks for every unacknowledged batch at once: the backend has restarted.
    """

    v: int
    outbox: str
    ranges: tuple[tuple[int, int], ...] = ()
    resend: bool = False


class Status(msgspec.Struct, frozen=True):
    """State of a controller; retained, and the last will.

    `alarms` are sentences about what is wrong with the controller itself now; `lost`
    counts batches that a full outbox has dropped; `site` names the site file in force and
    `site_error` says why a newer one was refused.
    """

    v: int
    online: bool
    ts: int = 0
    version: str = ""
    boot: str = ""
    clock: ClockState = "trusted"
    period_s: float = 0.0
    backlog: int = 0
    missed_cycles: int = 0
    silent_units: int = 0
    lost: int = 0
    alarms: tuple[str, ...] = ()
    site: str = ""
    site_error: str = ""


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
    """

    v: int
    revision: int
    hash: str
    issued: int
    place: Place
    programmes: tuple[Programme, ...] = ()
    calendars: tuple[Calendar, ...] = ()
    assignments: dict[str, str] = {}
    overrides: tuple[Override, ...] = ()
    conditions: tuple[Condition, ...] = ()
    normals: dict[str, float] = {}
    drying: Drying | None = None

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
        Not JSON, not this message, another version, or too large.
    """
    if len(payload) > MAX_BYTES:
        raise MessageError(f"{len(payload)} bytes are more than {MAX_BYTES}")
    try:
        message = msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MessageError(f"no {kind.__name__.lower()}: {error}") from None
    version = getattr(message, "v", VERSION)
    if version != VERSION:
        raise MessageError(f"version {version} of the contract is not spoken here")
    return message
