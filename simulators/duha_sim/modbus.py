"""The device side of Modbus: pure answers, and ports that speak them at a real pace.

Written apart from the agent's library on purpose: two independent ends find each
other's faults, and trouble (late, garbled, missing answers) is made on the wire.

Source of the formats: MODBUS Application Protocol V1.1b3 and MODBUS over Serial
Line V1.02 (modbus.org).
"""

import asyncio
import contextlib
import os
import ssl
import struct
import termios
import tty
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
READ_COILS, READ_DISCRETE, READ_HOLDING, READ_INPUT = 1, 2, 3, 4
WRITE_ONE, WRITE_MANY = 6, 16
_TABLE = {
    READ_COILS: "coil",
    READ_DISCRETE: "discrete",
    READ_HOLDING: "holding",
    READ_INPUT: "input",
}


class Refusal(Exception):  # noqa: N818 - the protocol calls it an exception response
    """A Modbus exception response."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code}")
        self.code = code


class Unit(Protocol):
    """The registers of one device."""

    def read(self, table: str, address: int, count: int) -> list[int]:
        """Values of "holding", "input", "coil" or "discrete"; Refusal where there is none."""

    def write(self, address: int, words: list[int]) -> None:
        """Write holding registers; raises Refusal where they cannot be written."""


def answer(unit: Unit, pdu: bytes) -> bytes:
    """The response PDU to a request PDU."""
    try:
        return _answer(unit, pdu)
    except Refusal as refusal:
        return bytes((pdu[0] | 0x80, refusal.code))
    except struct.error:
        return bytes((pdu[0] | 0x80, ILLEGAL_VALUE))


def _answer(unit: Unit, pdu: bytes) -> bytes:
    function = pdu[0]
    if function in {READ_COILS, READ_DISCRETE}:
        address, count = struct.unpack(">HH", pdu[1:])
        if not 1 <= count <= 2000:
            raise Refusal(ILLEGAL_VALUE)
        bits = unit.read(_TABLE[function], address, count)
        packed = sum(bool(bit) << i for i, bit in enumerate(bits))
        size = -(-count // 8)
        return bytes((function, size)) + packed.to_bytes(size, "little")
    if function in {READ_HOLDING, READ_INPUT}:
        address, count = struct.unpack(">HH", pdu[1:])
        if not 1 <= count <= 125:
            raise Refusal(ILLEGAL_VALUE)
        words = unit.read(_TABLE[function], address, count)
        return struct.pack(f">BB{count}H", function, 2 * count, *words)
    if function == WRITE_ONE:
        address, word = struct.unpack(">HH", pdu[1:])
        unit.write(address, [word])
        return pdu
    if function == WRITE_MANY:
        address, count, size = struct.unpack(">HHB", pdu[1:6])
        if size != 2 * count or not 1 <= count <= 123:
            raise Refusal(ILLEGAL_VALUE)
        unit.write(address, list(struct.unpack(f">{count}H", pdu[6:])))
        return pdu[:5]
    raise Refusal(ILLEGAL_FUNCTION)


def crc(data: bytes) -> bytes:
    """CRC-16/MODBUS of a frame, low byte first."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
    return struct.pack("<H", value)


def frame_length(buffer: bytes) -> int | None:
    """Length of the RTU request at the head of a buffer; None when not yet known."""
    if len(buffer) < 2:
        return None
    if buffer[1] in {15, WRITE_MANY}:
        return 9 + buffer[6] if len(buffer) > 6 else None
    return 8


Respond = Callable[[int, bytes], Awaitable[bytes | None]]
"""Unit and request PDU to response PDU; None where nobody answers."""
Spoil = Callable[[int, bytes], bytes]
"""Lets trouble change the bytes of a frame before they go out."""


