"""Conditions that must hold for a while, for many things at once or for few. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from duha_backend.alarms.kinds import KINDS, Kind
from duha_backend.validate import Array


class Turned(NamedTuple):
    """Rows whose alarm begins now, and rows whose alarm is over."""

    raised: Array
    cleared: Array


class Timer:
    """One condition over `n` things: raised after it has held, cleared after it is gone.

    Parameters
    ----------
    kind : Kind
        How long that takes.
    n : int
        How many things.

    Attributes
    ----------
    since : (n,) float64
        Since when the condition holds [s]; NaN where it does not.
    raised : (n,) bool
        Where the alarm stands.
    """

    def __init__(self, kind: Kind, n: int) -> None:
        self.kind = kind
        self.since = np.full(n, np.nan)
        self.raised = np.zeros(n, dtype=bool)
        self._gone = np.full(n, np.nan)

    def see(self, rows: Array, holds: Array, t: Array) -> None:
        """The condition holds, or does not, for some rows at some times [s]."""
        since = self.since[rows]
        if not holds.any() and np.isnan(since).all() and not self.raised[rows].any():
            return
        self.since[rows] = np.where(holds, np.where(np.isnan(since), t, since), np.nan)
        gone = self._gone[rows]
        over = ~holds & self.raised[rows]
        self._gone[rows] = np.where(over, np.where(np.isnan(gone), t, gone), np.nan)

    def turned(self, rows: Array, t: Array, held_back: Array | None = None) -> Turned:
        """What begins and what is over at some times [s].

        Parameters
        ----------
        rows, t : (m,) arrays
            Where to look, and when.
        held_back : (m,) bool, optional
            Rows that have another cause and are not raised themselves.
        """
        raised = self.raised[rows]
        due = ~raised & (t - self.since[rows] >= self.kind.after_s)
        if held_back is not None:
            due &= ~held_back
        over = raised & (t - self._gone[rows] >= self.kind.off_s)
        self.raised[rows[due]] = True
        self.raised[rows[over]] = False
        self._gone[rows[over]] = np.nan
        return Turned(rows[due], rows[over])

    def drop(self, rows: Array) -> Array:
        """Take alarms away that have another cause; returns those that stood."""
        stood = rows[self.raised[rows]]
        self.raised[stood] = False
        self._gone[stood] = np.nan
        return stood


@dataclass
class _Hold:
    """One condition of one thing."""

    since: float | None = None
    gone: float | None = None
    raised: bool = False
    detail: str = ""
    affected: int = 0


class Holds:
    """Conditions of few things, each by its name."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], _Hold] = {}

    def see(
        self, code: str, name: str, holds: bool, t: float, detail: str = "",
        affected: int = 0,
    ) -> None:  # fmt: skip
        """The condition holds, or does not, at a time [s]."""
        held = self._held.get((code, name))
        if held is None:
            if not holds:
                return
            held = self._held[code, name] = _Hold()
        if holds:
            held.since = t if held.since is None else held.since
            held.gone = None
            held.detail, held.affected = detail, affected
        else:
            held.since = None
            held.gone = t if held.gone is None else held.gone

    def holds(self, code: str, name: str) -> bool:
        """Whether the condition holds now."""
        held = self._held.get((code, name))
        return held is not None and held.since is not None

    def raised(self, code: str, name: str) -> bool:
        """Whether its alarm stands."""
        held = self._held.get((code, name))
        return held is not None and held.raised

    def known(self) -> set[tuple[str, str]]:
        """Conditions that hold, or whose alarm stands: code and name."""
        return set(self._held)

    def adopt(self, code: str, name: str) -> None:
        """An alarm that stood before a restart stands still."""
        self._held[code, name] = _Hold(raised=True)

    def undo(self, code: str, name: str) -> None:
        """What has just turned could not be told: it turns again."""
        held = self._held.setdefault((code, name), _Hold())
        held.raised = not held.raised
        if held.raised and held.gone is None:
            held.gone = -np.inf

    def without(self, there: Callable[[str], bool]) -> list[tuple[str, str]]:
        """Forget what is no longer there; the alarms that stood for it."""
        gone = [key for key in self._held if not there(key[1])]
        return [key for key in gone if self._held.pop(key).raised]

    def turned(
        self, t: float, held_back: Callable[[str, str], bool]
    ) -> Iterable[tuple[str, str, bool, _Hold]]:
        """What begins (True) and what is over at a time [s]."""
        for (code, name), held in list(self._held.items()):
            kind = KINDS[code]
            if held.raised and held.gone is not None and t - held.gone >= kind.off_s:
                held.raised = False
                yield code, name, False, held
            due = held.since is not None and t - held.since >= kind.after_s
            if due and not held.raised and not held_back(code, name):
                held.raised = True
                yield code, name, True, held
            if held.since is None and not held.raised:
                del self._held[code, name]
