"""The simulated devices against outside peers: mbpoll over TCP and over a terminal."""

import asyncio
import contextlib
import re
import time

import pytest

from duha_contract.clock import Clock
from duha_edge import profiles
from duha_edge.points import decode
from duha_edge.profiles import load
from duha_sim import trouble
from duha_sim.city import SimulatedCity
from duha_sim.devices import Luminaire, ProfileUnit
from duha_sim.modbus import RtuPort, TcpPort, answer, crc, frame_length
from duha_sim.physics import Lamp
from duha_sim.storm import Replay
from duha_sim.streets import generate
from duha_sim.trouble import Troubles

DRY = Replay((0.0,), (0.0,))


def luminaire():
    return Luminaire(load("luminaire-generic"), Clock(lambda: 0.0), Lamp())


def test_the_checksum_is_the_standards():
    assert crc(b"123456789") == b"\x37\x4b"  # CRC-16/MODBUS check value 4B37


@pytest.mark.parametrize(
    ("pdu", "wanted"),
    [
        (b"\x06\x00\x00\x00\x28", b"\x06\x00\x00\x00\x28"),  # set 40 %
        (b"\x06\x00\x00\x00\x65", b"\x86\x03"),  # 101 % is an illegal value
        (b"\x06\x00\x05\x00\x01", b"\x86\x02"),  # the hours cannot be written
        (b"\x10\x00\x00\x00\x01\x02\x00\x28", b"\x10\x00\x00\x00\x01"),
        (b"\x03\x00\x00\x00\x7e", b"\x83\x03"),  # 126 registers are too many
        (b"\x03\x00\x20\x00\x01", b"\x83\x02"),
        (b"\x03\x00\x00", b"\x83\x03"),  # cut short
        (b"\x2b\x0e", b"\xab\x01"),
    ],
)
def test_answers_of_the_protocol(pdu, wanted):
    assert answer(luminaire(), pdu) == wanted


def test_the_length_of_a_request_is_known_from_its_head():
    assert frame_length(b"\x01") is None
    assert frame_length(b"\x01\x03") == 8
    assert frame_length(b"\x01\x10\x00\x00\x00\x01") is None
    assert frame_length(b"\x01\x10\x00\x00\x00\x01\x02") == 11


@contextlib.asynccontextmanager
async def city(folder, baud=19_200):
    made = SimulatedCity(
        generate(2, 3, 1, rtu=1), Clock(time.time), DRY,
        Troubles(folder / "trouble.json"), folder, baud,
    )  # fmt: skip
    await made.start()
    try:
        yield made
    finally:
        await made.close()
        await asyncio.sleep(0.02)


def where(made, cabinet):
    """mbpoll's words for a line."""
    place = made.ports[cabinet, "line1"]
    if isinstance(place, int):
        return ["-m", "tcp", "-p", str(place), "127.0.0.1"]
    return ["-m", "rtu", "-b", "19200", "-P", "none", str(place)]


