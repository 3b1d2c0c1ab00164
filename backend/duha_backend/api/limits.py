"""How much whoever asks may take: requests, sign-ins, exports, streams, connections."""

import contextlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from duha_backend.errors import TooMany


@dataclass(frozen=True)
class Limits:
    """Limits of the API.

    Attributes
    ----------
    requests_per_s, burst : float
        Of one session, token or, before anybody has signed in, address.
    failed_sign_ins : int
        Of one address in a minute.
    exports, streams, all_streams : int
        At a time: files for one asker, event streams of one session, and of all.
    connections, waiting : int
        Open at a time, and of one address those of which no request is under way.
    header_s, body_s, write_s : float
        Until a request's header is there; without a byte of its body; without a byte of
        the answer taken [s].
    body_bytes : int
        The largest body; `uploads` are larger.
    trusted_proxies : tuple of str
        Addresses whose X-Forwarded-For and X-Forwarded-Proto are believed.
    """

    requests_per_s: float = 50.0
    burst: float = 500.0
    failed_sign_ins: int = 10
    exports: int = 2
    streams: int = 4
    all_streams: int = 500
    connections: int = 1000
    waiting: int = 100
    header_s: float = 10.0
    body_s: float = 30.0
    write_s: float = 60.0
    body_bytes: int = 1 << 20
    trusted_proxies: tuple[str, ...] = ()


class Buckets:
    """Token buckets, one for each asker; those that asked long ago are forgotten.

    Parameters
    ----------
    per_s, burst : float
        How many come back in a second, and how many there are at most.
    source : callable
        A monotonic clock [s].
    """

    MOST = 10_000

    def __init__(
        self, per_s: float, burst: float, source: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s = per_s
        self._burst = burst
        self._source = source
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """How long until there is one to take [s]; 0 when there is one now."""
        left = self._now(key)
        return 0.0 if left >= 1 else (1 - left) / self._per_s

    def take(self, key: str) -> None:
        """Take one.

        Raises
        ------
        TooMany
            There is none left; says when to come again.
        """
        if wait := self.wait_s(key):
            raise TooMany("too many requests; ask more slowly", wait)
        self._left[key] = (self._now(key) - 1, self._source())
        self._left.move_to_end(key)
        while len(self._left) > self.MOST:
            self._left.popitem(last=False)

    def _now(self, key: str) -> float:
        left, then = self._left.get(key, (self._burst, 0.0))
        return min(self._burst, left + (self._source() - then) * self._per_s)


class Slots:
    """Places for what takes a while: a few for each asker, and a number for all."""

    def __init__(self, what: str, everybody: int) -> None:
        self._what = what
        self._everybody = everybody
        self._taken: Counter[str] = Counter()

    @contextlib.contextmanager
    def taken(self, key: str, most: int) -> Iterator[None]:
        """Hold a place.

        Raises
        ------
        TooMany
            All places of this asker, or of all, are taken.
        """
        if self._taken[key] >= most or self._taken.total() >= self._everybody:
            raise TooMany(f"too many {self._what} at a time", 5.0)
        self._taken[key] += 1
        try:
            yield
        finally:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]
