"""What each luminaire shall do now, and whether it does. No I/O but one small file."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from duha_contract.errors import ContractError
from duha_contract.lighting import Cause, Decision, Place, Sun, check, level_at
from duha_contract.messages import EARLIEST_MS, Desired, Report, decode, encode

log = logging.getLogger(__name__)

TOLERANCE_PCT = 1.0
RETRY_S = 5.0


@dataclass
class State:
    """One luminaire: what was asked of it, what it said, when it was last told [s]."""

    commanded: int | None = None
    in_effect: float | None = None
    told_at: float = -RETRY_S

    @property
    def diverged(self) -> bool:
        """Whether the set-point is known not to be what was asked for."""
        return self.commanded is not None and (
            self.in_effect is None
            or abs(self.in_effect - self.commanded) > TOLERANCE_PCT
        )


class Executor:
    """Keeps the desired document and works out what it means.

    Parameters
    ----------
    luminaires : iterable of str
        Those whose level may be written.
    place : Place
        Where the controller stands, for the default without a document.
    path : Path
        Where the document is kept over a restart.
    """

    def __init__(self, luminaires: list[str], place: Place, path: Path) -> None:
        self._place = place
        self._path = path
        self._states = {name: State() for name in luminaires}
        self._desired = _stored(path)
        self._reported: tuple[object, ...] = ()

    @property
    def revision(self) -> int:
        """Revision of the document in force; 0 without one."""
        return self._desired.revision if self._desired else 0

    def accept(self, desired: Desired) -> bool:
        """Take a document and keep it on disk; False when it is the one in force.

        Raises
        ------
        ContractError
            It holds a programme that cannot be evaluated; the old one stays.
        """
        old = self._desired
        if old and (old.hash, old.revision) == (desired.hash, desired.revision):
            return False
        for programme in desired.programmes:
            check(programme, desired.place)
        self._desired = desired
        self._keep(desired)
        return True

    def _keep(self, desired: Desired) -> None:
        """Write the document to disk; a full disk must not keep the lights from obeying."""
        new = self._path.with_suffix(".new")
        try:
            with new.open("wb") as file:
                file.write(encode(desired))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            log.error("desired revision %d not kept: %s", desired.revision, error)  # noqa: TRY400

    def decide(self, device: str, now: float) -> Decision:
        """Level [%] and reason of a luminaire at POSIX time `now` [s]."""
        if now * 1000 < EARLIEST_MS:  # no clock: a light too many beats a dark street
            return Decision(100.0, (Cause("default"),))
        if self._desired is None:
            return level_at({}, None, (), (), Sun(self._place), now, device)
        return self._desired.decide(device, now)

    def to_write(self, now: float, monotonic: float) -> dict[str, int]:
        """Levels [%] to write now: changed ones, and diverged ones every few seconds."""
        due: dict[str, int] = {}
        for name, state in self._states.items():
            level = round(self.decide(name, now).level)
            changed = level != state.commanded
            again = state.diverged and monotonic - state.told_at >= RETRY_S
            if changed or again:
                due[name] = level
        return due

    def told(self, device: str, level: int, monotonic: float) -> None:
        """A level was written, or the attempt was made."""
        state = self._states[device]
        state.commanded = level
        state.told_at = monotonic

    def saw(self, device: str, in_effect: float | None) -> None:
        """A set-point was read back; None when the luminaire did not answer."""
        if device in self._states:
            self._states[device].in_effect = in_effect

    def commanded(self, device: str) -> int | None:
        """Level [%] last asked of a luminaire."""
        state = self._states.get(device)
        return state.commanded if state else None

    def report(self, now_ms: int) -> Report | None:
        """What has been made of the document; None when nothing is new."""
        diverged = tuple(n for n, state in self._states.items() if state.diverged)
        told = sum(state.commanded is not None for state in self._states.values())
        digest = self._desired.hash if self._desired else ""
        news = (self.revision, digest, diverged, told)
        if news == self._reported:
            return None
        self._reported = news
        return Report(now_ms, self.revision, digest, told - len(diverged), diverged)


def _stored(path: Path) -> Desired | None:
    """The document from disk; a broken one is as good as none, and says so."""
    if not path.exists():
        return None
    try:
        return decode(path.read_bytes(), Desired)
    except (ContractError, msgspec.MsgspecError, OSError) as error:
        log.error("stored desired document %s cannot be used: %s", path, error)  # noqa: TRY400
        return None
