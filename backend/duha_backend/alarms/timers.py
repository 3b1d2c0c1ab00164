"""Conditions that must hold for a while, for many things at once. Pure."""

from typing import NamedTuple

import numpy as np

from duha_backend.alarms.kinds import Kind
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
