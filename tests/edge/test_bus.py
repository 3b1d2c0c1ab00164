"""The bus against simulated devices behind real ports, with trouble on the line."""

import asyncio
import contextlib
import os
import random
import ssl
import time
import tty

import msgspec
import pytest
import trustme
from tests.edge.hosts import server

from duha_edge.bus import Bus
from duha_edge.errors import BusError, ConfigError, NoAnswer, Refused
from duha_edge.points import Block
from duha_edge.profiles import TableName
from duha_edge.site import BusConfig, Rs485
from duha_edge.turns import Urgency
from duha_sim.modbus import (
    ILLEGAL_ADDRESS,
    Refusal,
    RtuPort,
    RtuTcpPort,
    TcpPort,
    answer,
    crc,
)


class Echo:
    """Registers that tell their own address and unit: 1000 * unit + address."""

    def __init__(self, unit):
        self.unit = unit
        self.written = {}

    def read(self, table, address, count):
        if address + count > 400:
            raise Refusal(ILLEGAL_ADDRESS)
        shift = 500 if table == "input" else 0
        return [1000 * self.unit + shift + address + i for i in range(count)]

    def write(self, address, words):
        self.written[address] = words[0]


class Line:
    """Units 1 to 5, and what is wrong with them: unit to delay [s], None for silence."""

    def __init__(self):
        self.units = {n: Echo(n) for n in range(1, 6)}
        self.delay = {}
        self.spoil_with = lambda _, frame: frame
        self.asked = []

    async def respond(self, unit, pdu):
        self.asked.append((unit, pdu[0]))
        if unit == 0:
            for each in self.units.values():
                answer(each, pdu)
            return None
        wait = self.delay.get(unit, 0)
        if wait is None or unit not in self.units:
            return None
        await asyncio.sleep(wait)
        return answer(self.units[unit], pdu)

    def spoil(self, unit, frame):
        return self.spoil_with(unit, frame)


@contextlib.asynccontextmanager
async def connected(kind, tmp_path, timeout_s=0.25, **more):
    line = Line()
    port: TcpPort | RtuPort
    if kind in {"tcp", "rtu-over-tcp"}:
        port = {"tcp": TcpPort, "rtu-over-tcp": RtuTcpPort}[kind](
            line.respond, line.spoil
        )
        await port.start()
        config = BusConfig(
            "b", kind, "127.0.0.1", port.port, timeout_s=timeout_s, **more
        )
    elif kind == "tls":
        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        port = TcpPort(line.respond, line.spoil, tls=context)
        await port.start()
        config = BusConfig(
            "b",
            "tls",
            "localhost",
            port.port,
            timeout_s=0.5,
            ca=str(tmp_path / "ca.pem"),
        )
    else:
        port = RtuPort(line.respond, line.spoil, tmp_path / "line.tty", baud=115_200)
        await port.start()
        config = BusConfig(
            "b",
            "rtu",
            port=str(port.path),
            baud=115_200,
            format="8N1",
            timeout_s=timeout_s,
            **more,
        )
    bus = Bus(config)
    serving = asyncio.create_task(bus.run())
    try:
        yield bus, line
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        await port.close()
        await asyncio.sleep(0.02)


both = pytest.mark.parametrize("kind", ["tcp", "rtu", "rtu-over-tcp", "tls"])


@both
async def test_registers_come_with_their_addresses(kind, tmp_path):
    async with connected(kind, tmp_path) as (bus, _):
        assert await bus.read(3, Block("holding", 7, 3)) == {7: 3007, 8: 3008, 9: 3009}
        assert await bus.read(2, Block("input", 0, 1)) == {0: 2500}


@both
async def test_a_write_is_confirmed(kind, tmp_path):
    async with connected(kind, tmp_path) as (bus, line):
        await bus.write(4, 9, 77)
        assert line.units[4].written == {9: 77}


@both
async def test_a_write_by_function_16_is_confirmed_too(kind, tmp_path):
    async with connected(kind, tmp_path) as (bus, line):
        await bus.write(4, 9, 77, function=16)
        assert line.units[4].written == {9: 77}
        assert line.asked == [(4, 16)]


@pytest.mark.parametrize("kind", ["rtu", "rtu-over-tcp"])
async def test_a_broadcast_reaches_every_unit_and_nobody_answers(kind, tmp_path):
    async with connected(kind, tmp_path) as (bus, line):
        await bus.write(0, 5, 40)
        assert all(unit.written == {5: 40} for unit in line.units.values())
        assert await bus.read(2, Block("holding", 1, 1)) == {1: 2001}


async def test_a_device_may_have_its_pause(tmp_path):
    async with connected("tcp", tmp_path, pause_s=0.1) as (bus, _):
        began = time.monotonic()
        for _ in range(3):
            await bus.read(1, Block("holding", 0, 1))
        assert time.monotonic() - began >= 0.3


