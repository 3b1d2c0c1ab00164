"""Time for a controller that may boot without a clock.

Times of readings come from the monotonic clock plus an offset, so that they never jump
by themselves. The wall clock says what the offset should be. A small difference is
worked off slowly, which never reorders or doubles a reading; a large one is a clock that
has been set: the offset jumps, and what this boot has recorded and not yet delivered is
put right by as much.
"""

import time
import uuid
from collections.abc import Callable
from pathlib import Path

from duha_contract.messages import EARLIEST_MS

EARLIEST_S = EARLIEST_MS / 1000
FORWARD_S = 2.0
"""A wall clock that is so far ahead has been set."""
BACK_S = 60.0
"""One that is so far behind has been set back: what was sent before lies so far in the
future for the backend that it was not stored."""
SLEW = 0.1
"""Share of the passing time by which a small difference is worked off."""
STALE_S = 86_400.0
"""A clock that shows up to a day before the newest record is one that a power cut has
left behind (a saved clock is an hour old at most); more, and it is the record that lies."""


def boot_id() -> str:
    """Name of this boot of the machine; of this process where the system has none."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    except OSError:
        text = uuid.uuid4().hex
    return text.replace("-", "").strip()[:12]


class Timekeeper:
    """Steady POSIX time [s], and whether to believe it.

    Parameters
    ----------
    wall, monotonic : callable
        The clocks of the machine [s].
    newest : float
        Time of the newest record of earlier runs [s]; 0 without any.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        newest: float = 0.0,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._newest = newest
        self._looked = monotonic()
        self.since = wall() - self._looked

    def now(self) -> float:
        """POSIX time [s]; it runs on evenly between two looks at the wall clock."""
        return self._monotonic() + self.since

    def trusted(self, now: float) -> bool:
        """Whether a clock that shows `now` [s] can be right.

        It cannot before 2020, nor before what it has recorded already.
        """
        stale = 0 < self._newest - now <= STALE_S
        return now >= EARLIEST_S and not stale

    def look(self) -> float:
        """Compare with the wall clock; returns by how much a set clock has jumped [s]."""
        mono = self._monotonic()
        passed, self._looked = mono - self._looked, mono
        ahead = self._wall() - (mono + self.since)
        if ahead > FORWARD_S or ahead < -BACK_S:
            self.since += ahead
            return ahead
        most = SLEW * passed
        self.since += max(-most, min(most, ahead))
        return 0.0
