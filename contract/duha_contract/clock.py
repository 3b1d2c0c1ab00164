"""Time as an argument: one clock that may be shifted and sped up.

The contract reads no clock itself: a composition root hands in its source
(``time.time``). A demo or a test gives every process the same `Timeline`, so that
all of them live in the same, faster evening.
"""

from collections.abc import Callable
from dataclasses import dataclass

from duha_contract.errors import ContractError

TIMELINE_VARIABLE = "DUHA_TIMELINE"


@dataclass(frozen=True, slots=True)
class Timeline:
    """Maps real time to shown time: at `real` it shows `shown`, then runs at `rate`.

    Attributes
    ----------
    real, shown : float
        POSIX time [s].
    rate : float
        Shown seconds in one real second; 1 for operation.
    """

    real: float = 0.0
    shown: float = 0.0
    rate: float = 1.0

    def at(self, real: float) -> float:
        """Shown POSIX time [s] at a real POSIX time [s]."""
        return self.shown + (real - self.real) * self.rate

    def __str__(self) -> str:
        return f"{self.real!r}:{self.shown!r}:{self.rate!r}"

    @classmethod
    def parse(cls, text: str) -> "Timeline":
        """Read the form that `str` writes; empty text is the real time.

        Raises
        ------
        ContractError
            The text is not ``real:shown:rate`` with a positive rate.
        """
        if not text:
            return cls()
        try:
            real, shown, rate = (float(part) for part in text.split(":"))
        except ValueError:
            raise ContractError(f"{text!r} is no timeline: real:shown:rate") from None
        if rate <= 0:
            raise ContractError(f"the rate of a timeline is positive, not {rate}")
        return cls(real, shown, rate)


class Clock:
    """The one clock of a process."""

    def __init__(self, source: Callable[[], float], timeline: Timeline | None = None):
        self.source = source
        self.timeline = timeline or Timeline()

    def now(self) -> float:
        """Shown POSIX time [s]."""
        return self.timeline.at(self.source())

    def now_ms(self) -> int:
        """Shown POSIX time [ms], as the wire carries it."""
        return round(self.now() * 1000)

    def real_seconds(self, shown: float) -> float:
        """How long to sleep [s] for `shown` seconds of this clock."""
        return shown / self.timeline.rate
