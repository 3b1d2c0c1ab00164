"""What each luminaire shall do now, and whether it does. No I/O but one small file."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from duha_contract.errors import ContractError
from duha_contract.lighting import Cause, Condition, Decision, Sun, level_at
from duha_contract.messages import EARLIEST_MS, Desired, Report, decode, encode
from duha_contract.programmes import Place, check
from duha_contract.roads import Road, advance, dry_at

log = logging.getLogger(__name__)

TOLERANCE_PCT = 1.0
RETRY_S = 5.0
DARK_LX, LIGHT_LX = 20.0, 40.0
"""Without a clock a lux sensor decides: lamps are lit below the one, out above the other."""
FRESH_S = 900.0

G = TypeVar("G")


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
        self._light: tuple[float, bool] | None = None
        self._sky: tuple[Condition, ...] = ()
        self._wet: tuple[Condition, ...] = ()
        self._roads: dict[str, Road] = {}
        self._decided: dict[str, tuple[float, Decision]] = {}
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
        self._decided.clear()
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

    def cover(self, luminaires: Iterable[str], place: Place) -> None:
        """Other luminaires may be written from now on; those that stay keep their state."""
        self._place = place
        self._states = {name: self._states.get(name, State()) for name in luminaires}
        self._decided.clear()

    def bright(self, lux: float | None, monotonic: float, now: float) -> None:
        """A light sensor has measured [lx].

        It decides alone while there is no clock; with one, it moves the active periods of
        the programmes that ask for it.
        """
        if lux is None:
            return
        was = self._light[1] if self._light else False
        bright = lux > (DARK_LX if was else LIGHT_LX)
        self._light = (monotonic, bright)
        until = round((now + FRESH_S) * 1000)
        detail = f"{lux:.0f} lx"
        self._sky = (Condition("bright" if bright else "dark", 0, until, detail),)
        self._decided.clear()

    def rained(
        self, gauge: str, rain_mm: float, now: float, temperature_c: float | None = None
    ) -> None:
        """A gauge of this controller has measured rain [mm] since it was last asked.

        Its roads are worked out here, so that light answers to rain without a backend.
        """
        drying = self._desired.drying if self._desired else None
        if drying is None:
            return
        road = self._roads.get(gauge, Road(now))
        road = advance(road, drying, now, rain_mm, temperature_c)
        self._roads[gauge] = road
        wet = self._wet[0] if self._wet and self._wet[0].active(now) else None
        if rain_mm > 0 and road.wet:
            start = wet.start if wet else round(now * 1000)
            end = max(wet.end if wet else 0, round(dry_at(road, drying) * 1000))
            self._wet = (Condition("wet_road", start, end, gauge),)
            self._decided.clear()

    def _without_clock(self, monotonic: float) -> int:
        """Level [%] while nobody knows the time: by the light sensor, else on."""
        fresh = self._light is not None and monotonic - self._light[0] <= FRESH_S
        return 0 if self._light is not None and fresh and self._light[1] else 100

    def decide(self, device: str, now: float) -> Decision:
        """Level [%] and reason of a luminaire at POSIX time `now` [s]."""
        if now * 1000 < EARLIEST_MS:  # no clock: a light too many beats a dark street
            return Decision(100.0, (Cause("default"),))
        began, decision = self._decided.get(device, (now, None))
        if decision is None or not began <= now < decision.until:
            decision = self._decide(device, now)
            self._decided[device] = (now, decision)
        return decision

    def _decide(self, device: str, now: float) -> Decision:
        if self._desired is None:
            return level_at({}, None, (), (), Sun(self._place), now, device)
        return self._desired.decide(device, now, self._sky + self._wet)

    def to_write(
        self, now: float, monotonic: float, *, trusted: bool = True
    ) -> dict[str, int]:
        """Levels [%] to write now: changed ones, and diverged ones every few seconds.

        Parameters
        ----------
        now, monotonic : float
            POSIX and monotonic time [s].
        trusted : bool
            Whether `now` can be believed; if not, a light sensor decides, or it is light:
            a light too many beats a dark street.
        """
        due: dict[str, int] = {}
        trusted = trusted and now * 1000 >= EARLIEST_MS
        for name, state in self._states.items():
            if trusted:
                level = round(self.decide(name, now).level)
            else:
                level = self._without_clock(monotonic)
            changed = level != state.commanded
            again = state.diverged and monotonic - state.told_at >= RETRY_S
            if changed or again:
                due[name] = level
        return due

    def told(self, device: str, level: int, monotonic: float) -> None:
        """A level was written, or the attempt was made."""
        if state := self._states.get(device):
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


def together(
    due: Mapping[str, int],
    wanted: Mapping[str, int | None],
    groups: Mapping[G, frozenset[str]],
) -> tuple[list[tuple[G, frozenset[str]]], list[str]]:
    """Which groups to write instead of single luminaires.

    Parameters
    ----------
    due : mapping of str to int
        Levels [%] to write now.
    wanted : mapping of str to int or None
        Levels [%] that all luminaires shall have, due or not.
    groups : mapping of group to frozenset of str
        Whom a write to each group reaches.

    Returns
    -------
    list of (group, members), list of str
        Groups all of whose members shall have one level, the largest first, each with
        the due members that it takes care of (two at least); and who is left.
    """
    left = set(due)
    chosen: list[tuple[G, frozenset[str]]] = []
    for group, members in sorted(groups.items(), key=lambda item: -len(item[1])):
        levels = {wanted.get(name) for name in members}
        served = members & left
        if len(levels) == 1 and len(served) > 1:
            chosen.append((group, served))
            left -= served
    return chosen, [name for name in due if name in left]


def _stored(path: Path) -> Desired | None:
    """The document from disk; a broken one is as good as none, and says so."""
    if not path.exists():
        return None
    try:
        return decode(path.read_bytes(), Desired)
    except (ContractError, msgspec.MsgspecError, OSError) as error:
        log.error("stored desired document %s cannot be used: %s", path, error)  # noqa: TRY400
        return None
