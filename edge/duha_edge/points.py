"""Registers to values and back; many points in few requests. Pure."""

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from duha_edge.errors import NotAllowed
from duha_edge.profiles import Point, Profile, TableName

MAX_WORDS = 125
WORTH_READING = 8
"""A hole of this many registers is cheaper to read than a second request."""

_CODES = {"u16": ">H", "s16": ">h", "u32": ">I", "s32": ">i", "f32": ">f"}


class Block(NamedTuple):
    """One read request."""

    table: TableName
    address: int
    length: int


def blocks(points: Iterable[Point], gap: int = WORTH_READING) -> tuple[Block, ...]:
    """Cover the points with few requests.

    Parameters
    ----------
    points : iterable of Point
        In any order; they may overlap.
    gap : int
        Largest hole [registers] that is read along.

    Returns
    -------
    tuple of Block
        Each of at most 125 registers; every point lies in exactly one.
    """
    made: list[Block] = []
    for point in sorted(points, key=lambda p: (p.table, p.address)):
        end = point.address + point.words
        last = made[-1] if made else None
        if last is not None and _joins(last, point, gap):
            length = max(last.length, end - last.address)
            made[-1] = last._replace(length=length)
        else:
            made.append(Block(point.table, point.address, point.words))
    return tuple(made)


def _joins(block: Block, point: Point, gap: int) -> bool:
    reach = block.address + block.length + gap
    length = point.address + point.words - block.address
    return block.table == point.table and point.address <= reach and length <= MAX_WORDS


def decode(point: Point, words: Mapping[int, int]) -> float | None:
    """The value of a point; None when it was not read or means "no value".

    Parameters
    ----------
    point : Point
        What to decode.
    words : mapping of int to int
        Registers of the point's table by address, never by position.
    """
    raw_words = [words.get(point.address + i) for i in range(point.words)]
    if None in raw_words:
        return None
    data = struct.pack(f">{point.words}H", *raw_words)
    if point.invalid is not None and int.from_bytes(data) == point.invalid:
        return None
    (raw,) = struct.unpack(_CODES[point.type], data)
    if point.bit is not None:
        return float(raw >> point.bit & 1)
    if raw != raw:  # noqa: PLR0124 - a float register may hold NaN: no value
        return None
    return float(round(raw * point.scale, 6))


def encode(point: Point, value: float) -> list[int]:
    """Registers that say `value`, without asking whether it may be written."""
    if point.bit is not None:
        return [(value >= 0.5) << point.bit]
    raw = value / point.scale
    number = raw if point.type == "f32" else round(raw)
    data = struct.pack(_CODES[point.type], number)
    return list(struct.unpack(f">{point.words}H", data))


def encode_write(profile: Profile, quantity: str, value: float) -> tuple[int, int]:
    """Address and register for a write.

    Raises
    ------
    NotAllowed
        The profile does not let the quantity, or this value of it, be written.
    """
    point = profile.point_of(quantity)
    if point is None or point.write is None or point.table != "holding":
        raise NotAllowed(f"profile {profile.name} does not let {quantity} be written")
    if not point.write.low <= value <= point.write.high:
        raise NotAllowed(
            f"{quantity} = {value} is outside {point.write.low} to {point.write.high}"
        )
    words = encode(point, value)
    return point.address, words[0]