async def mbpoll(outside, made, cabinet, unit, *words, values=()):
    target = where(made, cabinet)
    process = await asyncio.create_subprocess_exec(
        outside("mbpoll"), "-1", "-0", "-o", "1", "-a", str(unit), *words, *target, *map(str, values),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    text = out.decode()
    found = re.findall(r"\[(\d+)\]:\s+(-?[\d.]+)", text)
    return {int(address): float(value) for address, value in found}, text


@pytest.mark.system
@pytest.mark.parametrize("cabinet", ["RVO-001", "RVO-002"], ids=["tcp", "terminal"])
async def test_mbpoll_reads_and_writes_a_luminaire(outside, cabinet, tmp_path):
    async with city(tmp_path) as made:
        _, said = await mbpoll(
            outside, made, cabinet, 2, "-t", "4", "-r", "0", values=[55]
        )
        assert "Written 1 references" in said
        lamp = made.luminaires[f"{cabinet}-L002"]
        assert lamp.lamp.setpoint == pytest.approx(0.55)
        found, _ = await mbpoll(
            outside, made, cabinet, 2, "-t", "4", "-r", "0", "-c", "11"
        )
        assert found[0] == 55
        assert found[8] == 2304
        refused, said = await mbpoll(
            outside, made, cabinet, 2, "-t", "4", "-r", "0", values=[101]
        )
        assert not refused
        assert "Illegal data value" in said


@pytest.mark.system
async def test_mbpoll_reads_the_floats_of_a_meter(outside, tmp_path):
    async with city(tmp_path) as made:
        found, _ = await mbpoll(
            outside, made, "RVO-001", 240, "-t", "3:float", "-B", "-r", "0", "-c", "3"
        )
        assert list(found.values()) == pytest.approx([231.0, 230.4, 229.8], abs=0.1)


@pytest.mark.system
@pytest.mark.parametrize("kind", ["tcp", "terminal"])
@pytest.mark.parametrize("name", profiles.names())
async def test_mbpoll_reads_every_simulated_profile(outside, tmp_path, name, kind):
    profile = profiles.load(name).placed(dict.fromkeys(profiles.load(name).index, 0))
    point = profile.point[0]
    unit = ProfileUnit(profile, {point.quantity: 1.0})

    async def respond(_unit, pdu):
        return answer(unit, pdu)

    port: TcpPort | RtuPort
    if kind == "tcp":
        port = TcpPort(respond, lambda _, frame: frame)
        await port.start()
        target = ["-m", "tcp", "-p", str(port.port), "127.0.0.1"]
    else:
        port = RtuPort(respond, lambda _, frame: frame, tmp_path / "line.tty", 19_200)
        await port.start()
        target = ["-m", "rtu", "-b", "19200", "-P", "none", str(port.path)]
    table = {"coil": "0", "discrete": "1", "input": "3:hex", "holding": "4:hex"}[
        point.table
    ]
    process = await asyncio.create_subprocess_exec(
        outside("mbpoll"), "-1", "-0", "-o", "1", "-a", "1", "-t", table, "-r", str(point.address),
        "-c", str(point.words), *target,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    await port.close()
    await asyncio.sleep(0.02)
    found = re.findall(r"\[(\d+)\]:\s+(0x[0-9A-F]+|\d+)", out.decode())
    words = {int(address): int(word, 0) for address, word in found}
    assert decode(point, words) == pytest.approx(1.0, abs=0.3), out


async def test_a_terminal_is_as_slow_as_its_line(tmp_path):
    """A read of 11 registers at 9600 baud takes the time of its 35 characters."""
    from duha_edge.bus import Bus
    from duha_edge.points import Block
    from duha_edge.site import BusConfig

    async with city(tmp_path, baud=9600) as made:
        bus = Bus(
            BusConfig(
                "b",
                "rtu",
                port=str(made.ports["RVO-002", "line1"]),
                baud=9600,
                format="8N1",
            )
        )
        serving = asyncio.create_task(bus.run())
        await bus.read(1, Block("holding", 0, 11))
        began = time.monotonic()
        for _ in range(5):
            await bus.read(1, Block("holding", 0, 11))
        each = (time.monotonic() - began) / 5
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        frames = (8 + 5 + 22) * 11 / 9600
        assert frames < each < 3 * frames


async def test_troubles_come_and_go_with_the_file(tmp_path):
    async with city(tmp_path) as made:
        path = tmp_path / "trouble.json"
        trouble.change(path, "RVO-001-L001", "burnt_out")
        trouble.change(path, "SR-01", "blocked")
        made.apply_troubles()
        assert made.luminaires["RVO-001-L001"].lamp.burnt_out
        assert made.gauges["SR-01"]._gauge.blocked
        trouble.change(path, "RVO-001-L001", None)
        trouble.change(path, "SR-01", None)
        made.apply_troubles()
        assert not made.luminaires["RVO-001-L001"].lamp.burnt_out
        assert not made.gauges["SR-01"]._gauge.blocked


def test_a_broken_trouble_file_is_named(tmp_path):
    path = tmp_path / "trouble.json"
    path.write_text('{"L1": "haunted"}')
    with pytest.raises(ValueError, match="haunted"):
        trouble.load(path)