async def test_a_port_that_cannot_switch_by_rts_says_so(tmp_path):
    async with connected("rtu", tmp_path, rs485=Rs485()) as (bus, _):
        with pytest.raises(NoAnswer, match="RS485"):
            await bus.read(1, Block("holding", 0, 1))


async def test_a_host_that_nobody_vouches_for_is_not_believed(tmp_path):
    async with connected("tls", tmp_path) as (bus, line):
        stranger = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(str(stranger))
        wary = Bus(msgspec.structs.replace(bus.config, ca=str(stranger)))
        with pytest.raises(NoAnswer):
            await wary.read(1, Block("holding", 0, 1))
        assert line.asked == []
    with pytest.raises(ConfigError, match="bus b: certificates"):
        Bus(msgspec.structs.replace(bus.config, ca=str(tmp_path / "none.pem")))


@both
async def test_a_refusal_is_an_answer(kind, tmp_path):
    async with connected(kind, tmp_path) as (bus, _):
        with pytest.raises(Refused, match="bus b unit 1: refused with exception 2"):
            await bus.read(1, Block("holding", 399, 5))
        assert await bus.read(1, Block("holding", 1, 1)) == {1: 1001}


@both
async def test_a_silent_unit_is_named_and_soon_left_alone(kind, tmp_path):
    async with connected(kind, tmp_path, timeout_s=0.1) as (bus, line):
        line.delay[5] = None
        for _ in range(3):
            with pytest.raises(NoAnswer, match=r"unit 5: no answer in"):
                await bus.read(5, Block("holding", 0, 1))
        began = time.monotonic()
        with pytest.raises(NoAnswer, match="silent; asked again in"):
            await bus.read(5, Block("holding", 0, 1))
        assert time.monotonic() - began < 0.05
        assert bus.silent_units == 1
        assert await bus.read(1, Block("holding", 0, 1)) == {0: 1000}


@pytest.mark.system  # real seconds of waiting
async def test_a_late_answer_is_never_taken_for_another(tmp_path):
    """The measured fault of bare Modbus libraries, cured: each value is its own."""
    async with connected("rtu", tmp_path, timeout_s=0.1) as (bus, line):
        chance = random.Random(3)
        good = wrong = 0
        for number in range(60):
            unit = chance.choice((1, 2))
            address, length = chance.randrange(300), chance.choice((1, 2, 5))
            table: TableName = "input" if chance.random() < 0.5 else "holding"
            late = number % 6 == 0
            line.delay = {unit: 0.14} if late else {}
            with contextlib.suppress(NoAnswer):
                found = await bus.read(unit, Block(table, address, length))
                wanted = line.units[unit].read(table, address, length)
                good += 1
                wrong += list(found.values()) != wanted
            for health in bus._health.values():
                health.misses = (
                    0  # what leaving it alone would hide is asked all the same
                )
        assert wrong == 0
        assert good >= 45


@pytest.mark.system  # real seconds of waiting
async def test_an_answer_later_than_all_patience_gives_itself_away(tmp_path):
    """Later than time-out and listening out together: the unit is sounded before it is believed."""
    async with connected("rtu", tmp_path, timeout_s=0.05) as (bus, line):
        good = 0
        for number in range(60):
            line.delay = {1: 0.115} if number % 4 == 0 else {}
            with contextlib.suppress(BusError):
                found = await bus.read(1, Block("holding", 3 * number, 2))
                first = 1000 + 3 * number
                assert found == {3 * number: first, 3 * number + 1: first + 1}
                good += 1
            for health in bus._health.values():
                health.misses = 0
        assert good >= 20


@both
async def test_a_garbled_answer_is_no_value(kind, tmp_path):
    async with connected(kind, tmp_path, timeout_s=0.1) as (bus, line):
        line.spoil_with = lambda _, frame: (
            frame[:1] + bytes((frame[1] ^ 0x10,)) + frame[2:]
        )
        with pytest.raises(BusError):
            await bus.read(1, Block("holding", 3, 2))
        line.spoil_with = lambda _, frame: frame
        await asyncio.sleep(0.2)
        assert await bus.read(2, Block("holding", 3, 2)) == {3: 2003, 4: 2004}


async def test_a_command_overtakes_the_polls(tmp_path):
    async with connected("rtu", tmp_path) as (bus, line):
        polls = [
            asyncio.create_task(bus.read(n, Block("holding", 0, 100)))
            for n in (1, 2, 3, 4)
        ]
        await asyncio.sleep(0.01)
        await bus.write(5, 0, 1)
        check = bus.read(5, Block("holding", 0, 1), Urgency.VERIFY)
        await asyncio.gather(check, *polls)
        order = [unit for unit, _ in line.asked]
        assert order[:2] == [1, 5]  # the write passes the polls that were there first
        assert order.index(5, 2) < order.index(3)  # and so does its read-back


