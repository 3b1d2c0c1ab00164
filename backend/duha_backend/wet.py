"""Wet roads: from the tips of gauges to a condition that raises the light.

A first rule, the same for every road: wet while the nearest gauge with fresh data has
measured `WET_MM` within `WET_WITHIN_MS`, and for `WET_HOLD_MS` after the last such tip.
"""

from duha_backend.live import Controller, Live
from duha_contract.lighting import Condition

WET_MM = 0.4
WET_WITHIN_MS = 30 * 60_000
WET_HOLD_MS = 45 * 60_000
HOLD_STEP_MS = 10 * 60_000
RAIN_STALE_MS = 15 * 60_000


class WetRoads:
    """Which cabinets have wet roads; `conditions` by cabinet."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.conditions: dict[str, tuple[Condition, ...]] = {}

    def weigh(self, now: int) -> bool:
        """Work out which cabinets have wet roads; True when that has changed."""
        before = self.conditions
        after = {
            controller.id: condition
            for controller in self._live.controllers.values()
            if (condition := self._wet(controller, now)) is not None
        }
        self.conditions = after
        return before != after

    def _wet(self, controller: Controller, now: int) -> tuple[Condition, ...] | None:
        """The wet-road condition of a cabinet, kept for a while after the last tip.

        A city whose gauges are all silent gets the normal level: a broken sensor
        must never make a street darker.
        """
        standing = [c for c in self.conditions.get(controller.id, ()) if c.end > now]
        gauges = self._fresh_gauges(controller.id, now)
        if not gauges:
            return (
                _extended(standing, now, "no rain data")
                if self._lost_rain(now)
                else None
            )
        nearest = gauges[0]
        fallen = self._live.rain_since(nearest, now - WET_WITHIN_MS)
        if fallen < WET_MM - 1e-9:
            return tuple(standing) or None
        last = max(ts for ts, _ in self._live.rain[nearest])
        return _extended(standing, last, nearest)

    def _fresh_gauges(self, cabinet: str, now: int) -> list[str]:
        """Gauges with fresh data, the nearest to a cabinet first."""
        home = self._live.assets.get(cabinet)
        found = []
        for gauge in self._live.rain:
            age = self._live.age_ms(gauge, now)
            asset = self._live.assets.get(gauge)
            fresh = age is not None and age <= RAIN_STALE_MS
            if home is not None and asset is not None and fresh:
                distance = (asset.latitude - home.latitude) ** 2
                distance += (0.65 * (asset.longitude - home.longitude)) ** 2
                found.append((distance, gauge))
        return [gauge for _, gauge in sorted(found)]

    def _lost_rain(self, now: int) -> bool:
        """Whether there are gauges, and all have been silent for long."""
        ages = [self._live.age_ms(gauge, now) for gauge in self._live.rain]
        return bool(ages) and all(a is not None and a > RAIN_STALE_MS for a in ages)


def _extended(
    standing: list[Condition], since: int, detail: str
) -> tuple[Condition, ...]:
    """A wet-road condition that holds on after `since`; moved only in large steps.

    A document that changed with every tip would be sent with every tip.
    """
    end = since + WET_HOLD_MS
    if standing and end - standing[0].end < HOLD_STEP_MS:
        return tuple(standing)
    start = standing[0].start if standing else since
    return (Condition("wet_road", start, end, detail),)
