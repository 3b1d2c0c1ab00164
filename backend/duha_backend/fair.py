"""A waiting line for messages that no sender can fill for the others. Pure.

Each controller waits in a queue of its own and the queues are served in turn, so that
one that floods waits for itself. Bytes are bounded for each controller and in all; when
too much waits in all, the longest queue gives way.
"""

from collections import OrderedDict, deque

OVERHEAD = 500
"""What a waiting message costs beside its payload [bytes]."""
MOST_STRANGERS = 1000
"""Unregistered controllers whose messages are taken."""
FORGOTTEN_S = 86_400.0
"""How long an unregistered controller keeps its place after its last message [s]."""

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


class Strangers:
    """Unregistered controllers that are taken notice of: a bounded number.

    What the others send costs nothing: it is not taken, and waits where it comes from
    until they are registered.
    """

    def __init__(self) -> None:
        self._heard: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._heard)

    def admit(self, name: str, now_s: float) -> bool:
        """Whether a controller may send, at a time [s]."""
        if name not in self._heard and len(self._heard) >= MOST_STRANGERS:
            silent, heard_s = next(iter(self._heard.items()))
            if now_s - heard_s < FORGOTTEN_S:
                return False
            del self._heard[silent]
        self._heard[name] = now_s
        self._heard.move_to_end(name)
        return True


class FairQueue:
    """Queues of messages, one for each controller, served in turn."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
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
        name = message[0]
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
        return message
