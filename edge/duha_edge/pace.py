"""What a request costs on a line, learnt from the answers. Pure."""

from duha_edge.points import MAX_WORDS

FORGET = 0.99
ENOUGH = 20.0
CERTAIN = 3.0
MANY = 1000


class Pace:
    """Fits time = a + b × registers to the last hundred or so answers.

    A second request costs `a`, a register that is read along costs `b`: a hole of up to
    a / b registers is worth reading. On a serial line `b` is known from its speed; over a
    network it is fitted, because a gateway may hide a slow line, and taken for nothing
    while it is within three standard errors of it.

    Parameters
    ----------
    register_s : float or None
        Known cost of a register [s]; None to fit it.
    gap : int
        Largest hole [registers] worth reading before anything was measured.
    """

    def __init__(self, register_s: float | None, gap: int) -> None:
        self._register_s = register_s
        self.gap = gap
        self._seen: list[tuple[float, float]] = []
        self._n = self._x = self._y = self._xx = self._xy = self._yy = 0.0

    def saw(self, registers: float, seconds: float) -> None:
        """A read of so many registers was answered after so long."""
        self._seen.append((registers, seconds))
        if len(self._seen) >= MANY:
            self._fold()

    def _fold(self) -> None:
        """Take what was seen into the sums; once for many answers, since it is no hurry."""
        for registers, seconds in self._seen:
            self._add(registers, seconds)
        self._seen.clear()

    def _add(self, registers: float, seconds: float) -> None:
        self._n = FORGET * self._n + 1
        self._x = FORGET * self._x + registers
        self._y = FORGET * self._y + seconds
        self._xx = FORGET * self._xx + registers * registers
        self._xy = FORGET * self._xy + registers * seconds
        self._yy = FORGET * self._yy + seconds * seconds

    def settle(self) -> int:
        """The gap by what is known now; it moves only when it moves by a quarter."""
        self._fold()
        if self._n >= ENOUGH:
            found = self._fitted()
            if abs(found - self.gap) > max(2, self.gap / 4):
                self.gap = found
        return self.gap

    @property
    def request_s(self) -> float | None:
        """Cost of a request beyond its registers [s]; None before enough was measured."""
        if self._n < ENOUGH:
            return None
        return self._y / self._n - (self._slope() * self._x / self._n)

    def _fitted(self) -> int:
        slope = self._slope()
        request_s = self.request_s or 0.0
        if slope * MAX_WORDS <= request_s:
            return MAX_WORDS
        return max(0, int(request_s / slope))

    def _slope(self) -> float:
        """Cost of a register [s]; least squares where it is not known."""
        if self._register_s is not None:
            return self._register_s
        n = self._n
        spread = self._xx / n - (self._x / n) ** 2
        if spread < 0.25:  # all requests were of one length: nothing can be said
            return 0.0
        covariance = self._xy / n - self._x / n * self._y / n
        slope = covariance / spread
        rest = max(0.0, self._yy / n - (self._y / n) ** 2 - slope * covariance)
        error = (rest / (n * spread)) ** 0.5
        return slope if slope > CERTAIN * error else 0.0
