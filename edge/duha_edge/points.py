"""Registers to values and back; many points in few requests. Pure."""

import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from duha_edge.errors import NotAllowed
from duha_edge.profiles import BITS, Fence, Point, TableName

MAX_WORDS = 125
MAX_BITS = 2000
WORTH_READING = 8
"""A hole of this many registers is cheaper to read than a second request."""

_CODES = {
    "u16": ">H", "s16": ">h", "u32": ">I", "s32": ">i", "u64": ">Q", "s64": ">q",
    "f32": ">f",
}  # fmt: skip


class Block(NamedTuple):
    """One read request."""

    table: TableName
    address: int
    length: int


def worth_reading(baud: int, turnaround_s: float, bits: int = 11) -> int:
    """Largest hole [registers] that is cheaper to read than a second request.

    A request more costs 13 characters of frame, two silences of 3.5 characters (1.75 ms
    above 19200 baud) and the turnaround of the device; a register more costs two
    characters. Frames and silences: MODBUS over Serial Line V1.02, 2.5.1.

    Parameters
    ----------
    baud : int
        Line speed [bit/s].
    turnaround_s : float
        Time until the device answers [s].
    bits : int
        Bits of a character on the line, 11 with parity or two stop bits, else 10.
    """
    character = bits / baud
    silence = 3.5 * character if baud <= 19_200 else 0.00175
    request = 13 * character + 2 * silence + turnaround_s
    return min(MAX_WORDS, int(request / (2 * character)))


def blocks(
    points: Iterable[Point],
    gap: int = WORTH_READING,
    *,
    fences: Iterable[Fence] = (),
    alone: bool = False,
    max_words: int = MAX_WORDS,
    starts: Collection[tuple[TableName, int]] = (),
) -> tuple[Block, ...]:
    """Cover the points with few requests.

    Parameters
    ----------
    points : iterable of Point
        In any order; they may overlap.
    gap : int
        Largest hole [registers] that is read along; bits are a sixteenth of it.
    fences : iterable of Fence
        Addresses that no request may touch, unless a point lies there itself.
    alone : bool
        One request for each point.
    max_words : int
        Most registers in one request.
    starts : collection of (table, address)
        Where a request must begin anew, because a device refused what covered it.

    Returns
    -------
    tuple of Block
        Every point lies in exactly one of them, unless points overlap.
    """
    fences = tuple(fences)
    made: list[Block] = []
    for point in sorted(set(points), key=lambda p: (p.table, p.address, -p.words)):
        end = point.address + point.words
        last = made[-1] if made else None
        inside = last is not None and _holds(last, point)
        if last is not None and inside and not alone:
            continue
        anew = alone or (point.table, point.address) in starts
        if last is None or anew or not _joins(last, point, gap, max_words, fences):
            made.append(Block(point.table, point.address, point.words))
        else:
            made[-1] = last._replace(length=end - last.address)
    return tuple(made)


def _holds(block: Block, point: Point) -> bool:
    end = point.address + point.words
    return (
        block.table == point.table
        and block.address <= point.address
        and end <= block.address + block.length
    )


def _joins(
    block: Block, point: Point, gap: int, max_words: int, fences: tuple[Fence, ...]
) -> bool:
    """Whether one request may cover a block and the point after it."""
    if block.table != point.table:
        return False
    bits = point.table in BITS
    hole_from, hole_to = block.address + block.length, point.address - 1
    length = point.address + point.words - block.address
    fenced = any(
        f.table == point.table and f.first <= hole_to and f.last >= hole_from
        for f in fences
    )
    return (
        not fenced
        and hole_to - hole_from + 1 <= (16 * gap if bits else gap)
        and length <= (MAX_BITS if bits else min(max_words, MAX_WORDS))
    )


def holes(block: Block, points: Iterable[Point]) -> tuple[Fence, ...]:
    """Fences around what a request read along: what a device that refused it may mean."""
    taken = {
        point.address + i
        for point in points
        if point.table == block.table
        for i in range(point.words)
    }
    found: list[Fence] = []
    for address in range(block.address, block.address + block.length):
        if address in taken:
            continue
        if found and found[-1].last == address - 1:
            found[-1] = Fence(block.table, found[-1].first, address)
        else:
            found.append(Fence(block.table, address, address))
    return tuple(found)


