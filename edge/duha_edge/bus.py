"""One line of Modbus devices. The only module that knows pymodbus.

One request is in flight at a time; commands go before read-backs before polls.
Serial Modbus has no transaction number, so an answer that comes after its timeout
would be taken for the answer to the next question. Three things keep it from that:
after a timeout the line is listened out before anything else is asked; every answer
is checked for unit, function and length; and a unit that has missed a read is first
asked something of another length, so that an answer that is later still gives itself
away. A unit that stays silent is asked only now and then, so that one dead device
does not slow its whole line.
"""

import asyncio
import enum
import heapq
import itertools
import logging
import ssl
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)
from pymodbus.transport import CommParams, CommType
from serial.rs485 import RS485Settings

from duha_edge.errors import BusError, ConfigError, NoAnswer, Refused, WrongAnswer
from duha_edge.pace import Pace
from duha_edge.points import MAX_WORDS, Block, worth_reading
from duha_edge.profiles import BITS
from duha_edge.site import BusConfig, Rs485

logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # our own errors say more

SILENT_AFTER = 3
PROBE_EVERY_S = 20.0
RECONNECT_EVERY_S = 1.0
USUAL_TURNAROUND_S = 0.01
_FUNCTION = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
_QUESTION: dict[str, type[ModbusPDU]] = {
    "coil": ReadCoilsRequest,
    "discrete": ReadDiscreteInputsRequest,
    "holding": ReadHoldingRegistersRequest,
    "input": ReadInputRegistersRequest,
}


class Urgency(enum.IntEnum):
    """What goes first on the line."""

    COMMAND = 0
    VERIFY = 1
    POLL = 2


@dataclass
class _Health:
    """How a unit has answered lately.

    `misses` counts its silences in a row, `ask_again` is when a silent one may be asked
    next, `lost` the lengths of reads whose answers may still be on their way.
    """

    misses: int = 0
    ask_again: float = 0.0
    lost: set[int] = field(default_factory=set)