class TcpPort:
    """A Modbus TCP server on 127.0.0.1; every unit id behind one port.

    With a `tls` context it is Modbus/TCP Security: the same frames within TLS.
    """

    def __init__(
        self,
        respond: Respond,
        spoil: Spoil,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._respond = respond
        self._spoil = spoil
        self.port = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen; `port` says where."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and hang up."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.close()
            await self._server.wait_closed()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._open.add(writer)
        try:
            await self._converse(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away, as clients do
        finally:
            self._open.discard(writer)
            writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            head = await reader.readexactly(7)
            transaction, protocol, length, unit = struct.unpack(">HHHB", head)
            if protocol != 0 or not 2 <= length <= 254:
                return
            pdu = await reader.readexactly(length - 1)
            response = await self._respond(unit, pdu)
            if response is None:
                continue
            frame = struct.pack(">HHHB", transaction, 0, len(response) + 1, unit)
            writer.write(self._spoil(unit, frame + response))
            await writer.drain()


class RtuTcpPort(TcpPort):
    """A serial device server: RTU frames over TCP, as they are on the line."""

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        buffer = b""
        while chunk := await reader.read(256):
            buffer += chunk
            length = frame_length(buffer)
            if length is None or len(buffer) < length:
                continue
            frame, buffer = buffer[:length], b""
            if crc(frame[:-2]) != frame[-2:]:
                continue
            response = await self._respond(frame[0], frame[1:-2])
            if response is not None and frame[0]:
                out = frame[:1] + response
                writer.write(self._spoil(frame[0], out + crc(out)))
                await writer.drain()


class RtuPort:
    """A Modbus RTU line over a pseudo-terminal, its bytes as slow as the line's.

    Parameters
    ----------
    path : Path
        A symbolic link to the terminal is put here; a client opens it like a port.
    baud : int
        Line speed [bit/s]; a character is 11 bits.
    turnaround_s : float
        Time that a device takes before it answers [s].
    """

    def __init__(
        self,
        respond: Respond,
        spoil: Spoil,
        path: Path,
        baud: int = 19_200,
        turnaround_s: float = 0.004,
    ) -> None:
        self._respond = respond
        self._spoil = spoil
        self.path = path
        self.character_s = 11 / baud
        self.silence_s = max(3.5 * self.character_s, 0.00175)
        self._turnaround_s = turnaround_s
        self._ends: tuple[int, int] | None = None
        self._task: asyncio.Task[None] | None = None
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def start(self) -> None:
        """Make the terminal and listen on it."""
        ours, theirs = os.openpty()
        tty.setraw(theirs, termios.TCSANOW)
        os.set_blocking(ours, False)
        self._ends = (ours, theirs)  # theirs stays open: clients may come and go
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(theirs))
        asyncio.get_running_loop().add_reader(ours, self._readable, ours)
        self._task = asyncio.create_task(
            self._serve(ours), name=f"rtu {self.path.name}"
        )

    async def close(self) -> None:
        """Take the terminal away."""
        if self._ends is None or self._task is None:
            return
        asyncio.get_running_loop().remove_reader(self._ends[0])
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        for end in self._ends:
            os.close(end)
        self.path.unlink(missing_ok=True)

    def _readable(self, end: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._arrived.put_nowait(os.read(end, 512))

    async def _serve(self, end: int) -> None:
        """Take requests as they come, at the pace of the line.

        A terminal hands bytes over at once; a line takes its time for them. Waits go to
        instants, not for spans, and what one wait was late the next frame makes up for:
        in the long run the pace is exact although timers are coarse.
        """
        loop = asyncio.get_running_loop()
        buffer, began, late = b"", 0.0, 0.0
        while True:
            try:
                async with asyncio.timeout(0.05 if buffer else None):
                    chunk = await self._arrived.get()
            except TimeoutError:
                buffer = b""  # a silence ends a frame, whole or not
                continue
            if not buffer:
                began = loop.time() - late
            buffer += chunk
            length = frame_length(buffer)
            if length is None or len(buffer) < length:
                continue
            frame, buffer, late = buffer[:length], b"", 0.0
            read_at = began + length * self.character_s
            if crc(frame[:-2]) == frame[-2:]:
                late = await self._reply(end, frame, read_at)

    async def _reply(self, end: int, frame: bytes, read_at: float) -> float:
        """Answer a request that was read at an instant; returns how late it was [s]."""
        loop = asyncio.get_running_loop()
        await _until(read_at)
        unit = frame[0]
        response = await self._respond(unit, frame[1:-2])
        if response is None or unit == 0:
            return 0.0
        # A device that thought for longer than its turnaround answers when it is done.
        at = max(read_at + self._turnaround_s, loop.time() - 0.002) + self.silence_s
        out = bytes((unit,)) + response
        out = self._spoil(unit, out + crc(out))
        for start in range(0, len(out), 16):
            piece = out[start : start + 16]
            at += len(piece) * self.character_s
            await _until(at)
            os.write(end, piece)
        late = max(0.0, loop.time() - at)
        return min(late, 0.002) - self.silence_s


async def _until(instant: float) -> None:
    """Sleep until an instant of the loop's clock."""
    await asyncio.sleep(max(0.0, instant - asyncio.get_running_loop().time()))
