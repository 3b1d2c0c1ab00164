"""What the embedded store remembers of the batches that it holds. Pure.

A batch's number never stands for its content: what is passed over has the content of a
batch that was stored a moment ago, to the last byte. Everything else is stored: appended
where its times lie outside all times of its controller that are stored, else compared
reading by reading. The numbers are kept only to notice a number that comes again with other
content: an outbox put back from an older copy, or a second sender under the same name.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import numpy as np

from duha_backend.readings import Frame, length
from duha_backend.validate import Examined
from duha_contract.messages import Batch

Line = tuple[str, str, int, int, str, int, int]
"""Controller, outbox, first and last number, kind, newest and oldest time [ms]."""
Key = tuple[str, str]
Span = tuple[int, int]

NEAR_MS = 3_600_000
"""Times that are nearer to each other than this belong to one span [ms]."""
MOST_SPANS = 8
"""Spans of one controller and kind; more are joined where the gap is smallest."""
MOST_RANGES = 64
"""Ranges of numbers of one outbox; the lowest are forgotten."""
MOST_KEYS = 100_000
"""Controllers (with a kind, or an outbox) that are remembered one by one."""
MOST_RECENT = 100_000
"""Batches whose content is remembered."""


@dataclass
class Sorted:
    """Batches that have to be stored, by the way in which they are.

    Attributes
    ----------
    fresh, known : list of Examined
        Those that are appended, and those whose readings are compared with what is stored.
    repeated : set of int
        Positions in `known` of batches whose number is held already.
    reused : list of str
        Controllers of fresh batches whose number is held already.
    """

    fresh: list[Examined] = field(default_factory=list)
    known: list[Examined] = field(default_factory=list)
    repeated: set[int] = field(default_factory=set)
    reused: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    digests: dict[bytes, None] = field(default_factory=dict)


class Held:
    """Times, numbers and, of the last batches, the content that the store holds."""

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self._spans: dict[Key, list[Span]] = {}
        self._elsewhere: dict[str, list[Span]] = {}
        """Of each kind, the times of controllers that are not remembered one by one."""
        self._ranges: dict[Key, list[list[int]]] = {}
        self._recent: dict[bytes, None] = {}
        self.written = 0
        self._add(sorted(lines, key=lambda line: (line[2], line[6])))

    def sort(self, messages: Sequence[Examined]) -> Sorted:
        """Decide how each batch is stored; a repetition of the last ones is left out."""
        found = Sorted()
        staged: dict[Key, list[Span]] = {}
        numbers: set[tuple[str, str, int]] = set()
        for message in messages:
            batch = message.batch
            if batch is None or not message.tables:
                continue
            digest = fingerprint(message)
            if digest in self._recent or digest in found.digests:
                continue
            found.digests[digest] = None
            name = (message.controller, batch.outbox, batch.seq)
            again = name in numbers or self.has(*name)
            numbers.add(name)
            lines = _lines(message, batch)
            found.lines += lines
            if self._is_new(message, lines, staged):
                found.fresh.append(message)
                found.reused += [message.controller] * again
            else:
                found.repeated |= {len(found.known)} if again else set()
                found.known.append(message)
        return found

    def keep(self, stored: Sorted) -> None:
        """Remember batches that are committed."""
        self._add(stored.lines)
        self._recent.update(stored.digests)
        _forget(self._recent, MOST_RECENT)

    def has(self, controller: str, outbox: str, seq: int) -> bool:
        """Whether the number of a batch is held."""
        ranges = self._ranges.get((controller, outbox), [])
        i = bisect_right(ranges, seq, key=lambda r: r[0]) - 1
        return i >= 0 and seq <= ranges[i][1]

    def lines(self) -> list[Line]:
        """All that has to outlive the process, in as few lines as it takes."""
        ranges: list[Line] = [
            (controller, outbox, first, last, "", -1, 0)
            for (controller, outbox), found in self._ranges.items()
            for first, last in found
        ]
        spans: list[Line] = [
            (controller, "", 0, -1, kind, newest, oldest)
            for (controller, kind), found in self._spans.items()
            for oldest, newest in found
        ]
        elsewhere: list[Line] = [
            ("", "", 0, -1, kind, newest, oldest)
            for kind, found in self._elsewhere.items()
            for oldest, newest in found
        ]
        return ranges + spans + elsewhere

    def _is_new(
        self, message: Examined, lines: list[Line], staged: dict[Key, list[Span]]
    ) -> bool:
        """Whether no reading of a batch can be stored already; notes its times."""
        new = True
        for table, line in zip(message.tables, lines, strict=True):
            key, span = (message.controller, table.kind), (line[6], line[5])
            if key not in staged:
                elsewhere = self._elsewhere.get(table.kind, [])
                staged[key] = list(self._spans.get(key, elsewhere))
            new &= not meets(staged[key], span) and _distinct(table.values)
            cover(staged[key], span)
        return new

    def _add(self, lines: Iterable[Line]) -> None:
        for controller, outbox, first, last, kind, newest, oldest in lines:
            self.written += 1
            if first <= last:
                ranges = self._ranges.setdefault((controller, outbox), [])
                include(ranges, first, last)
                del ranges[:-MOST_RANGES]
            if kind and controller:
                key = (controller, kind)
                if key not in self._spans:
                    self._spans[key] = list(self._elsewhere.get(kind, []))
                cover(self._spans[key], (oldest, newest))
            elif kind:
                cover(self._elsewhere.setdefault(kind, []), (oldest, newest))
        _forget(self._ranges, MOST_KEYS)
        for (_, kind), spans in _forget(self._spans, MOST_KEYS):
            for span in spans:
                cover(self._elsewhere.setdefault(kind, []), span)


def fingerprint(message: Examined) -> bytes:
    """Stand for the content of a batch: who sent it and every value that is to be stored."""
    if message.digest and not message.rejects:  # all of the bytes is stored
        return message.digest[:16] + message.controller.encode()
    found = hashlib.sha256(message.controller.encode())
    for table in message.tables:
        found.update(repr((table.kind, len(table), list(table.values))).encode())
        for column in table.values.values():
            if column.dtype == object:
                found.update("\0".join(column.tolist()).encode())
            else:
                found.update(np.ascontiguousarray(column).data)
    return found.digest()[:16]


def meets(spans: Sequence[Span], span: Span) -> bool:
    """Whether a span has an instant in common with one of some spans."""
    return any(first <= span[1] and span[0] <= last for first, last in spans)


def cover(spans: list[Span], span: Span) -> None:
    """Add a span to ascending, disjoint ones; those near each other become one."""
    if spans and spans[-1][0] <= span[0] <= spans[-1][1] + NEAR_MS:
        spans[-1] = (spans[-1][0], max(spans[-1][1], span[1]))
        return
    joined: list[Span] = []
    for first, last in sorted([*spans, span]):
        if joined and first <= joined[-1][1] + NEAR_MS:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    while len(joined) > MOST_SPANS:
        pauses = [later[0] - earlier[1] for earlier, later in pairwise(joined)]
        i = pauses.index(min(pauses))
        joined[i : i + 2] = [(joined[i][0], joined[i + 1][1])]
    spans[:] = joined


def include(ranges: list[list[int]], first: int, last: int) -> None:
    """Add a range to ascending, disjoint ones, joining neighbours."""
    i = bisect_right(ranges, first, key=lambda r: r[0])
    if i and ranges[i - 1][1] >= first - 1:
        i -= 1
        ranges[i][1] = max(ranges[i][1], last)
    else:
        ranges.insert(i, [first, last])
    while i + 1 < len(ranges) and ranges[i + 1][0] <= ranges[i][1] + 1:
        ranges[i][1] = max(ranges[i][1], ranges.pop(i + 1)[1])


def _lines(message: Examined, batch: Batch) -> list[Line]:
    """Lines of the book of batches, one for each table."""
    name = (message.controller, batch.outbox, batch.seq, batch.seq)
    times = [(table.kind, table.values["ts"]) for table in message.tables]
    return [(*name, kind, int(ts.max()), int(ts.min())) for kind, ts in times]


def _distinct(values: Frame) -> bool:
    return len(set(values["device"].tolist())) == length(values)


def _forget(known: dict[Any, Any], most: int) -> list[tuple[Any, Any]]:
    """Take the oldest entries out of what has become too much."""
    keys = list(islice(known, max(0, len(known) - most)))
    return [(key, known.pop(key)) for key in keys]
