"""Arithmetic of tip counters: no rain lost, none invented."""

from typing import Literal, NamedTuple

CounterEvent = Literal["none", "first", "rollover", "reset"]


class Increment(NamedTuple):
    """Tips between two readings of a counter, and what happened to it."""

    tips: int
    event: CounterEvent


def increment(
    previous: int | None, current: int, *, modulus: int, most: int
) -> Increment:
    """Tips between two readings of a counter that rolls over at `modulus`.

    A counter that went back has either rolled over or was reset (power loss, new
    gauge). It is a rollover when the tips that this implies are possible in the
    time between the readings; otherwise the counter began again at zero, and what
    it shows now has fallen since. A rise beyond what is possible is a replaced
    gauge: nothing can be said of it, so nothing is invented.

    Parameters
    ----------
    previous, current : int
        Raw readings; previous is None when there was none.
    modulus : int
        Number of states of the counter, 65536 for 16 bits.
    most : int
        Largest number of tips that can fall between the two readings.
    """
    if previous is None:
        return Increment(0, "first")
    rise = current - previous
    if rise >= 0:
        return Increment(rise, "none") if rise <= most else Increment(0, "reset")
    if rise + modulus <= most:
        return Increment(rise + modulus, "rollover")
    return Increment(current if current <= most else 0, "reset")


def possible_tips(seconds: float, mm_per_tip: float) -> int:
    """Largest number of tips that can fall in a time span.

    The bound is the envelope of the world's record falls, 422 mm times the hours to
    the power 0.475 (WMO-No. 1045, Manual on Estimation of Probable Maximum
    Precipitation): it grows slower than time, so that it neither takes a cloudburst
    of seconds for a new gauge nor, after a long silence, a new gauge for rain. One tip
    more is allowed for the water that was already in the bucket.
    """
    hours = max(0.0, seconds) / 3600
    return int(422.0 * hours**0.475 / mm_per_tip) + 1
