"""A waiting line for messages that no sender can fill for the others. Pure.

Each controller waits in a queue of its own and the queues are served in turn, so that
one that floods waits for itself. Bytes are bounded for each controller and in all; when
too much waits in all, the longest queue gives way.
"""

from collections import OrderedDict, deque
from collections.abc import Callable

OVERHEAD = 500
"""What a waiting message costs beside its payload [bytes]."""
MOST_STRANGERS = 1000
"""Queues of unregistered controllers; more of them share one."""
_SHARED = ""

Message = tuple[str, bytes]
"""Controller and payload."""


class _Queue:
    """Messages of one controller, oldest first."""

    __slots__ = ("bytes", "messages")

    def __init__(self) -> None:
        self.bytes = 0
        self.messages: deque[Message] = deque()

    def append(self, message: Message) -> None:
        self.messages.append(message)
        self.bytes += size(message)

    def popleft(self) -> Message:
        message = self.messages.popleft()
        self.bytes -= size(message)
        return message

    def pop(self) -> Message:
        message = self.messages.pop()
        self.bytes -= size(message)
        return message


def size(message: Message) -> int:
    """What a waiting message costs [bytes]."""
    return len(message[1]) + OVERHEAD


class FairQueue:
    """Queues of messages, one for each controller, served in turn.

    Parameters
    ----------
    registered : callable
        Whether a controller is registered: it always has a queue of its own.
    """

    def __init__(self, registered: Callable[[str], bool]) -> None:
        self._registered = registered
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
        self._strangers: set[str] = set()
        self._bytes = 0
        self._messages = 0

    def __len__(self) -> int:
        return self._messages

    @property
    def bytes(self) -> int:
        """Bytes that wait, with the cost of keeping them."""
        return self._bytes

    def put(self, message: Message, most: int, most_each: int) -> list[Message]:
        """Add a message; returns what has to be dropped for it, perhaps itself.

        Parameters
        ----------
        most, most_each : int
            Most bytes in all, and of one controller.
        """
        name = self._name(message[0])
        mine = self._queues.get(name)
        cost, waiting = size(message), mine.bytes if mine else 0
        if waiting + cost > min(most, most_each):
            return [message]
        dropped: list[Message] = []
        while self._bytes + cost > most:
            longest = max(self._queues, key=lambda name: self._queues[name].bytes)
            if self._queues[longest].bytes < waiting + cost:
                return [*dropped, message]
            dropped.append(self._taken(longest, self._queues[longest].pop()))
        if name not in self._queues:
            self._queues[name] = _Queue()
            if name and not self._registered(name):
                self._strangers.add(name)
        self._queues[name].append(message)
        self._bytes += cost
        self._messages += 1
        return dropped

    def take(self, most: int, most_bytes: int) -> list[Message]:
        """The next messages, one of each controller in turn."""
        found: list[Message] = []
        taken = 0
        while self._queues and len(found) < most and taken < most_bytes:
            name = next(iter(self._queues))
            message = self._taken(name, self._queues[name].popleft())
            if name in self._queues:
                self._queues.move_to_end(name)
            found.append(message)
            taken += size(message)
        return found

    def _taken(self, name: str, message: Message) -> Message:
        self._bytes -= size(message)
        self._messages -= 1
        if not self._queues[name].messages:
            del self._queues[name]
            self._strangers.discard(name)
        return message

    def _name(self, controller: str) -> str:
        """Whose queue it is."""
        if controller in self._queues or self._registered(controller):
            return controller
        return controller if len(self._strangers) < MOST_STRANGERS else _SHARED
