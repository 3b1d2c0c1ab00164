"""Rain that a gauge has measured in the last day: each reading once, summed at once."""

import numpy as np

from duha_backend.validate import Array

MOST_FALLS = 100_000
"""Readings with rain that are kept of a gauge: more than one a second of a day."""


class Fallen:
    """Depths [mm] of one gauge by time [ms].

    A time has one depth: a batch that comes twice changes nothing.
    """

    def __init__(self) -> None:
        self._depths: dict[int, float] = {}
        self._sorted: tuple[Array, Array] | None = None

    def __len__(self) -> int:
        return len(self._depths)

    def add(self, times: Array, depths: Array) -> None:
        """Take readings; those without rain are left out."""
        wet = depths > 0
        room = max(0, MOST_FALLS - len(self._depths))
        found = zip(times[wet][:room].tolist(), depths[wet][:room].tolist(), strict=True)  # fmt: skip
        self._depths.update(found)
        self._sorted = None

    def forget(self, before_ms: int) -> None:
        """Leave out what is older than a time [ms]."""
        times, _ = self._columns()
        if len(times) and times[0] < before_ms:
            self._depths = {t: d for t, d in self._depths.items() if t >= before_ms}
            self._sorted = None

    def since(self, since_ms: int) -> float:
        """Depth [mm] since a time [ms]."""
        times, depths = self._columns()
        return float(depths[np.searchsorted(times, since_ms) :].sum())

    def after(self, after_ms: int) -> list[tuple[int, float]]:
        """Times [ms] and depths [mm] after a time, in order."""
        times, depths = self._columns()
        first = np.searchsorted(times, after_ms, "right")
        return list(zip(times[first:].tolist(), depths[first:].tolist(), strict=True))

    def _columns(self) -> tuple[Array, Array]:
        """Times and depths in order; worked out once after each change."""
        found = self._sorted
        if found is None:
            items = list(self._depths.items())
            times = np.array([t for t, _ in items], dtype=np.int64)
            depths = np.array([d for _, d in items], dtype=np.float64)
            order = np.argsort(times)
            found = self._sorted = (times[order], depths[order])
        return found
