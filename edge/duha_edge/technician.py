"""What a technician does at a cabinet: look who answers, read, write, watch, commission."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from duha_contract.quantities import BY_NAME
from duha_edge import profiles
from duha_edge.bus import Bus
from duha_edge.errors import BusError, ConfigError, NoAnswer, NotAllowed
from duha_edge.points import (
    MAX_WORDS,
    Block,
    blocks,
    decode,
    register_write,
    worth_reading,
)
from duha_edge.profiles import BITS, Profile
from duha_edge.site import BusConfig, SiteFile
from duha_edge.units import LEVEL, Device, line_plans, units_of

SETTLE_S = 10.0
"""Longest time that a lamp is given to follow its set-point [s]."""
LOOK_S = 0.5


@contextlib.asynccontextmanager
async def serving(config: BusConfig) -> AsyncIterator[Bus]:
    """A line that is served for as long as it is used."""
    bus = Bus(config)
    task = asyncio.create_task(bus.run(), name=f"bus {config.name}")
    try:
        yield bus
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def device_of(file: SiteFile, name: str) -> tuple[Device, BusConfig]:
    """A device of a site file, with its profile, and its line.

    Raises
    ------
    ConfigError
        There is no such device.
    """
    for plan in line_plans(file).values():
        for device in plan.devices:
            if device.id == name:
                return device, plan.bus
    some = ", ".join(d.id for d in file.device[:5])
    raise ConfigError(f"no device {name!r} in the site file; there are {some} ...")


async def read(bus: Bus, unit: int, profile: Profile) -> dict[str, float | None]:
    """Every quantity of a device, once; raises BusError."""
    words: dict[tuple[str, int], int] = {}
    for block in blocks(
        profile.point,
        fences=profile.fence,
        alone=profile.alone,
        max_words=profile.max_words,
    ):
        found = await bus.read(unit, block)
        words |= {(block.table, address): word for address, word in found.items()}
    return {
        point.quantity: decode(
            point, {a: w for (table, a), w in words.items() if table == point.table}
        )
        for point in profile.point
    }


async def write(bus: Bus, device: Device, quantity: str, value: float) -> None:
    """Write a quantity that site file and profile allow.

    Raises
    ------
    NotAllowed, BusError
        Nothing was written, or nobody confirmed it.
    """
    if quantity not in device.config.writes:
        raise NotAllowed(
            f"the site file does not let {quantity} of {device.id} be written"
        )
    profile = device.profile
    wanted = register_write(profile.point_of(quantity), profile.name, quantity, value)
    await bus.write(device.config.unit, wanted.address, wanted.word, wanted.function)


async def scan(
    bus: Bus, units: Iterable[int], library: profiles.Library | None = None
) -> AsyncIterator[tuple[int, list[str]]]:
    """Units that answer, each with the profiles that fit what it lets be read.

    The profile that explains most of the unit comes first.
    """
    known = library or profiles.Library()
    found = sorted(map(known.load, known.names), key=lambda p: -len(p.point))
    for unit in units:
        if await _answers(bus, unit):
            yield unit, [p.name for p in found if await _fits(bus, unit, p)]


async def _answers(bus: Bus, unit: int) -> bool:
    """Whether anybody is there: a refusal or a garbled answer is one too."""
    try:
        await bus.read(unit, Block("holding", 0, 1))
    except NoAnswer:
        return False
    except BusError:
        return True
    return True


async def _fits(bus: Bus, unit: int, profile: Profile) -> bool:
    """Whether a unit lets every point of a profile be read, and gives values that can be."""
    if profile.index:
        profile = profile.placed(dict.fromkeys(profile.index, 0))
    try:
        values = await read(bus, unit, profile)
    except BusError:
        return False
    known = BY_NAME[profile.kind]
    return all(
        value is None or known[q].low <= value <= known[q].high
        for q, value in values.items()
    )


@dataclass(frozen=True)
class Finding:
    """What commissioning has found of one luminaire: light and power at each level."""

    device: str
    steps: tuple[tuple[int, float | None, float | None], ...]
    fault: str

    def __str__(self) -> str:
        told = "  ".join(
            f"{level:3d} %: light {_text(light)} %, power {_text(power)} W"
            for level, light, power in self.steps
        )
        return f"{self.device:20} {self.fault or 'in order':28} {told}"


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


async def commission(bus: Bus, device: Device, settle_s: float = SETTLE_S) -> Finding:
    """Light a luminaire, dim it, put it out, and leave it as it was found."""
    unit, profile = device.config.unit, device.profile
    steps: list[tuple[int, float | None, float | None]] = []
    try:
        found = await read(bus, unit, profile)
        before = found.get(LEVEL)
        for level in (100, 50, 0):
            await write(bus, device, LEVEL, level)
            light, power = await _settled(bus, unit, profile, level, settle_s)
            steps.append((level, light, power))
        await write(bus, device, LEVEL, before or 0)
    except (BusError, NotAllowed) as error:
        return Finding(device.id, tuple(steps), str(error))
    return Finding(device.id, tuple(steps), _fault(steps) or _unsafe(found))


async def _settled(
    bus: Bus, unit: int, profile: Profile, level: int, settle_s: float
) -> tuple[float | None, float | None]:
    """Light [%] and power [W], as soon as the light has come to the level, or in the end."""
    rest = settle_s
    while True:
        await asyncio.sleep(min(LOOK_S, settle_s))
        rest -= LOOK_S
        values = await read(bus, unit, profile)
        light = values.get("level_actual_pct", values.get(LEVEL))
        if rest <= 0 or (light is not None and abs(light - level) <= 1):
            return light, values.get("power_w")


def _fault(steps: list[tuple[int, float | None, float | None]]) -> str:
    """What is wrong with light and power at 100, 50 and 0 %."""
    (_, full, full_w), (_, half, half_w), (_, off, _) = steps
    if full is not None and full < 90:
        return "gives no full light"
    if half is not None and not 40 <= half <= 60:
        return "does not dim"
    if off is not None and off > 5:
        return "does not go out"
    if full_w is not None and half_w is not None and not half_w < 0.9 * full_w:
        return "power does not fall when dimmed"
    return ""


def _unsafe(found: Mapping[str, float | None]) -> str:
    """Whether the driver would be dark, or dim, when nobody tells it anything."""
    for name, when in (
        ("system_failure_level_pct", "when its gateway is silent"),
        ("power_on_level_pct", "when power comes back"),
    ):
        level = found.get(name)
        if level is not None and level < 100:
            return f"gives {level:.0f} % {when}: it must be 100 %"
    return ""


async def identify(bus: Bus, device: Device, times: int = 5) -> None:
    """Blink a luminaire, and leave it as it was found; raises BusError, NotAllowed."""
    unit, profile = device.config.unit, device.profile
    before = (await read(bus, unit, profile)).get(LEVEL)
    for _ in range(times):
        for level in (100, 0):
            await write(bus, device, LEVEL, level)
            await asyncio.sleep(0.7)
    await write(bus, device, LEVEL, before or 0)


@dataclass(frozen=True)
class Plan:
    """What one cycle of a line takes: requests, time [s], share of the period."""

    bus: str
    devices: int
    requests: int
    cycle_s: float | None
    load: float | None

    def __str__(self) -> str:
        if self.cycle_s is None or self.load is None:
            time = "time depends on the network"
        else:
            time = f"about {self.cycle_s:.2f} s, {self.load:.0%} of the period"
        return f"  {self.bus}: {self.devices} devices, {self.requests} requests a cycle, {time}"


def plans(file: SiteFile, turnaround_s: float = 0.01) -> list[Plan]:
    """The request plan of every line, by the arithmetic of its frames."""
    found = []
    for plan in line_plans(file).values():
        bus = plan.bus
        gap = worth_reading(bus.baud, turnaround_s) if bus.type == "rtu" else MAX_WORDS
        requests = [
            block
            for unit in units_of(plan)
            for block in unit.blocks(frozenset(("fast",)), gap)
        ]
        seconds = load = None
        if bus.type == "rtu":
            seconds = sum(request_s(bus, block, turnaround_s) for block in requests)
            load = seconds / file.site.period_s
        found.append(Plan(bus.name, len(plan.devices), len(requests), seconds, load))
    return found


def request_s(bus: BusConfig, block: Block, turnaround_s: float) -> float:
    """Time [s] of a read on a serial line.

    8 characters of request, 5 and two for each register (or an eighth for each bit) of
    answer, a silence after each, and the turnaround. MODBUS over Serial Line V1.02, 2.5.1.
    """
    character = bus.character_s
    silence = 3.5 * character if bus.baud <= 19_200 else 0.00175
    payload = -(-block.length // 8) if block.table in BITS else 2 * block.length
    return (13 + payload) * character + 2 * silence + turnaround_s


EXAMPLE = """\
# Site file of a cabinet; `duha edge check` reads it and names a mistake with its line.