async def test_a_port_that_comes_late_is_found(free_port):
    bus = Bus(BusConfig("b", "tcp", "127.0.0.1", free_port, timeout_s=0.2))
    serving = asyncio.create_task(bus.run())
    with pytest.raises(NoAnswer, match=r"cannot open|127\.0\.0\.1"):
        await bus.read(1, Block("holding", 0, 1))
    line = Line()
    port = TcpPort(line.respond, line.spoil, free_port)
    await port.start()
    assert await bus.read(1, Block("holding", 0, 1)) == {0: 1000}
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    await port.close()
    await asyncio.sleep(0.02)


async def test_a_serial_port_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "nothing"
    bus = Bus(BusConfig("b", "rtu", port=str(path)))
    serving = asyncio.create_task(bus.run())
    with pytest.raises(NoAnswer, match="nothing"):
        await bus.read(1, Block("holding", 0, 1))
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


# -- lines that do not behave ------------------------------------------------------


@contextlib.asynccontextmanager
async def served(config):
    bus = Bus(config)
    serving = asyncio.create_task(bus.run())
    try:
        yield bus
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        await asyncio.sleep(0.02)


async def test_a_line_that_babbles_is_reopened_and_gives_its_turn_back():
    babbling = True

    async def babble(reader, writer):
        while babbling and not writer.is_closing():
            writer.write(b"\x55")
            await asyncio.sleep(0.01)
        while request := await reader.read(64):
            count = request[5]
            frame = request[:2] + bytes((2 * count,)) + b"\x12\x34" * count
            writer.write(frame + crc(frame))

    async with server(babble) as port:
        config = BusConfig("b", "rtu-over-tcp", "127.0.0.1", port, timeout_s=0.05)
        async with served(config) as bus:
            async with asyncio.timeout(10):
                with pytest.raises(BusError):
                    await bus.read(1, Block("holding", 0, 1))
            assert bus.babbled == 1
            assert "babbles" in bus.trouble
            babbling, found = False, {}
            for _ in range(2):  # what was sent before may come first
                with contextlib.suppress(BusError):
                    found = await bus.read(1, Block("holding", 0, 1))
            assert found == {0: 0x1234}
            assert bus.trouble == ""


async def test_a_terminal_that_babbles_is_reopened(tmp_path):
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    babbling = True

    async def babble():
        while babbling:
            with contextlib.suppress(BlockingIOError):
                os.write(ours, b"\x00")
            await asyncio.sleep(0.01)

    os.set_blocking(ours, False)
    task = asyncio.create_task(babble())
    config = BusConfig(
        "b", "rtu", port=os.ttyname(theirs), format="8N1", timeout_s=0.05
    )
    async with served(config) as bus:
        async with asyncio.timeout(10):
            for _ in range(2):
                with pytest.raises(BusError):
                    await bus.read(1, Block("holding", 0, 1))
        assert bus.babbled >= 1
        babbling = False
        await task
    os.close(ours)
    os.close(theirs)


async def test_a_flood_of_bytes_closes_the_connection():
    async def flood(_reader, writer):
        while not writer.is_closing():
            writer.write(bytes(100_000))
            await writer.drain()

    async with server(flood) as port:
        config = BusConfig("b", "tcp", "127.0.0.1", port, timeout_s=0.1)
        async with served(config) as bus:
            with pytest.raises(BusError):
                await bus.read(1, Block("holding", 0, 1))
            assert bus.babbled == 1
            assert not bus._client.connected


async def test_a_host_that_accepts_and_never_answers_is_called_again():
    calls = []

    async def hang(reader, _writer):
        calls.append(reader)
        await reader.read()

    async with server(hang) as port:
        config = BusConfig("b", "tcp", "127.0.0.1", port, timeout_s=0.05)
        async with served(config) as bus:
            for unit in (1, 2, 3, 4):
                with pytest.raises(NoAnswer):
                    await bus.read(unit, Block("holding", 0, 1))
        assert len(calls) == 2


TABLES: tuple[TableName, ...] = ("holding", "input", "coil", "discrete")


@pytest.mark.parametrize("kind", ["tcp", "rtu-over-tcp"])
async def test_garbage_for_an_answer_is_an_error_of_the_line_and_nothing_else(kind):
    chance = random.Random(8)

    async def gabble(reader, writer):
        while request := await reader.read(64):
            answer = bytearray(request[: chance.randrange(9)])
            answer += chance.randbytes(chance.randrange(1, 40))
            writer.write(bytes(answer))

    async with server(gabble) as port:
        config = BusConfig("b", kind, "127.0.0.1", port, timeout_s=0.005)
        async with served(config) as bus:
            for number in range(60):
                table = chance.choice(TABLES)
                try:
                    await bus.read(1, Block(table, number, 1 + number % 9))
                    await bus.write(1, number, 7)
                except BusError:
                    bus._health.clear()
                    bus._tried = -10.0  # no pause between connections
