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
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from duha_edge.errors import BusError, NoAnswer, Refused, WrongAnswer
from duha_edge.points import MAX_WORDS, Block
from duha_edge.profiles import BITS
from duha_edge.site import BusConfig

logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # our own errors say more

SILENT_AFTER = 3
PROBE_EVERY_S = 20.0
RECONNECT_EVERY_S = 1.0
_FUNCTION = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}


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
        self._heard = 0.0
        self._tried = -RECONNECT_EVERY_S
        self._client = self._make_client()

    @property
    def silent_units(self) -> int:
        """How many units are asked only now and then."""
        return sum(h.misses >= SILENT_AFTER for h in self._health.values())

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
            await self._connect(unit)
            if health.lost:
                await self._sound(unit, block, health)
            found = await self._read(unit, block)
        except (ModbusException, OSError, BusError) as error:
            if not isinstance(error, Refused) and self.config.type == "rtu":
                health.lost.add(block.length)
            raise await self._failed(health, unit, error) from None
        finally:
            self._turns.give()
        health.misses = 0
        return found

    async def write(self, unit: int, address: int, word: int) -> None:
        """Write one holding register; raises like `read`."""
        health = self._may_ask(unit)
        await self._turns.take(Urgency.COMMAND)
        try:
            await self._connect(unit)
            answer = await self._client.write_register(address, word, device_id=unit)
            self._check(answer, unit, 6)
            if answer.address != address or answer.registers != [word]:
                raise WrongAnswer(f"{self._named(unit)}: another write was confirmed")
        except (ModbusException, OSError, BusError) as error:
            raise await self._failed(health, unit, error) from None
        finally:
            self._turns.give()
        health.misses = 0

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
        client = self._client
        if block.table == "holding":
            call = client.read_holding_registers
        elif block.table == "input":
            call = client.read_input_registers
        elif block.table == "coil":
            call = client.read_coils
        else:
            call = client.read_discrete_inputs
        answer = await call(block.address, count=block.length, device_id=unit)
        self._check(answer, unit, _FUNCTION[block.table])
        words = answer.bits if block.table in BITS else answer.registers
        # Bits come in whole bytes; registers are exactly those that were asked for.
        wanted = -(-block.length // 8) * 8 if block.table in BITS else block.length
        if len(words) != wanted:
            raise WrongAnswer(
                f"{self._named(unit)}: asked for {block.length} values, got {len(words)}"
            )
        return {block.address + i: int(words[i]) for i in range(block.length)}

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
        if self.config.type != "rtu":
            return
        self._listening_out = True
        quiet = self.config.timeout_s
        self._heard = self._monotonic()
        while (rest := self._heard + quiet - self._monotonic()) > 0:  # noqa: ASYNC110 - it is the silence that is awaited
            await asyncio.sleep(rest)
        self._listening_out = False

    def _on_bytes(self, sending: bool, data: bytes) -> bytes:
        """Swallow what arrives while the line is being listened out."""
        if sending or not self._listening_out:
            return data
        self._heard = self._monotonic()
        return b""

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
        if self._client.connected:
            return
        wait = self._tried + RECONNECT_EVERY_S - self._monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        self._tried = self._monotonic()
        try:
            connected = await self._client.connect()
        except (OSError, ModbusException, termios.error) as error:
            raise NoAnswer(f"{self._named(unit)}: {self._where()}: {error}") from None
        if not connected:
            raise NoAnswer(f"{self._named(unit)}: cannot open {self._where()}")

    def _named(self, unit: int) -> str:
        return f"bus {self.config.name} unit {unit}"

    def _where(self) -> str:
        config = self.config
        return (
            f"{config.host}:{config.port}" if config.type == "tcp" else f"{config.port}"
        )

    def _make_client(self) -> AsyncModbusTcpClient | AsyncModbusSerialClient:
        config = self.config
        if config.type == "tcp":
            return AsyncModbusTcpClient(
                config.host,
                port=int(config.port),
                timeout=config.timeout_s,
                retries=0,
                reconnect_delay=0,
                trace_packet=self._on_bytes,
            )
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
            trace_packet=self._on_bytes,
        )
