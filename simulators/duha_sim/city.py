"""A whole city behind real Modbus ports, in one process."""

import asyncio
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

from duha_contract.clock import Clock
from duha_edge.profiles import load
from duha_sim.devices import GaugeUnit, Luminaire, MeterUnit
from duha_sim.modbus import RtuPort, TcpPort, Unit, answer
from duha_sim.physics import Lamp, LampType
from duha_sim.storm import Weather
from duha_sim.streets import TYPES, Bus, Cabinet, City, Device
from duha_sim.trouble import LATE_S, Troubles


@dataclass
class Line:
    """One line of a cabinet: its units by address, and the port that they share."""

    cabinet: Cabinet
    bus: Bus
    units: dict[int, tuple[Device, Unit]]
    troubles: Troubles

    async def respond(self, unit: int, pdu: bytes) -> bytes | None:
        """What the line answers; None is silence."""
        if self.troubles.of(self.cabinet.id) == "link_cut":
            return None
        if unit == 0:
            for _, simulated in self.units.values():
                answer(simulated, pdu)
            return None
        if unit not in self.units:
            return None
        device, simulated = self.units[unit]
        trouble = self.troubles.of(device.id)
        if trouble == "dead":
            return None
        if trouble == "late":
            await asyncio.sleep(LATE_S)
        return answer(simulated, pdu)

    def spoil(self, unit: int, frame: bytes) -> bytes:
        """Let trouble change the bytes of an answer."""
        return self.troubles.spoil(self.units[unit][0].id, frame)


class SimulatedCity:
    """Every device of a city, served until closed.

    `ports` says afterwards where each line is: ``(cabinet, bus)`` to a TCP port or
    the path of a serial terminal.
    """

    def __init__(
        self, city: City, clock: Clock, weather: Weather, troubles: Troubles,
        folder: Path, baud: int = 38_400, seed: int = 1,
    ) -> None:  # fmt: skip
        self.city = city
        self._clock = clock
        self._weather = weather
        self._troubles = troubles
        self._folder = folder
        self._baud = baud
        self._chance = random.Random(seed)
        self._servers: list[TcpPort | RtuPort] = []
        self.luminaires: dict[str, Luminaire] = {}
        self.gauges: dict[str, GaugeUnit] = {}
        self.ports: dict[tuple[str, str], int | Path] = {}

    async def start(self, ports: dict[tuple[str, str], int] | None = None) -> None:
        """Open every port; `ports` asks for certain TCP ports."""
        for cabinet in self.city.cabinets:
            units = self._units(cabinet)
            for bus in cabinet.buses:
                mine = {
                    d.unit: (d, units[d.id])
                    for d in cabinet.devices
                    if d.bus == bus.name
                }
                line = Line(cabinet, bus, mine, self._troubles)
                wanted = (ports or {}).get((cabinet.id, bus.name), 0)
                await self._open(line, wanted)

    async def close(self) -> None:
        """Close every port."""
        for server in self._servers:
            await server.close()

    def apply_troubles(self) -> None:
        """Bring lamps and funnels into the state that the trouble file asks for."""
        self._troubles.refresh()
        for name, luminaire in self.luminaires.items():
            luminaire.set_trouble(self._troubles.of(name))
        for name, gauge in self.gauges.items():
            gauge.set_blocked(self._troubles.of(name) == "blocked")

    async def _open(self, line: Line, wanted: int) -> None:
        key = (line.cabinet.id, line.bus.name)
        server: TcpPort | RtuPort
        if line.bus.type == "rtu":
            path = self._folder / f"{line.cabinet.id}-{line.bus.name}.tty"
            server = RtuPort(line.respond, line.spoil, path, self._baud)
            await server.start()
            self.ports[key] = path
        else:
            server = TcpPort(line.respond, line.spoil, wanted)
            await server.start()
            self.ports[key] = server.port
        self._servers.append(server)

    def _units(self, cabinet: Cabinet) -> dict[str, Unit]:
        units: dict[str, Unit] = {}
        lamps = []
        for device in (d for d in cabinet.devices if d.kind == "luminaire"):
            kind = LampType(rated_w=TYPES[device.type])
            hours = self._chance.uniform(200, 9000)
            lamp = Lamp(
                kind, burning_s=hours * 3600, energy_wh=hours * kind.rated_w * 0.7
            )
            unit = Luminaire(load(device.profile), self._clock, lamp)
            lamps.append(unit)
            units[device.id] = self.luminaires[device.id] = unit
        for device in cabinet.devices:
            profile = load(device.profile)
            if device.kind == "meter":
                units[device.id] = MeterUnit(profile, self._clock, lamps)
            elif device.kind == "rain_gauge":
                # Some counters are about to roll over: that must cost no rain.
                tips = self._chance.choice((120, 65_530, 31_400))
                place = (device.latitude, device.longitude)
                gauge = GaugeUnit(profile, self._clock, self._weather, place, tips)
                units[device.id] = self.gauges[device.id] = gauge
        return units


async def serve(simulated: SimulatedCity, ports_file: Path) -> None:
    """Serve the city until cancelled; say in `ports_file` where the lines are."""
    await simulated.start()
    try:
        listing = {
            f"{cabinet}/{bus}": str(port)
            for (cabinet, bus), port in simulated.ports.items()
        }
        ports_file.write_text(json.dumps(listing), "utf-8")
        while True:
            simulated.apply_troubles()
            await asyncio.sleep(0.5)
    finally:
        await simulated.close()


def real_clock() -> Clock:
    """A clock on real time, for a simulator of its own."""
    return Clock(time.time)
