"""Tells systemd that the agent is alive, for as long as its parts get on with their work."""

import os
import socket
import time
from collections.abc import Callable


class Pulse:
    """Parts report progress; a part that has not for longer than it may is stuck."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._due: dict[str, float] = {}

    def beat(self, part: str, within_s: float) -> None:
        """A part has got on, and will again within so many seconds."""
        self._due[part] = self._monotonic() + within_s

    def forget(self, part: str) -> None:
        """A part has ended, as it should."""
        self._due.pop(part, None)

    def stuck(self) -> list[str]:
        """Parts that are overdue."""
        now = self._monotonic()
        return [part for part, due in self._due.items() if due < now]


def notify(state: str) -> bool:
    """Say something to systemd (``READY=1``, ``WATCHDOG=1``); False without one.

    The protocol is that of sd_notify(3): one datagram to the socket that systemd names.
    """
    name = os.environ.get("NOTIFY_SOCKET")
    if not name:
        return False
    address = "\0" + name[1:] if name.startswith("@") else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        try:
            out.sendto(state.encode(), address)
        except OSError:
            return False
    return True


def watchdog_s() -> float | None:
    """How often systemd wants to hear [s]: half its limit; None without a watchdog."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    return int(limit) / 2e6 if limit.isdigit() else None
