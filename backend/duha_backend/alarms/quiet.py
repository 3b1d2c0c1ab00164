"""Quiet windows: cabinets that are switched off by day have nothing to say then. Pure."""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from duha_backend.validate import Array
from duha_contract.lighting import Sun
from duha_contract.programmes import instant


class Quiet(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nothing is expected of some cabinets (none named: of all) between two times.

    `start` and `end` are times as of a programme's step; the window lies outside the
    night from `end` (evening) to `start` (morning).
    """

    id: str
    name: str = ""
    cabinets: tuple[str, ...] = ()
    start: str = "sunrise"
    end: str = "sunset"

    def holds(self, sun: Sun, now: int) -> bool:
        """Whether it is quiet at a time [ms]: outside the night."""
        t = now / 1000
        date = sun.date_of(t)
        evening = instant(self.end, sun.place, date, self.id)
        morning = instant(self.start, sun.place, date, self.id)
        return not evening <= t < morning

    def check(self, sun: Sun) -> None:
        """Raise ProgrammeError for times that are none."""
        self.holds(sun, 0)


def is_quiet(
    windows: Iterable[Quiet], cabinets: Sequence[str], sun: Sun, now: int
) -> Array:
    """Which cabinets are quiet at a time [ms]."""
    found = np.zeros(len(cabinets), dtype=bool)
    for window in windows:
        if window.holds(sun, now):
            named = set(window.cabinets)
            found |= np.array(
                [not named or name in named for name in cabinets], dtype=bool
            )
    return found
