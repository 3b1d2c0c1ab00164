"""Execution of the desired document: level of each luminaire, and divergence from it.

A document is validated before it comes into force, and the decision for each luminaire
has a barrier of its own: what cannot be evaluated falls back to the previous document,
then to the default, then to full light.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from duha_contract.lighting import Cause, Condition, Decision, Sun, level_at
from duha_contract.messages import EARLIEST_MS, Desired, Report, supersedes
from duha_contract.programmes import Place, clear_caches
from duha_contract.roads import Road, advance, dry_at
from duha_contract.validation import evaluate_ahead, validate_desired
from duha_edge.documents import DocumentStore, Restored
from duha_edge.profiles import Write

log = logging.getLogger(__name__)

TOLERANCE_PCT = 1.0
RETRY_S = 5.0
DARK_LX, LIGHT_LX = 20.0, 40.0
"""Without a clock a lux sensor decides: lamps are lit below the one, out above the other."""
FRESH_S = 900.0

AGAIN_S = 60.0
"""Validity of a decision that fell back from the document in force [s]."""

G = TypeVar("G")
Luminaires = Mapping[str, Write | None] | Iterable[str]


@dataclass
class State:
    """One luminaire.

    Attributes
    ----------
    write : Write or None
        Writable range of its gear; None: any level.
    asked : int or None
        Level by the document [%].
    commanded : int or None
        Level that was written [%]: the nearest writable one.
    in_effect : float or None
        Level that was read back [%].
    told_at : float
        Monotonic time of the last write [s].
    """

    write: Write | None = None
    asked: int | None = None
    commanded: int | None = None
    in_effect: float | None = None
    told_at: float = -RETRY_S

    def possible(self, level: int) -> int:
        """Nearest writable level to `level` [%]."""
        return level if self.write is None else self.write.nearest(level)

    @property
    def shortfall(self) -> str:
        """Reason why the gear cannot reach the level; empty when it can."""
        if self.asked == 0 and self.commanded:
            return f"the profile has no off: {self.commanded} % is the minimum"
        return ""

    @property
    def diverged(self) -> bool:
        """Whether the set-point is known not to be what was written."""
        return self.commanded is not None and (
            self.in_effect is None
            or abs(self.in_effect - self.commanded) > TOLERANCE_PCT
        )


class Executor:
    """Keeps the desired document and works out what it means.

    Parameters
    ----------
    luminaires : mapping of str to Write, or iterable of str
        Luminaires that may be written, with the writable range of their gear.
    place : Place
        Where the controller stands, for the default without a document.
    path : Path
        Where the document is kept over a restart.
    now : float, optional
        POSIX time [s] from which a stored document is evaluated.
    """

    def __init__(
        self,
        luminaires: Luminaires,
        place: Place,
        path: Path,
        now: float | None = None,
    ) -> None:
        self._place = place
        self._states = _states(luminaires, {})
        self._light: tuple[float, bool] | None = None
        self._sky: tuple[Condition, ...] = ()
        self._wet: tuple[Condition, ...] = ()
        self._roads: dict[str, Road] = {}
        self._decided: dict[str, tuple[float, Decision]] = {}
        self._reported: tuple[object, ...] = ()
        self._documents = DocumentStore(path)
        self.failing: dict[str, str] = {}
        """Errors of the document in force, by luminaire."""
        start = time.time() if now is None else now
        self._desired, self._before = self._restore(start)

    def _restore(self, now: float) -> Restored:
        def usable(desired: Desired) -> None:
            self.validate(desired, now)

        return self._documents.restore(usable)

    @property
    def desired(self) -> Desired | None:
        """The document in force."""
        return self._desired

    @property
    def revision(self) -> int:
        """Revision of the document in force; 0 without one."""
        return self._desired.revision if self._desired else 0

    def accept(self, desired: Desired, now: float | None = None) -> bool:
        """Validate a document, put it in force and store it.

        False when it is the one in force, or an older one.

        Raises
        ------
        ContractError
            It cannot be executed; the one in force stays.
        """
        if not supersedes(desired, self._desired):
            return False
        self.validate(desired, time.time() if now is None else now)
        self.activate(desired)
        try:
            self.store(desired)
        except OSError as error:
            log.error("desired revision %d not kept: %s", desired.revision, error)  # noqa: TRY400
        return True

    def validate(self, desired: Desired, now: float) -> None:
        """Validate a document for these luminaires; safe to call in a thread.

        Raises
        ------
        ContractError
            It cannot be executed.
        """
        try:
            validate_desired(desired)
            evaluate_ahead(desired, tuple(self._states), now)
        finally:
            clear_caches()  # the nights of every received document would stay in memory

    def activate(self, desired: Desired) -> None:
        """Put a validated document in force."""
        self._before, self._desired = self._desired, desired
        self._decided.clear()
        self.failing.clear()

    def store(self, desired: Desired) -> None:
        """Write the document in force to disk; blocks, so call it in a thread.

        Raises
        ------
        OSError
            The disk is full, or cannot be written.
        """
        self._documents.store(desired)

    def cover(self, luminaires: Luminaires, place: Place) -> None:
        """Other luminaires may be written from now on; those that stay keep their state."""
        self._place = place
        self._states = _states(luminaires, self._states)
        self._decided.clear()
        self.failing = {n: why for n, why in self.failing.items() if n in self._states}

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
        """Decision by the first document, or else the default, that can be evaluated."""
        for desired in (self._desired, self._before, None):
            try:
                decision = self._by(desired, device, now)
            except Exception as error:  # noqa: BLE001 - the barrier of each luminaire
                self.failing[device] = f"{type(error).__name__}: {error}"[:200]
                continue
            if desired is self._desired:
                self.failing.pop(device, None)
                return decision
            return decision._replace(until=min(decision.until, now + AGAIN_S))
        return Decision(100.0, (Cause("default"),), now + AGAIN_S)

    def _by(self, desired: Desired | None, device: str, now: float) -> Decision:
        if desired is None:
            return level_at({}, None, (), (), Sun(self._place), now, device)
        return desired.decide(device, now, self._sky + self._wet)

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
            state.asked, level = level, state.possible(level)
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
        """Report on the document in force; None when nothing has changed.

        A report counts as made only once `reported` confirms that it was stored.
        """
        short = {
            n: state.shortfall for n, state in self._states.items() if state.shortfall
        }
        diverged = tuple(
            n for n, state in self._states.items() if state.diverged or n in short
        )
        told = sum(state.commanded is not None for state in self._states.values())
        digest = self._desired.hash if self._desired else ""
        found = Report(
            now_ms, self.revision, digest, told - len(diverged), diverged, short
        )
        return None if _news(found) == self._reported else found

    def reported(self, report: Report) -> None:
        """Confirm that a report is in the outbox."""
        self._reported = _news(report)


def _news(report: Report) -> tuple[object, ...]:
    """Content of a report without its time."""
    return (
        report.revision, report.hash, report.applied, report.diverged,
        tuple(report.reasons.items()),
    )  # fmt: skip


def _states(luminaires: Luminaires, before: Mapping[str, State]) -> dict[str, State]:
    """State of each luminaire; known luminaires keep theirs."""
    found = {name: before.get(name, State()) for name in luminaires}
    for name, state in found.items():
        state.write = luminaires[name] if isinstance(luminaires, Mapping) else None
    return found


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
