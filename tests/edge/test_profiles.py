"""Golden cases: one folder each, registers as a manual has them, and what they mean.

A new case needs no Python: a ``case.toml`` with the profile, the registers by table and
address, the readings, and the quantities that have no value.
"""

import asyncio
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from duha_edge import profiles
from duha_edge.bus import Bus
from duha_edge.errors import ConfigError
from duha_edge.points import Block, blocks, decode
from duha_edge.site import BusConfig, DeviceConfig
from duha_edge.units import Device, Unit
from duha_sim.devices import ProfileUnit
from duha_sim.modbus import ILLEGAL_ADDRESS, Refusal, TcpPort, answer

CASES = sorted((Path(__file__).parent / "cases").iterdir())


def load(folder):
    case = tomllib.loads((folder / "case.toml").read_text("utf-8"))
    profile = profiles.load(case["profile"]).placed(case.get("at", {}))
    words = {
        table: {
            int(a) + i: w for a, block in found.items() for i, w in enumerate(block)
        }
        for table, found in case["registers"].items()
    }
    return case, profile, words


@pytest.mark.parametrize("folder", CASES, ids=lambda f: f.name)
def test_registers_mean_what_the_manual_says(folder):
    case, profile, words = load(folder)
    found = {p.quantity: decode(p, words.get(p.table, {})) for p in profile.point}
    assert {q for q, value in found.items() if value is None} == set(case["missing"])
    good = {q: value for q, value in found.items() if value is not None}
    assert good == pytest.approx(case["readings"], abs=1e-5)


def test_every_profile_has_a_case():
    assert {load(folder)[0]["profile"] for folder in CASES} == set(profiles.names())


@pytest.mark.parametrize("folder", CASES, ids=lambda f: f.name)
async def test_a_simulated_device_says_it_over_the_wire(folder):
    """The simulator made from the same file, read through a real port by the agent's bus."""
    case, profile, _ = load(folder)
    unit = ProfileUnit(profile, case["readings"])

    async def respond(_unit, pdu):
        return answer(unit, pdu)

    port = TcpPort(respond, lambda _, frame: frame)
    await port.start()
    bus = Bus(BusConfig("b", "tcp", "127.0.0.1", port.port))
    serving = asyncio.create_task(bus.run())
    words: dict[tuple[str, int], int] = {}
    for block in blocks(profile.point, fences=profile.fence, alone=profile.alone):
        found = await bus.read(1, block)
        words |= {(block.table, address): word for address, word in found.items()}
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await port.close()
    await asyncio.sleep(0.02)
    for point in profile.point:
        mine = {a: w for (table, a), w in words.items() if table == point.table}
        wanted = case["readings"].get(point.quantity)
        if wanted is not None:
            assert decode(point, mine) == pytest.approx(wanted, abs=1e-5)


def test_a_device_behind_a_gateway_is_placed_within_its_bounds():
    gateway = profiles.load("intesis-inmbsdal")
    level = gateway.placed({"channel": 1, "short": 63}).point_of("level_in_effect_pct")
    assert level is not None
    assert level.address == 7000 + 6300 + 15
    for at in (
        {},
        {"channel": 0},
        {"channel": 2, "short": 0},
        {"channel": 0, "short": -1},
    ):
        with pytest.raises(ConfigError):
            gateway.placed(at)
    with pytest.raises(ConfigError, match="nothing"):
        profiles.load("luminaire-generic").placed({"short": 1})


def test_what_restarts_with_each_reading_is_never_touched():
    gauge = profiles.load("delta-ohm-hd2016")
    touched = {
        b.address + i
        for b in blocks(gauge.point, 125, fences=gauge.fence)
        for i in range(b.length)
    }
    assert touched.isdisjoint({2, 3})


def unit(profile):
    device = Device(DeviceConfig("D1", "b", 1, profile), profiles.load(profile))
    return Unit(1, [device], slow_s=900)


def test_a_device_that_refuses_a_hole_is_asked_around_it_from_then_on():
    everything = frozenset(("fast", "slow", "nightly", "once"))
    device = unit("delta-ohm-hd2016")
    device._fences = ()  # as if its fence were not known
    (whole,) = device.blocks(everything)
    assert whole == Block("input", 0, 12)
    assert device.learn(whole)
    assert device.blocks(everything) == (
        Block("input", 0, 1), Block("input", 4, 2), Block("input", 10, 2),
    )  # fmt: skip
    assert not device.learn(Block("input", 4, 2))


def test_slow_points_are_read_now_and_then():
    device = unit("eastron-sdm630")
    assert device.due(0) == {"fast", "slow"}
    device.was_read(device.due(0), 0)
    assert device.due(10) == {"fast"}
    assert device.due(900) == {"fast", "slow"}
    (meter,) = device.devices
    power, energy = map(meter.profile.point_of, ("power_w", "energy_kwh"))
    read = {
        b.address + i for b in device.blocks(device.due(10)) for i in range(b.length)
    }
    assert power.address in read
    assert energy.address not in read


def test_a_simulated_device_refuses_what_the_real_one_refuses():
    gauge = ProfileUnit(profiles.load("delta-ohm-hd2016"), {"counter_raw": 5})
    with pytest.raises(Refusal) as caught:
        gauge.read("input", 0, 6)
    assert caught.value.code == ILLEGAL_ADDRESS
    lamp = ProfileUnit(
        profiles.load("bacmove-dalion").placed({"channel": 0, "lamp": 3}), {}
    )
    lamp.write(3, [102])
    assert lamp.values()["level_in_effect_pct"] == pytest.approx(40)
    for address, word in ((4, 10), (3, 256)):
        with pytest.raises(Refusal):
            lamp.write(address, [word])


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("low = 0", "low = nan", "write range"),
        ("high = 100", "high = inf", "write range"),
        ("low = 0", "low = 200", "write range"),
        ("scale = 0.1", "scale = nan", "scale"),
        ("scale = 0.1", "scale = 0.1\noffset = inf", "offset"),
        ("scale = 0.1", "scale = " + "[" * 20_000, "nested"),
        ("[[point]]", "#" * 2_000_000 + "\n[[point]]", "more than"),
    ],
)
def test_a_profile_that_cannot_work_is_refused(old, new, named):
    shipped = resources.files(profiles).joinpath("luminaire-generic.toml")
    text = shipped.read_text("utf-8")
    assert old in text
    with pytest.raises(ConfigError, match=named):
        profiles.parse(text.replace(old, new, 1))
