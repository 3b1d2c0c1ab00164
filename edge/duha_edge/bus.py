"""One line of Modbus devices. With `ports` the only module that knows pymodbus.

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
import logging
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pymodbus import ModbusException
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)
from serial.rs485 import RS485Settings

from duha_edge.errors import BusError, NoAnswer, Refused, WrongAnswer
from duha_edge.pace import Pace
from duha_edge.points import MAX_WORDS, Block, worth_reading
from duha_edge.ports import client
from duha_edge.profiles import BITS
from duha_edge.site import BusConfig, Rs485
from duha_edge.turns import Turns, Urgency

log = logging.getLogger(__name__)
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # our own errors say more

SILENT_AFTER = 3
PROBE_EVERY_S = 20.0
RECONNECT_EVERY_S = 1.0
LISTEN_OUT_TIMES = 10
"""A line that is not silent for one timeout within so many of them babbles."""
LISTEN_OUT_S = 10.0
"""The longest wait for silence [s], whatever the timeout, unless two timeouts are more."""
MOST_BYTES = 16_384
"""Bytes between two requests that no device on a line that works can send."""
USUAL_TURNAROUND_S = 0.01
_FUNCTION = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
_QUESTION: dict[str, type[ModbusPDU]] = {
    "coil": ReadCoilsRequest,
    "discrete": ReadDiscreteInputsRequest,
    "holding": ReadHoldingRegistersRequest,
    "input": ReadInputRegistersRequest,
}


@dataclass
class _Health:
    """How a unit has answered lately.

    `misses` counts its silences in a row, `ask_again` is when a silent one may be asked
    next, `lost` the lengths of reads whose answers may still be on their way.
    """

    misses: int = 0
    ask_again: float = 0.0
    lost: set[int] = field(default_factory=set)


class Bus:
    """One line; `run` serves it until cancelled.

    Attributes
    ----------
    babbled : int
        How often the port was closed because bytes came without a pause.
    trouble : str
        What is wrong with the line as a whole now; empty when it works.
    """

    def __init__(
        self, config: BusConfig, monotonic: Callable[[], float] = time.monotonic
    ):
        self.config = config
        self._monotonic = monotonic
        self._turns = Turns()
        self._health: dict[int, _Health] = {}
        self._listening_out = False
        self._head: bytes | None = None
        self._heard = 0.0
        self._bytes = 0
        self._unanswered = 0
        self.babbled = 0
        self.trouble = ""
        self._tried = -RECONNECT_EVERY_S
        self._pace = _pace(config)
        self._client = client(config, self._on_bytes)
        self._library_takes = self._client.ctx.data_received
        self._client.ctx.data_received = self._received  # type: ignore[method-assign]

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
        except Exception as error:  # noqa: BLE001 - whatever a device makes of an answer
            if not isinstance(error, Refused) and self.config.serial:
                health.lost.add(block.length)
            raise await self._failed(health, unit, error) from None
        finally:
            self._turns.give()
        self._works(health)
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
            self._check_write(answer, unit, address, word)
        except Exception as error:  # noqa: BLE001 - whatever a device makes of an answer
            raise await self._failed(health, unit, error) from None
        finally:
            self._turns.give()
        self._works(health)

    async def _broadcast(self, address: int, word: int, function: int) -> None:
        """Write to every unit of a serial line, and give them time to obey."""
        await self._turns.take(Urgency.COMMAND)
        try:
            await self._connect(0)
            await self._ask(_write(0, address, word, function), silent=True)
            await asyncio.sleep(self.config.broadcast_s)
        except BusError:
            raise
        except Exception as error:  # noqa: BLE001 - as with `read`
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
        self._bytes = 0
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
            self._close()

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

    def _works(self, health: _Health) -> None:
        """A unit has answered, so its line works."""
        health.misses = self._unanswered = 0
        self.trouble = ""

    async def _failed(self, health: _Health, unit: int, error: Exception) -> BusError:
        """Take note of a failure and calm the line; returns what to raise."""
        if isinstance(error, Refused):
            health.misses = self._unanswered = 0
            return error  # a refusal is an answer, and in time
        health.misses += 1
        if health.misses >= SILENT_AFTER:
            health.ask_again = self._monotonic() + PROBE_EVERY_S
        if self.config.serial:
            await self._listen_out()
        else:
            self._hang_up()
        if isinstance(error, BusError):
            return error
        if isinstance(error, ModbusException | OSError):
            return NoAnswer(
                f"{self._named(unit)}: no answer in {self.config.timeout_s} s"
            )
        return WrongAnswer(f"{self._named(unit)}: {type(error).__name__}: {error}")

    def _hang_up(self) -> None:
        """Give up a connection on which nothing is answered any more.

        A host that has restarted, or hangs, does not close its connections: on a new one
        it may answer.
        """
        self._unanswered += 1
        if self._unanswered >= SILENT_AFTER:
            self._unanswered = 0
            self._close()

    async def _listen_out(self) -> None:
        """Let late bytes pass: a serial line cannot say whose they are.

        A line on which it never becomes silent is closed, and opened again for the next
        request: the turn is held for a bounded time.
        """
        quiet = self.config.timeout_s
        self._heard = began = self._monotonic()
        patience = max(2 * quiet, min(LISTEN_OUT_TIMES * quiet, LISTEN_OUT_S))
        self._listening_out = True
        try:
            while (rest := self._heard + quiet - self._monotonic()) > 0:
                if self._monotonic() - began >= patience:
                    self._babbles(f"no silence within {patience:g} s")
                    return
                await asyncio.sleep(rest)
        finally:
            self._listening_out = False

    def _babbles(self, detail: str) -> None:
        """Close a port on which bytes come without a pause; the next request opens it."""
        self.babbled += 1
        if not self.trouble:
            log.error("bus %s: line babbles: %s", self.config.name, detail)
        self.trouble = f"line {self.config.name} babbles: {detail}"
        self._close()

    def _received(self, data: bytes) -> None:
        """Pass on what the transport has received; a flood ends the connection."""
        self._bytes += len(data)
        if self._bytes <= MOST_BYTES:
            self._library_takes(data)
        elif self._client.connected:
            self._babbles(f"{self._bytes} bytes at once")

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

    def _check_write(self, answer: Any, unit: int, address: int, word: int) -> None:
        """Raise unless the answer confirms this write.

        It repeats the register (function 6), or says how many they were (16).
        """
        said, wanted = (
            ([answer.count], [1])
            if answer.function_code == 16
            else (answer.registers, [word])
        )
        if answer.address != address or said != wanted:
            raise WrongAnswer(f"{self._named(unit)}: another write was confirmed")

    def _close(self) -> None:
        """Close the port; the library does not close twice what was opened meanwhile."""
        self._client.ctx.is_closing = False
        self._client.close()

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
            self._close()
            raise NoAnswer(f"{self._named(unit)}: {self._where()}: {error}") from None
        transport = self._client.ctx.transport
        if connected and transport.is_closing():  # closed while it was being opened
            self._close()
            connected = False
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
