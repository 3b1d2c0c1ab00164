"""One line of Modbus devices. The only module that knows pymodbus.

One request is in flight at a time; commands go before read-backs before polls.
Serial Modbus has no transaction number, so an answer that comes after its timeout
would be taken for the answer to the next question: after a timeout the line is
listened out before anything else is asked, and every answer is checked for unit,
function and length. A unit that stays silent is asked only now and then, so that
one dead device does not slow its whole line.
"""

import asyncio
import enum
import itertools
import logging
import termios
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from duha_edge.errors import BusError, NoAnswer, Refused, WrongAnswer
from duha_edge.points import Block
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
    """How often a unit has been silent in a row, and when it may be asked again."""

    misses: int = 0
    ask_again: float = 0.0


@dataclass(order=True)
class _Job:
    urgency: int
    number: int
    unit: int = field(compare=False)
    ask: Callable[[], Awaitable[Any]] = field(compare=False)
    done: asyncio.Future[Any] = field(compare=False)


class Bus:
    """One line; `run` serves it until cancelled."""

    def __init__(
        self, config: BusConfig, monotonic: Callable[[], float] = time.monotonic
    ):
        self.config = config
        self._monotonic = monotonic
        self._numbers = itertools.count()
        self._jobs: asyncio.PriorityQueue[_Job] = asyncio.PriorityQueue()
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

        async def ask() -> dict[int, int]:
            calls = {
                "coil": self._client.read_coils,
                "discrete": self._client.read_discrete_inputs,
                "holding": self._client.read_holding_registers,
                "input": self._client.read_input_registers,
            }
            answer = await calls[block.table](
                block.address, count=block.length, device_id=unit
            )
            self._check(answer, unit, _FUNCTION[block.table])
            words = answer.bits if block.table in BITS else answer.registers
            # Bits come in whole bytes; registers are exactly those that were asked for.
            wanted = -(-block.length // 8) * 8 if block.table in BITS else block.length
            if len(words) != wanted:
                raise WrongAnswer(
                    f"{self._named(unit)}: asked for {block.length} values, got {len(words)}"
                )
            return {block.address + i: int(words[i]) for i in range(block.length)}

        found: dict[int, int] = await self._do(unit, urgency, ask)
        return found

    async def write(self, unit: int, address: int, word: int) -> None:
        """Write one holding register; raises like `read`."""

        async def ask() -> None:
            answer = await self._client.write_register(address, word, device_id=unit)
            self._check(answer, unit, 6)
            if answer.address != address or answer.registers != [word]:
                raise WrongAnswer(f"{self._named(unit)}: another write was confirmed")

        await self._do(unit, Urgency.COMMAND, ask)

    async def run(self) -> None:
        """Serve the line until cancelled."""
        try:
            while True:
                job = await self._jobs.get()
                if not job.done.cancelled():
                    await self._serve(job)
        finally:
            self._client.close()
            while not self._jobs.empty():
                self._jobs.get_nowait().done.cancel()

    async def _do(
        self, unit: int, urgency: Urgency, ask: Callable[[], Awaitable[Any]]
    ) -> Any:
        health = self._health.setdefault(unit, _Health())
        wait = health.ask_again - self._monotonic()
        if health.misses >= SILENT_AFTER and wait > 0:
            raise NoAnswer(f"{self._named(unit)}: silent; asked again in {wait:.0f} s")
        done = asyncio.get_running_loop().create_future()
        await self._jobs.put(_Job(urgency, next(self._numbers), unit, ask, done))
        return await done

    async def _serve(self, job: _Job) -> None:
        health = self._health[job.unit]
        try:
            await self._connect(job.unit)
            answer = await job.ask()
        except (ModbusException, OSError, BusError) as error:
            self._failed(health, job, error)
            if not isinstance(error, Refused):  # a refusal is an answer in time
                await self._listen_out()
            return
        health.misses = 0
        if not job.done.cancelled():
            job.done.set_result(answer)

    def _failed(self, health: _Health, job: _Job, error: Exception) -> None:
        if isinstance(error, Refused):
            health.misses = 0
        else:
            health.misses += 1
            if health.misses >= SILENT_AFTER:
                health.ask_again = self._monotonic() + PROBE_EVERY_S
        if not isinstance(error, BusError):
            text = f"{self._named(job.unit)}: no answer in {self.config.timeout_s} s"
            error = NoAnswer(text)
        if not job.done.cancelled():
            job.done.set_exception(error)

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