[site]
city = "plzen"
controller = "{controller}"        # letters, digits, dot, underscore, hyphen
latitude = 49.7475
longitude = 13.3776
zone = "Europe/Prague"
period_s = 10                 # how often everything is read
data = "data"                 # outbox and desired document

[broker]
host = "127.0.0.1"
port = 1883
# username = "{controller}"
# password_file = "/etc/duha/password"
# tls_ca = "/etc/duha/ca.pem"

[[bus]]
name = "line1"
type = "rtu"                  # or "tcp", with host and port = 502
port = "/dev/ttyUSB0"         # an FTDI adapter waits 16 ms unless its latency timer is set to 1
# rs485 = {{ before_s = 0.001 }}  # where the port's driver has to switch the direction by RTS
# pause_s = 0.02              # for devices that need a rest before each request
baud = 19200
format = "8E1"
timeout_s = 0.5

# Devices follow; `duha edge scan FILE --add` writes those that answer.
"""

DEVICE = """
[[device]]
id = "{name}"
bus = "{bus}"
unit = {unit}
profile = "{profile}"
{writes}"""


def example(controller: str) -> str:
    """A commented site file with one line and no device yet."""
    return EXAMPLE.format(controller=controller)


def device_text(controller: str, bus: str, unit: int, profile: Profile) -> str:
    """The lines of a site file for a device."""
    known = profile.point_of(LEVEL)
    writable = known is not None and known.write is not None
    rule = f'writes = ["{LEVEL}"]    # nothing else is ever written\n'
    return DEVICE.format(
        name=f"{controller}-{bus}-U{unit:03d}",
        bus=bus,
        unit=unit,
        profile=profile.name,
        writes=rule if writable else "",
    )


def report(
    findings: Iterable[Finding], path: Path, controller: str, moment: dt.datetime
) -> None:
    """Keep the findings of a commissioning as a text."""
    now = moment.isoformat(timespec="seconds")
    lines = [f"Commissioning of {controller}, {now}", "", *map(str, findings)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