class _Turns:
    """Lets one at a time on the line, the most urgent first."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._taken = False

    async def take(self, urgency: Urgency) -> None:
        """Wait for a turn; whoever has taken it gives it back."""
        if not self._taken:
            self._taken = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()  # it was ours already
            raise

    def give(self) -> None:
        """Pass the turn on."""
        while self._waiting:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False


class Bus:
    """One line; `run` serves it until cancelled."""

    def __init__(
        self, config: BusConfig, monotonic: Callable[[], float] = time.monotonic
    ):
        self.config = config
        self._monotonic = monotonic
        self._turns = _Turns()
        self._health: dict[int, _Health] = {}
        self._listening_out = False
        self._head: bytes | None = None
        self._heard = 0.0
        self._tried = -RECONNECT_EVERY_S
        self._pace = _pace(config)
        self._client = _client(config, self._on_bytes)

    @property
    def silent_units(self) -> int:
        """How many units are asked only now and then."""
        return sum(h.misses >= SILENT_AFTER for h in self._health.values())

    @property
    def gap(self) -> int:
        """Largest hole [registers] that is worth reading, by the answers so far."""
        return self._pace.settle()

    @property
    def request_s(self) -> float | None:
        """Measured cost of a request beyond its registers [s]; None before it is known."""
        return self._pace.request_s

    async def read(
        self, unit: int, block: Block, urgency: Urgency = Urgency.POLL
    ) -> dict[int, int]:
        """Registers of a block by their address.

        Raises
        ------
        BusError
            NoAnswer, WrongAnswer or Refused; the message names bus, unit and block.
        """
        health = self._may_ask(unit)
        await self._turns.take(urgency)
        try:
            if self.config.pause_s or not self._client.connected:
                await self._connect(unit)
            if health.lost:
                await self._sound(unit, block, health)
            asked = self._monotonic()
            found = await self._read(unit, block)
            size = block.length / 16 if block.table in BITS else block.length
            self._pace.saw(size, self._monotonic() - asked)
        except (ModbusException, OSError, BusError) as error:
            if not isinstance(error, Refused) and self.config.serial:
                health.lost.add(block.length)
            raise await self._failed(health, unit, error) from None
        finally:
            self._turns.give()
        health.misses = 0
        return found

    async def write(
        self, unit: int, address: int, word: int, function: int = 6
    ) -> None:
        """Write one holding register by function 6 or 16; raises like `read`.

        Unit 0 of a serial line is every device of it: all obey and none answers.
        """
        if unit == 0:
            await self._broadcast(address, word, function)
            return
        health = self._may_ask(unit)
        await self._turns.take(Urgency.COMMAND)
        try:
            await self._connect(unit)
            answer = await self._ask(_write(unit, address, word, function))
            self._check(answer, unit, function)
            # An answer repeats the register (6), or says how many it was (16).
            said = answer.registers if function == 6 else [answer.count]
            if answer.address != address or said != [word if function == 6 else 1]:
                raise WrongAnswer(f"{self._named(unit)}: another write was confirmed")
        except (ModbusException, OSError, BusError) as error:
            raise await self._failed(health, unit, error) from None
        finally:
            self._turns.give()
        health.misses = 0

    async def _broadcast(self, address: int, word: int, function: int) -> None:
        """Write to every unit of a serial line, and give them time to obey."""
        await self._turns.take(Urgency.COMMAND)
        try:
            await self._connect(0)
            await self._ask(_write(0, address, word, function), silent=True)
            await asyncio.sleep(self.config.broadcast_s)
        except (ModbusException, OSError) as error:
            raise NoAnswer(f"{self._named(0)}: not sent: {error}") from None
        finally:
            self._turns.give()

    async def _ask(self, question: ModbusPDU, *, silent: bool = False) -> Any:
        """Send a question and wait for what comes; the turn is ours."""
        line = self._client.ctx
        question.transaction_id = line.getNextTID()
        frame = line.framer.buildFrame(question)
        return await self._exchange(
            frame, question.dev_id, question.transaction_id, silent=silent
        )

    async def _exchange(
        self, frame: bytes, unit: int, number: int, *, silent: bool = False
    ) -> Any:
        """Send a frame and wait for what comes.

        The library's own `execute` does the same behind a second lock and a second
        waiter, and writes down each frame for its log: on a fast network that costs a
        sixth of the rate.
        """
        line = self._client.ctx
        loop = asyncio.get_running_loop()
        line.recv_buffer = b""
        line.request_dev_id, line.request_transaction_id = unit, number
        answer = line.response_future = loop.create_future()
        if line.transport is None:
            raise NoAnswer(f"{self._named(unit)}: the connection was lost")
        line.transport.write(frame)  # type: ignore[attr-defined]
        if silent:
            return None
        limit = loop.call_later(self.config.timeout_s, _expire, answer)
        try:
            return await answer
        finally:
            limit.cancel()

    async def _ask_numbered(self, unit: int, block: Block) -> Any:
        """Ask for registers where frames are numbered: the bytes of the values, if well.

        The answer that is wanted is known to the byte but for its values; whatever else
        comes goes the library's way.
        """
        number, size = self._client.ctx.getNextTID(), 2 * block.length
        function = _FUNCTION[block.table]
        self._head = struct.pack(
            ">HHHBBB", number, 0, 3 + size, unit, function, size & 0xFF
        )
        frame = struct.pack(
            ">HHHBBHH", number, 0, 6, unit, function, block.address, block.length
        )
        try:
            return await self._exchange(frame, unit, number)
        finally:
            self._head = None

    async def run(self) -> None:
        """Hold the line until cancelled, then close it."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._client.close()

    def _may_ask(self, unit: int) -> _Health:
        """The health of a unit; raises NoAnswer while a silent one is left alone."""
        health = self._health.setdefault(unit, _Health())
        wait = health.ask_again - self._monotonic()
        if health.misses >= SILENT_AFTER and wait > 0:
            raise NoAnswer(f"{self._named(unit)}: silent; asked again in {wait:.0f} s")
        return health

    async def _read(self, unit: int, block: Block) -> dict[int, int]:
        """Ask for a block and check the answer; the turn is ours."""
        addresses = range(block.address, block.address + block.length)
        if not self.config.serial and block.table not in BITS:
            answer = await self._ask_numbered(unit, block)
            if isinstance(answer, bytes):
                words = struct.unpack(f">{block.length}H", answer)
                return dict(zip(addresses, words, strict=True))
        else:
            question = _QUESTION[block.table](
                address=block.address, count=block.length, dev_id=unit
            )
            answer = await self._ask(question)
        self._check(answer, unit, _FUNCTION[block.table])
        words = answer.bits if block.table in BITS else answer.registers
        # Bits come in whole bytes; registers are exactly those that were asked for.
        wanted = -(-block.length // 8) * 8 if block.table in BITS else block.length
        if len(words) != wanted:
            raise WrongAnswer(
                f"{self._named(unit)}: asked for {block.length} values, got {len(words)}"
            )
        return dict(zip(addresses, words, strict=False))

    async def _sound(self, unit: int, block: Block, health: _Health) -> None:
        """Ask for a length that no lost answer has, nor the next one, and want just that.

        A device answers in the order in which it was asked: what comes instead of this
        answer is a lost one, and is known by its length; once this one has come, nothing
        older can.
        """
        step = 16 if block.table in BITS else 1
        taken = health.lost | {block.length}
        length = next(n for n in range(1, MAX_WORDS * step, step) if n not in taken)
        health.lost.add(length)
        with suppress(Refused):  # an exception is an answer, in its order
            await self._read(unit, block._replace(length=length))
        health.lost.clear()

    async def _failed(self, health: _Health, unit: int, error: Exception) -> BusError:
        """Take note of a failure and calm the line; returns what to raise."""
        if isinstance(error, Refused):
            health.misses = 0
            return error  # a refusal is an answer, and in time
        health.misses += 1
        if health.misses >= SILENT_AFTER:
            health.ask_again = self._monotonic() + PROBE_EVERY_S
        await self._listen_out()
        if isinstance(error, BusError):
            return error
        return NoAnswer(f"{self._named(unit)}: no answer in {self.config.timeout_s} s")

    async def _listen_out(self) -> None:
        """Let late bytes pass: a serial line cannot say whose they are."""
        if not self.config.serial:
            return
        self._listening_out = True
        quiet = self.config.timeout_s
        self._heard = self._monotonic()
        while (rest := self._heard + quiet - self._monotonic()) > 0:  # noqa: ASYNC110 - it is the silence that is awaited
            await asyncio.sleep(rest)
        self._listening_out = False

    def _on_bytes(self, sending: bool, data: bytes) -> bytes:
        """Take what arrives before the library sees it.

        While the line is listened out it is swallowed; the wanted answer of a numbered
        line, if it is just that, goes straight to who waits for it.
        """
        if sending:
            return data
        if self._listening_out:
            self._heard = self._monotonic()
            return b""
        head = self._head
        if head is not None and data[:9] == head and len(data) == 9 + head[8]:
            answer = self._client.ctx.response_future
            if not answer.done():
                answer.set_result(data[9:])
            return b""
        return data

    def _check(self, answer: Any, unit: int, function: int) -> None:
        """Raise unless the answer is one to this question."""
        if answer.function_code == function | 0x80:
            code = answer.exception_code
            raise Refused(f"{self._named(unit)}: refused with exception {code}", code)
        if answer.function_code != function or answer.dev_id != unit:
            raise WrongAnswer(
                f"{self._named(unit)}: an answer of unit {answer.dev_id}, "
                f"function {answer.function_code} came instead of function {function}"
            )

    async def _connect(self, unit: int) -> None:
        if self.config.pause_s:
            await asyncio.sleep(self.config.pause_s)
        if self._client.connected:
            return
        wait = self._tried + RECONNECT_EVERY_S - self._monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        self._tried = self._monotonic()
        try:
            connected = await self._client.connect()
            if connected and self.config.rs485:
                self._switch_by_rts(self.config.rs485)
        except (OSError, ValueError, ModbusException, termios.error) as error:
            self._client.close()
            raise NoAnswer(f"{self._named(unit)}: {self._where()}: {error}") from None
        if not connected:
            raise NoAnswer(f"{self._named(unit)}: cannot open {self._where()}")

    def _switch_by_rts(self, wanted: Rs485) -> None:
        """Let the port's driver switch the direction of the line; ValueError if it cannot."""
        self._client.ctx.transport.sync_serial.rs485_mode = RS485Settings(  # type: ignore[attr-defined]
            rts_level_for_tx=wanted.send_high,
            rts_level_for_rx=not wanted.send_high,
            delay_before_tx=wanted.before_s,
            delay_before_rx=wanted.after_s,
        )

    def _named(self, unit: int) -> str:
        return f"bus {self.config.name} unit {unit}"

    def _where(self) -> str:
        config = self.config
        return (
            f"{config.port}" if config.type == "rtu" else f"{config.host}:{config.port}"
        )


def _write(unit: int, address: int, word: int, function: int) -> ModbusPDU:
    """The question that writes a register."""
    kind = (
        WriteMultipleRegistersRequest if function == 16 else WriteSingleRegisterRequest
    )
    return kind(address=address, registers=[word], dev_id=unit)


def _expire(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


def _pace(config: BusConfig) -> Pace:
    """What is known of a line before its first answer."""
    if config.type != "rtu":
        return Pace(None, MAX_WORDS)  # a round trip costs more than most holes
    bits = round(config.character_s * config.baud)
    gap = worth_reading(config.baud, USUAL_TURNAROUND_S, bits)
    return Pace(2 * config.character_s, gap)


def _client(
    config: BusConfig, on_bytes: Callable[[bool, bytes], bytes]
) -> AsyncModbusTcpClient | AsyncModbusSerialClient:
    if config.type == "rtu":
        return AsyncModbusSerialClient(
            str(config.port),
            framer=FramerType.RTU,
            baudrate=config.baud,
            bytesize=int(config.format[0]),
            parity=config.format[1],
            stopbits=int(config.format[2]),
            timeout=config.timeout_s,
            retries=0,
            reconnect_delay=0,
            trace_packet=on_bytes,
        )
    if config.type == "tls":
        return _TlsClient(config, on_bytes)
    return AsyncModbusTcpClient(
        config.host,
        port=int(config.port),
        framer=FramerType.RTU if config.serial else FramerType.SOCKET,
        timeout=config.timeout_s,
        retries=0,
        reconnect_delay=0,
        trace_packet=on_bytes,
    )


class _TlsClient(AsyncModbusTcpClient):
    """Modbus/TCP Security: the frames of Modbus TCP within TLS.

    The library's own TLS client leaves the header with transaction and unit away, which
    no device does.
    """

    def __init__(
        self, config: BusConfig, on_bytes: Callable[[bool, bytes], bytes]
    ) -> None:
        try:
            context = ssl.create_default_context(cafile=config.ca)
            if config.certificate:
                context.load_cert_chain(config.certificate, config.key)
        except OSError as error:  # a missing file, or one that is no certificate
            raise ConfigError(f"bus {config.name}: certificates: {error}") from None
        self.comm_params = CommParams(
            comm_type=CommType.TLS,
            host=config.host,
            port=int(config.port),
            sslctx=context,
            reconnect_delay=0,
            timeout_connect=config.timeout_s,
        )
        super().__init__("", framer=FramerType.SOCKET, retries=0, trace_packet=on_bytes)
