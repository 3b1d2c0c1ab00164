"""The field of a simulated city: devices behind Modbus ports, one agent a cabinet.

``duha sim field`` runs it against a broker that is somewhere; the demo and the system
tests run it with a broker and a backend of their own.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

from duha_sim import streets
from duha_sim.processes import Processes, TownError
from duha_sim.streets import City

PERIOD_S = 15.0


class Broker(NamedTuple):
    """Where agents publish to, and as whom."""

    host: str
    port: int
    user: str = ""
    password_file: str = ""


class Field(Processes):
    """Devices and agents of a city; the options lay out the city."""

    def start_devices(self, options: argparse.Namespace, storm_at: float) -> None:
        """Start the simulated devices."""
        folder = self.folder / "devices"
        folder.mkdir(exist_ok=True)
        (folder / "ports.json").unlink(missing_ok=True)
        replay = ("--replay", str(options.replay)) if options.replay else ()
        self.spawn(
            "devices", "sim", "city", str(folder),
            "--cabinets", str(options.cabinets), "--luminaires", str(options.luminaires),
            "--gauges", str(options.gauges), "--rtu", str(options.rtu),
            "--seed", str(options.seed), "--storm-at", str(storm_at), *replay,
        )  # fmt: skip

    def start_agents(self, city: City, broker: Broker, period_s: float) -> None:
        """Start an agent for each cabinet, as soon as the devices are there."""
        path = self.folder / "devices" / "ports.json"
        self.until("the simulated devices", path.exists)
        ports = json.loads(path.read_text("utf-8"))
        for cabinet in city.cabinets:
            site = self.folder / cabinet.id / "site.toml"
            site.parent.mkdir(exist_ok=True)
            text = site_file(city.id, cabinet, ports, site.parent, broker, period_s)
            site.write_text(text, "utf-8")
            self.spawn(cabinet.id, "edge", "run", str(site))


def run(city: City, options: argparse.Namespace) -> int:
    """Run a field until it is told to stop; returns the exit status."""
    host, _, port = options.broker.partition(":")
    broker = Broker(host, int(port or 1883), options.broker_user, options.broker_password_file)  # fmt: skip
    options.folder.mkdir(parents=True, exist_ok=True)
    field = Field(options.folder.resolve())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        field.start_devices(options, time.time() + options.storm_after * 60)
        field.start_agents(city, broker, PERIOD_S)
        field.say(f"{len(city.cabinets)} cabinets report to {options.broker}")
        while True:
            field.check()
            time.sleep(1.0)
    except KeyboardInterrupt:
        return 0
    except TownError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        agents = [name for name in field.children if name != "devices"]
        field.end(agents)
        field.end(["devices"])


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def site_file(
    city: str,
    cabinet: streets.Cabinet,
    ports: dict[str, str],
    data: Path,
    broker: Broker,
    period_s: float,
) -> str:
    """The site file of a simulated cabinet."""
    lines = [
        "[site]",
        f'city = "{city}"',
        f'controller = "{cabinet.id}"',
        f"latitude = {cabinet.latitude}",
        f"longitude = {cabinet.longitude}",
        f'zone = "{streets.ZONE}"',
        f"period_s = {period_s}",
        f'data = "{data}"',
        "[broker]",
        f'host = "{broker.host}"',
        f"port = {broker.port}",
    ]
    if broker.user:
        lines += [f'username = "{broker.user}"', f'password_file = "{broker.password_file}"']  # fmt: skip
    for bus in cabinet.buses:
        where = ports[f"{cabinet.id}/{bus.name}"]
        lines += ["[[bus]]", f'name = "{bus.name}"', f'type = "{bus.type}"']
        if bus.type == "rtu":  # a pseudo-terminal knows no parity, hence 8N1
            lines += [f'port = "{where}"', "baud = 38400", 'format = "8N1"']
        else:
            lines += ['host = "127.0.0.1"', f"port = {where}"]
    for device in cabinet.devices:
        lines += [
            "[[device]]",
            f'id = "{device.id}"',
            f'bus = "{device.bus}"',
            f"unit = {device.unit}",
            f'profile = "{device.profile}"',
        ]
        if device.kind == "luminaire":
            lines.append('writes = ["level_in_effect_pct"]')
    return "\n".join(lines) + "\n"