def decode(point: Point, words: Mapping[int, int]) -> float | None:
    """The value of a point; None when it was not read or means "no value".

    Parameters
    ----------
    point : Point
        What to decode.
    words : mapping of int to int
        Registers (or bits) of the point's table by address, never by position.
    """
    raw_words = [words.get(point.address + i) for i in range(point.words)]
    if None in raw_words:
        return None
    if point.type == "bit":
        return float(bool(raw_words[0]))
    data = _ordered(struct.pack(f">{point.words}H", *raw_words), point.order)
    if int.from_bytes(data) in point.invalid:
        return None
    (raw,) = struct.unpack(_CODES[point.type], data)
    if point.bit is not None:
        return float(raw >> point.bit & 1)
    if raw != raw:  # noqa: PLR0124 - a float register may hold NaN: no value
        return None
    return float(round(raw * point.scale + point.offset, 6))


def decoder(point: Point) -> Callable[[Mapping[int, int]], float | None]:
    """What `decode` does for one point, made ready for being done often.

    The whole numbers of one and two registers, which are most of what devices say, are
    put together by arithmetic; everything else takes the long way.
    """
    if point.type not in {"u16", "s16", "u32", "s32"} or point.order[0] in "BD":
        return lambda words: decode(point, words)
    step = 1 if point.order == "ABCD" else -1
    high = point.address if step == 1 else point.address + point.words - 1
    low = high + step if point.words == 2 else None
    sign = 1 << (16 * point.words - 1) if point.type[0] == "s" else 0
    invalid, bit, scale, offset = point.invalid, point.bit, point.scale, point.offset
    whole = (scale, offset) == (1.0, 0.0)

    def value(words: Mapping[int, int]) -> float | None:
        raw = words.get(high)
        if raw is None:
            return None
        if low is not None:
            rest = words.get(low)
            if rest is None:
                return None
            raw = raw << 16 | rest
        if raw in invalid:
            return None
        if bit is not None:
            return float(raw >> bit & 1)
        if raw & sign:
            raw -= sign << 1
        return float(raw) if whole else float(round(raw * scale + offset, 6))

    return value


def encode(point: Point, value: float) -> list[int]:
    """Registers that say `value`, without asking whether it may be written."""
    if point.type == "bit":
        return [int(value >= 0.5)]
    if point.bit is not None:
        return [(value >= 0.5) << point.bit]
    raw = (value - point.offset) / point.scale
    number = raw if point.type == "f32" else round(raw)
    data = _ordered(struct.pack(_CODES[point.type], number), point.order)
    return list(struct.unpack(f">{point.words}H", data))


def _ordered(data: bytes, order: str) -> bytes:
    """Bytes of a value between the order of a device and high byte first; both ways."""
    words = [data[i : i + 2] for i in range(0, len(data), 2)]
    if order in {"CDAB", "DCBA"}:
        words.reverse()
    if order in {"BADC", "DCBA"}:
        words = [word[::-1] for word in words]
    return b"".join(words)


class RegisterWrite(NamedTuple):
    """One write: where, what, by which function, and how it is confirmed."""

    address: int
    word: int
    function: int
    verify: bool
    fade_s: float


def register_write(
    point: Point | None, profile: str, quantity: str, value: float
) -> RegisterWrite:
    """The write that brings a quantity to a value.

    Raises
    ------
    NotAllowed
        The profile does not let the quantity, or this value of it, be written.
    """
    if point is None or point.write is None or point.table != "holding":
        raise NotAllowed(f"profile {profile} does not let {quantity} be written")
    rule = point.write
    if not rule.allows(value):
        raise NotAllowed(f"{quantity} = {value} is outside {rule.low} to {rule.high}")
    (word,) = encode(point, value)
    return RegisterWrite(point.address, word, rule.function, rule.verify, rule.fade_s)
