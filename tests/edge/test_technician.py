"""At the cabinet: what the tools find on a simulated line, through its real port."""

import asyncio
import contextlib
import datetime as dt
import time

import pytest

from duha_contract.clock import Clock
from duha_edge import profiles, technician
from duha_edge.errors import ConfigError, NoAnswer, NotAllowed
from duha_edge.site import BusConfig, DeviceConfig, parse
from duha_edge.units import LEVEL, Device
from duha_sim.city import SimulatedCity
from duha_sim.storm import Replay
from duha_sim.streets import generate
from duha_sim.trouble import Troubles, change

GENERIC = profiles.load("luminaire-generic")


def lamp(name, unit, writes=(LEVEL,)):
    config = DeviceConfig(name, "line1", unit, "luminaire-generic", writes)
    return Device(config, profiles.load("luminaire-generic"))


@contextlib.asynccontextmanager
async def cabinet(folder, *, rtu=0):
    # Ten city seconds in one: a lamp's warm-up need not be waited for.
    began = time.time()
    clock = Clock(lambda: began + 10 * (time.time() - began))
    troubles = Troubles(folder / "trouble.json")
    city = SimulatedCity(
        generate(1, 3, 1, rtu=rtu), clock, Replay((0.0,), (0.0,)), troubles, folder
    )
    await city.start()
    city.apply_troubles()
    place = city.ports["RVO-001", "line1"]
    config = (
        BusConfig("line1", "tcp", "127.0.0.1", place, timeout_s=0.2)
        if isinstance(place, int)
        else BusConfig(
            "line1", "rtu", port=str(place), baud=38_400, format="8N1", timeout_s=0.2
        )
    )
    try:
        async with technician.serving(config) as bus:
            yield city, bus
    finally:
        await city.close()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("rtu", [0, 1], ids=["tcp", "terminal"])
async def test_a_scan_finds_who_is_there_and_what_fits(tmp_path, rtu):
    async with cabinet(tmp_path, rtu=rtu) as (_, bus):
        found = {
            unit: fits async for unit, fits in technician.scan(bus, [2, 3, 9, 210, 240])
        }
        assert set(found) == {2, 3, 210, 240}
        assert found[2][0] == "luminaire-generic"
        assert "rain-gauge-generic" in found[210]
        assert found[240][0].startswith("eastron-sdm")
        assert not any("eastron" in name for name in found[2])


async def test_reading_and_writing_within_what_is_allowed(tmp_path):
    async with cabinet(tmp_path) as (city, bus):
        await technician.write(bus, lamp("L2", 2), LEVEL, 40)
        assert city.luminaires["RVO-001-L002"].lamp.setpoint == pytest.approx(0.4)
        values = await technician.read(bus, 2, profiles.load("luminaire-generic"))
        assert values[LEVEL] == 40
        assert values["voltage_v"] == 230.4
        with pytest.raises(NotAllowed, match="site file"):
            await technician.write(bus, lamp("L3", 3, ()), LEVEL, 40)
        with pytest.raises(NotAllowed, match="outside"):
            await technician.write(bus, lamp("L2", 2), LEVEL, 101)
        assert city.luminaires["RVO-001-L003"].lamp.setpoint == 0


@pytest.mark.system  # real seconds of waiting
async def test_commissioning_judges_each_lamp_and_leaves_it_as_it_was(tmp_path):
    change(tmp_path / "trouble.json", "RVO-001-L002", "burnt_out")
    change(tmp_path / "trouble.json", "RVO-001-L003", "dead")
    async with cabinet(tmp_path) as (city, bus):
        await technician.write(bus, lamp("L1", 1), LEVEL, 25)
        findings = [
            await technician.commission(bus, lamp(f"L{n}", n), settle_s=1.0)
            for n in (1, 2, 3)
        ]
        assert [f.fault for f in findings][:2] == ["", "gives no full light"]
        assert "no answer" in findings[2].fault
        (full, _, full_w), (half, _, half_w), _ = findings[0].steps
        assert (full, half) == (100, 50)
        assert (full_w or 0) > (half_w or 0) > 0
        assert city.luminaires["RVO-001-L001"].lamp.setpoint == pytest.approx(0.25)
        path = tmp_path / "report.txt"
        technician.report(
            findings, path, "RVO-001", dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
        )
        assert "gives no full light" in path.read_text("utf-8")


async def test_a_lamp_blinks_and_is_left_as_it_was(tmp_path):
    async with cabinet(tmp_path) as (city, bus):
        await technician.write(bus, lamp("L1", 1), LEVEL, 30)
        before = city.luminaires["RVO-001-L001"].lamp.switch_ons
        await technician.identify(bus, lamp("L1", 1), times=1)
        after = city.luminaires["RVO-001-L001"].lamp
        assert after.setpoint == pytest.approx(0.3)
        assert after.switch_ons > before
        with pytest.raises(NoAnswer):
            await technician.identify(bus, lamp("L9", 99), times=1)


def test_the_plan_of_a_line_by_the_arithmetic_of_its_frames():
    """Eleven registers at 19200 8E1: 35 characters and two silences, and the turnaround."""
    file = parse(
        technician.example("RVO-007")
        + "".join(
            technician.device_text("RVO-007", "line1", n, GENERIC) for n in range(1, 61)
        )
    )
    (plan,) = technician.plans(file, turnaround_s=0.02)
    character = 11 / 19_200
    assert plan.requests == 60
    assert plan.cycle_s == pytest.approx(60 * ((35 + 7) * character + 0.02))
    assert plan.load == pytest.approx((plan.cycle_s or 0) / 10)


def test_the_example_is_a_good_site_file_and_an_unknown_device_is_named():
    file = parse(
        technician.example("RVO-007")
        + technician.device_text("RVO-007", "line1", 1, GENERIC)
    )
    assert file.site.controller == "RVO-007"
    assert technician.device_of(file, "RVO-007-line1-U001")[1].name == "line1"
    with pytest.raises(ConfigError, match="L9"):
        technician.device_of(file, "L9")
