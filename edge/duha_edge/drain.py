"""How much may be on its way to the backend, and how fast a backlog leaves. Pure."""

FULL_BYTES = 96 * 1024
"""A batch of a backlog, which is merged up to this size."""
SMALLEST_BYTES = 64 * 1024
LARGEST_BYTES = 2 * 2**20
SLOWEST_BYTES_S = 8_000
"""An uplink that is slower than this is as good as broken [bytes/s]."""


class Drain:
    """Lets a backlog through at a steady rate, never in a burst.

    Parameters
    ----------
    per_s : float
        Full batches a second; small ones count by their bytes.
    burst : int
        Most batches at one instant.
    """

    def __init__(self, per_s: float, burst: int = 16) -> None:
        self._bytes_s = per_s * FULL_BYTES
        self._burst = burst
        self._free_at = 0.0

    def allows(self, now: float) -> int:
        """How many batches may go at an instant [s]."""
        free = (now - self._free_at) * self._bytes_s
        return max(0, min(self._burst, int(free / FULL_BYTES) + 1)) if free >= 0 else 0

    def took(self, size: int, now: float) -> None:
        """So many bytes have gone."""
        window = self._burst * FULL_BYTES / self._bytes_s
        self._free_at = max(self._free_at, now - window) + size / self._bytes_s

    def wait_s(self, now: float) -> float:
        """Until the next one may go [s]."""
        return max(0.0, self._free_at - now)


class Window:
    """Bytes of a backlog that may be on their way, as the uplink turns out to bear.

    It grows with what is acknowledged and halves when something is late, as TCP's does:
    a modem of 64 kbit/s must not be given what a city network takes.
    """

    def __init__(self) -> None:
        self._bytes = 2 * SMALLEST_BYTES

    def room(self, on_the_way: int) -> int:
        """How many more full batches fit beside what is on its way [bytes]."""
        if not on_the_way:
            return max(1, self._bytes // FULL_BYTES)
        return max(0, (self._bytes - on_the_way) // FULL_BYTES)

    def acknowledged(self, size: int) -> None:
        """So many bytes have arrived."""
        self._bytes = min(LARGEST_BYTES, self._bytes + size)

    def late(self) -> None:
        """Something was not acknowledged in time, or the connection was lost."""
        self._bytes = max(SMALLEST_BYTES, self._bytes // 2)


def patience_s(on_the_way: int) -> float:
    """How much longer to wait for an answer because of what goes before it [s]."""
    return on_the_way / SLOWEST_BYTES_S
