"""The processes of a simulated town: broker, devices, backend, one agent a cabinet.

What ``duha demo`` shows, and what the system tests break.
"""

import argparse
import contextlib
import ctypes
import datetime as dt
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from duha_contract.clock import TIMELINE_VARIABLE, Timeline
from duha_contract.lighting import Sun
from duha_contract.programmes import Place
from duha_sim import streets
from duha_sim.cli import city_of
from duha_sim.physics import LampType, power
from duha_sim.sewer import OVERFLOW, Variant, sewer
from duha_sim.streets import City

LEAD_S = 15.0
"""Real seconds between the start and dusk: time for everything to be up."""
STORM_AFTER_S = 22 * 60.0
POLL_REAL_S = 3.0
PLACE = Place(*streets.PLZEN, streets.ZONE)
SEWERS: dict[Variant, str] = {
    "today": "Sewer today",
    "gardens": "Sewer with rain gardens",
}
SEWER_STREETS = 60
CHAMBER_STAGES_M = [0.5, 1.1, 1.4]
"""The second is the crest of the weir: from there on it spills into the river."""
DESIGN_RAIN = {
    "name": "Example", "source": "an example for the demo; no city's and no norm's",
    "durations_min": [5, 10, 15, 30, 60, 120, 360, 1440],
    "periods_a": [1, 2, 5, 10, 50],
    "depth_mm": [
        [4.5, 6.0, 8.5, 10.2, 14.0], [6.4, 8.4, 12.1, 14.6, 20.2],
        [7.6, 10.1, 14.6, 17.5, 24.5], [9.6, 12.6, 18.4, 22.2, 31.2],
        [11.4, 14.8, 21.6, 26.0, 36.6], [13.4, 17.4, 25.0, 30.0, 42.0],
        [18.0, 23.5, 33.0, 39.5, 54.5], [26.0, 33.0, 45.0, 53.0, 71.0],
    ],
}  # fmt: skip

PROGRAMME = {
    "name": "Residential streets",
    "steps": [
        {"at": "sunset", "level": 100, "fade_s": 60},
        {"at": "sunset+20", "level": 55, "fade_s": 60},
        {"at": "22:00", "level": 40, "fade_s": 120},
        {"at": "05:00", "level": 80, "fade_s": 120},
    ],
    "active": [{"start": "sunset", "end": "sunrise"}],
    "effects": [{"on": "wet_road"}],
}


TARIFF = {
    "name": "Demo",
    "price_per_kwh": 4.0,
    "co2_kg_per_kwh": 0.4,
    "source": "round figures of the demo, no city's",
    "cabinet_w": 8,
}


class TownError(Exception):
    """A part of the town did not come up, or went away."""


