"""The agent's bus against a Modbus server that others have written (pyModbusTCP)."""

import asyncio
import contextlib

import pytest
from pyModbusTCP.server import DataBank, ModbusServer

from duha_edge import profiles, technician
from duha_edge.bus import Bus
from duha_edge.errors import Refused
from duha_edge.points import Block, encode
from duha_edge.site import BusConfig, DeviceConfig
from duha_edge.technician import serving
from duha_edge.units import LEVEL, Device


@pytest.fixture
def alien(free_port):
    bank = DataBank(h_regs_size=1000)
    server = ModbusServer("127.0.0.1", free_port, no_block=True, data_bank=bank)
    server.start()
    yield bank, BusConfig("b", "tcp", "127.0.0.1", free_port)
    server.stop()


async def settled():
    """Give the foreign server's thread time to notice that the client is gone."""
    await asyncio.sleep(0.3)


async def test_every_table_is_read_from_it(alien):
    bank, config = alien
    bank.set_holding_registers(10, [1, 2, 65_535])
    bank.set_input_registers(10, [7, 8])
    bank.set_coils(3, [True, False, True])
    bank.set_discrete_inputs(0, [False, True])
    async with serving(config) as bus:
        assert await bus.read(1, Block("holding", 10, 3)) == {10: 1, 11: 2, 12: 65_535}
        assert await bus.read(1, Block("input", 10, 2)) == {10: 7, 11: 8}
        assert await bus.read(1, Block("coil", 3, 3)) == {3: 1, 4: 0, 5: 1}
        assert await bus.read(1, Block("discrete", 0, 2)) == {0: 0, 1: 1}
        with pytest.raises(Refused, match="exception 2"):
            await bus.read(1, Block("holding", 990, 20))
    await settled()


@pytest.mark.parametrize("function", [6, 16])
async def test_it_is_written_and_says_so(alien, function):
    bank, config = alien
    async with serving(config) as bus:
        await bus.write(1, 5, 42, function)
    assert bank.get_holding_registers(5, 1) == [42]
    await settled()


async def test_a_lamp_of_it_is_dimmed_and_read(alien):
    bank, config = alien
    profile = profiles.load("luminaire-generic")
    for point in profile.point:
        bank.set_holding_registers(point.address, encode(point, 1))
    lamp = Device(DeviceConfig("L1", "b", 1, profile.name, writes=(LEVEL,)), profile)
    async with serving(config) as bus:
        await technician.write(bus, lamp, LEVEL, 60)
        values = await technician.read(bus, 1, profile)
    assert values[LEVEL] == 60
    assert values["energy_wh"] == 1
    await settled()


async def test_it_may_go_away_and_come_back(alien, free_port):
    bank, config = alien
    bank.set_holding_registers(0, [9])
    bus = Bus(config)
    running = asyncio.create_task(bus.run())
    assert await bus.read(1, Block("holding", 0, 1)) == {0: 9}
    bus._client.close()  # as when a cable is pulled
    assert await bus.read(1, Block("holding", 0, 1)) == {0: 9}
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await settled()
