"""Acknowledgements, gathered and sent; a broker that hangs holds up no commit."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from duha_contract.messages import Ack
from duha_runtime.supervision import Supervisor

MOST_OWED = 10_000
"""Controllers that are asked to send again, and outboxes with acknowledgements to send."""
MOST_RANGES = 1000
SENT_AT_ONCE = 256

Acknowledge = Callable[[str, Ack], Awaitable[None]]
Range = tuple[int, int]


class Acks:
    """What controllers are told of their batches.

    Parameters
    ----------
    acknowledge : callable
        Sends an acknowledgement to a controller.
    supervisor : Supervisor
        Is told of failures.
    """

    def __init__(self, acknowledge: Acknowledge, supervisor: Supervisor) -> None:
        self._acknowledge = acknowledge
        self._supervisor = supervisor
        self._due: dict[tuple[str, str], list[int]] = {}
        self._missed: set[str] = set()
        self._asking = False
        self._to_send = asyncio.Event()

    def owe(self, controller: str, outbox: str, seq: int) -> None:
        """Acknowledge a batch soon; what does not fit is sent by the edge again."""
        if len(self._due) < MOST_OWED:
            self._due.setdefault((controller, outbox), []).append(seq)
            self._to_send.set()

    def missed(self, controller: str) -> None:
        """Note a controller whose batch was not taken."""
        if controller and len(self._missed) < MOST_OWED:
            self._missed.add(controller)

    def ask_again(self) -> None:
        """Ask for what was missed, instead of waiting until it comes by itself."""
        self._asking = True
        self._to_send.set()

    async def run(self) -> None:
        """Send what is owed until cancelled."""
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            due, self._due = self._due, {}
            sending = [
                (controller, Ack(v=1, outbox=outbox, ranges=some))
                for (controller, outbox), seqs in due.items()
                for some in _pages(ranges(seqs))
            ]
            if self._asking:
                missed, self._missed, self._asking = self._missed, set(), False
                again = Ack(v=1, outbox="", resend=True)
                sending += [(controller, again) for controller in missed]
            for n in range(0, len(sending), SENT_AT_ONCE):
                some = (self._send(*one) for one in sending[n : n + SENT_AT_ONCE])
                await asyncio.gather(*some)

    async def _send(self, controller: str, ack: Ack) -> None:
        with self._supervisor.barrier("acknowledgement"):
            await self._acknowledge(controller, ack)


def _pages(found: tuple[Range, ...]) -> Iterable[tuple[Range, ...]]:
    """Ranges, as many together as one acknowledgement may hold."""
    return (found[n : n + MOST_RANGES] for n in range(0, len(found), MOST_RANGES))


def ranges(numbers: list[int]) -> tuple[Range, ...]:
    """Numbers as inclusive ranges, in order."""
    found: list[Range] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)