class Town:
    """The processes of a town and the order in which they come and go.

    Parameters
    ----------
    options : argparse.Namespace
        As ``duha demo`` takes them.
    folder : Path
        Where everything is kept: stores, outboxes, logs.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(exist_ok=True)
        self.city = city_of(options)
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}
        self.timeline, self._dusk = self._evening()
        self.broker_port = _free_port()
        self.http_port = _free_port(options.port)
        self.broker: str = options.broker
        self.token = ""
        self._began = time.monotonic()

    # -- up ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start every process and wait until readings of every cabinet arrive.

        Raises
        ------
        TownError
            Names the part that did not come up.
        """
        city, options = self.city, self._options
        lamps = sum(d.kind == "luminaire" for c in city.cabinets for d in c.devices)
        self._say(f"{len(city.cabinets)} cabinets, {lamps} luminaires: devices ...")
        devices = self.folder / "devices"
        devices.mkdir(exist_ok=True)
        ports_file = devices / "ports.json"
        ports_file.unlink(missing_ok=True)
        replay = ("--replay", str(options.replay)) if options.replay else ()
        self._spawn(
            "devices", "sim", "city", str(devices),
            "--cabinets", str(options.cabinets), "--luminaires", str(options.luminaires),
            "--gauges", str(options.gauges), "--rtu", str(options.rtu),
            "--seed", str(options.seed),
            "--storm-at", str(self._dusk + STORM_AFTER_S), *replay,
        )  # fmt: skip
        self._say(f"broker ({options.broker}) on port {self.broker_port} ...")
        self._spawn_broker()
        self._say("backend ...")
        first = self._spawn_backend()
        self.until("the broker", lambda: _listens(self.broker_port))
        self.until("the simulated devices", ports_file.exists)
        ports = json.loads(ports_file.read_text("utf-8"))
        self._say("one agent for each cabinet ...")
        for cabinet in city.cabinets:
            site = self.folder / cabinet.id / "site.toml"
            site.parent.mkdir(exist_ok=True)
            period = POLL_REAL_S * self.timeline.rate
            text = site_file(
                city.id, cabinet, ports, site.parent, self.broker_port, period
            )
            site.write_text(text, "utf-8")
            self._spawn(cabinet.id, "edge", "run", str(site))
        self.until("the backend", lambda: _listens(self.http_port))
        if first:
            self.until("the backend's token", self._find_token)
            self._programme(city)
            self._sewers(city)
            self._until_live(lamps)

    def _spawn_broker(self) -> None:
        if self._options.broker == "embedded":
            self._spawn("broker", "backend", "broker", "--port", str(self.broker_port))
            return
        binary = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
        if binary is None:
            raise TownError("mosquitto is not installed: apt-get install mosquitto")
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.broker_port} 127.0.0.1\nallow_anonymous true\n"
            "set_tcp_nodelay true\n"
        )
        self._spawn_command("broker", [binary, "-c", str(config)])

    def _spawn_backend(self) -> bool:
        """Start the backend; True when its stores are new, and it prints a token."""
        data = self.folder / "backend"
        first = not (data / "registry.db").exists()
        plan = self.folder / "city.geojson"
        plan.write_text(json.dumps(streets.geojson(self.city)), "utf-8")
        loaded = subprocess.run(
            [sys.executable, "-m", "duha", "backend", "import", str(plan), "--data", str(data)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if loaded.returncode != 0:
            raise TownError(f"the city could not be imported: {loaded.stderr}")
        self._spawn(
            "backend", "backend", "run", "--data", str(data),
            "--port", str(self.http_port), "--broker", f"127.0.0.1:{self.broker_port}",
            "--name", self.city.name,
        )  # fmt: skip
        return first

    def _programme(self, city: City) -> None:
        """Give the city a programme, as an operator would: through the API."""
        self._inventory(city)
        self.ask("PUT", "/programmes/residential", PROGRAMME)
        calendar = {"name": "Every night", "default": "residential"}
        self.ask("PUT", "/calendars/every-night", calendar)
        self.ask("PUT", "/assignments/*", {"calendar": "every-night"})
        main = {street.name for street in city.streets if street.main}
        members = [
            device.id
            for cabinet in city.cabinets
            for device in cabinet.devices
            if device.kind == "luminaire" and device.street in main
        ]
        self.ask(
            "PUT", "/groups/main-streets", {"name": "Main streets", "members": members}
        )

    def _inventory(self, city: City) -> None:
        """Types of luminaires, and lighting classes of the stretches."""
        for name, watts in streets.TYPES.items():
            lamp = LampType(rated_w=watts)
            points = [[x, round(power(lamp, x / 100), 2)] for x in range(10, 101, 10)]
            curve = [[0, lamp.standby_w], *points]
            self.ask(
                "PUT", f"/types/{name}",
                {"name": name, "rated_w": watts, "standby_w": lamp.standby_w, "curve": curve},
            )  # fmt: skip
        main = {street.name for street in city.streets if street.main}
        lamps = [d for c in city.cabinets for d in c.devices if d.stretch]
        for name, street in sorted({(d.stretch, d.street) for d in lamps}):
            normal, *adaptive = (
                ("M4", "M5", "M6") if street in main else ("P4", "P5", "P6")
            )
            stretch = {"name": street, "normal": normal, "adaptive": adaptive}
            self.ask("PUT", f"/stretches/{name}", stretch)
        self.ask("PUT", "/tariffs/energy", TARIFF)

    def _sewers(self, city: City) -> None:
        """Two models of one combined sewer: as it is, and with rain gardens."""
        gauges = [
            d.id for c in city.cabinets for d in c.devices if d.kind == "rain_gauge"
        ]
        if not gauges:
            return
        self.ask("PUT", "/design-rain/example", DESIGN_RAIN)
        for variant, name in SEWERS.items():
            text = sewer(SEWER_STREETS, gauges, variant)
            body = {"name": name, "inp": text, "replay_days": 1}
            self.ask("PUT", f"/models/sewer-{variant}", body)
            watch = {
                "name": f"{name}: overflow chamber", "model": f"sewer-{variant}",
                "object": OVERFLOW, "stages": CHAMBER_STAGES_M,
            }  # fmt: skip
            self.ask("PUT", f"/watches/chamber-{variant}", watch)
        for cabinet in city.cabinets:
            catchment = {
                "name": f"Around {cabinet.id}", "latitude": cabinet.latitude,
                "longitude": cabinet.longitude, "area_ha": 12, "coefficient": 0.5,
                "outline": _square(cabinet.latitude, cabinet.longitude, 12),
            }  # fmt: skip
            self.ask("PUT", f"/catchments/{cabinet.id}", catchment)

    def _until_live(self, lamps: int) -> None:
        def live() -> bool:
            figures = self.ask("GET", "/system")["figures"]
            if figures["stale"] or figures["luminaires"] != lamps:
                return False
            read = self.ask("GET", "/latest/luminaire?columns=power_w")["columns"]["ts"]
            return len(read) >= lamps and all(read)

        self.until("readings of every cabinet", live, limit=60)

    # -- while it runs -------------------------------------------------------------------

    def watch(self) -> None:
        """One look at the processes; raises TownError when one has ended."""
        self._check_children()
        self._remember()

    def kill(self, name: str) -> None:
        """End a process at once, as a power cut would (SIGKILL)."""
        child = self.children.pop(name)
        child.kill()
        child.wait()

    def again(self, name: str) -> None:
        """Start a process that was killed, with the command that it had."""
        self._spawn_command(name, self._commands[name])

    def _check_children(self) -> None:
        for name, child in self.children.items():
            if child.poll() is not None:
                raise TownError(
                    f"{name} ended ({child.returncode}):\n{self._tail(name)}"
                )

    def _remember(self) -> None:
        """Keep where the city's clock is, so that a next start goes on from there."""
        shown = self.timeline.at(time.time())
        (self.folder / "clock.json").write_text(json.dumps({"shown": shown}))

    def stop(self) -> None:
        """End the children, agents first so that they can say goodbye."""
        last = ("backend", "devices", "broker")
        order = [n for n in self.children if n not in last] + list(last)
        groups = (order[:-3], *([name] for name in last))
        for group in groups:
            children = [self.children[name] for name in group if name in self.children]
            for child in children:
                child.terminate()
            for child in children:
                try:
                    child.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    # -- help ----------------------------------------------------------------------------

    def _evening(self) -> tuple[Timeline, float]:
        """A timeline that reaches tonight's dusk in a moment, and that dusk [s].

        A folder that has lived through an evening goes on with the next one: time in
        a store never runs backwards.
        """
        now = time.time()
        if self._options.now:
            return Timeline(), now
        sun = Sun(PLACE)
        date = dt.datetime.fromtimestamp(now, dt.UTC).date()
        kept = self.folder / "clock.json"
        if kept.exists():
            shown = json.loads(kept.read_text("utf-8"))["shown"]
            date = max(date, sun.date_of(shown) + dt.timedelta(days=1))
        night = sun.night(date)
        dusk = night.sunset if night else now
        rate = self._options.speed
        return Timeline(now, dusk - LEAD_S * rate, rate), dusk

    def _spawn(self, name: str, *arguments: str) -> None:
        self._spawn_command(name, [sys.executable, "-m", "duha", *arguments])

    def _spawn_command(self, name: str, command: list[str]) -> None:
        self._commands[name] = command
        timeline = "" if self._options.now else str(self.timeline)
        environment = os.environ | {
            TIMELINE_VARIABLE: timeline,
            "PYTHONUNBUFFERED": "1",
        }
        with (self.logs / f"{name}.log").open("ab") as log:
            self.children[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=environment, start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip

    def _find_token(self) -> bool:
        for line in (self.logs / "backend.log").read_text("utf-8").splitlines():
            if line.startswith("token: "):
                self.token = line.removeprefix("token: ")
                # The log stays with --data; a secret does not stay in a log.
                os.truncate(self.logs / "backend.log", 0)
                return True
        return False

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the API, signed in; returns the decoded answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}/api/v1{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            detail = error.read().decode()
            raise TownError(f"{method} {path}: {error.code} {detail}") from None

    def until(self, what: str, ready: Callable[[], bool], limit: float = 30) -> None:
        """Wait for something, while every process is alive."""
        deadline = time.monotonic() + limit
        while not ready():
            self._check_children()
            if time.monotonic() > deadline:
                raise TownError(
                    f"{what} did not come up in {limit:.0f} s; see {self.logs}"
                )
            time.sleep(0.1)

    def _tail(self, name: str) -> str:
        text = (self.logs / f"{name}.log").read_text("utf-8", errors="replace")
        return "\n".join(text.splitlines()[-8:])

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:4.1f} s] {text}", flush=True)


def site_file(
    city: str,
    cabinet: streets.Cabinet,
    ports: dict[str, str],
    data: Path,
    broker_port: int,
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
        f"port = {broker_port}",
    ]
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


def _square(latitude: float, longitude: float, area_ha: float) -> list[list[float]]:
    """Corners (longitude, latitude) of a square of an area [ha] around a place."""
    half = math.sqrt(area_ha * 1e4) / 2 / 111_320
    wide = half / math.cos(math.radians(latitude))
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))
    return [[longitude + x * wide, latitude + y * half] for x, y in corners]


def _die_with_parent() -> None:
    """Linux ends this child when the demo itself is killed."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _free_port(wanted: int = 0) -> int:
    """The wanted port if it is free, else any free one."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise TownError("no free port on 127.0.0.1")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.3)
        return probe.connect_ex(("127.0.0.1", port)) == 0
