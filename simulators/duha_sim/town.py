"""The processes of a simulated town: broker, devices, backend, one agent a cabinet.

What ``duha demo`` shows, and what the system tests break.
"""

import argparse
import contextlib
import datetime as dt
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from duha_contract.clock import Timeline
from duha_contract.lighting import Sun
from duha_contract.programmes import Place
from duha_sim import streets
from duha_sim.cli import city_of
from duha_sim.field import Broker, Field
from duha_sim.physics import LampType, power
from duha_sim.processes import TownError
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


class Town(Field):
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
        self.timeline, self._dusk = self._evening(folder)
        super().__init__(folder, "" if options.now else str(self.timeline))
        self.city = city_of(options)
        self.broker_port = _free_port()
        self.http_port = _free_port(options.port)
        self.broker: str = options.broker
        self.token = ""

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
        self.say(f"{len(city.cabinets)} cabinets, {lamps} luminaires: devices ...")
        self.start_devices(options, self._dusk + STORM_AFTER_S)
        self.say(f"broker ({options.broker}) on port {self.broker_port} ...")
        self._spawn_broker()
        self.say("backend ...")
        first = self._spawn_backend()
        self.until("the broker", lambda: _listens(self.broker_port))
        self.say("one agent for each cabinet ...")
        broker = Broker("127.0.0.1", self.broker_port)
        self.start_agents(city, broker, POLL_REAL_S * self.timeline.rate)
        self.until("the backend", lambda: _listens(self.http_port))
        if first:
            self.until("the backend's token", self._find_token)
            self._programme(city)
            self._sewers(city)
            self._until_live(lamps)

    def _spawn_broker(self) -> None:
        if self._options.broker == "embedded":
            self.spawn("broker", "backend", "broker", "--port", str(self.broker_port))
            return
        binary = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
        if binary is None:
            raise TownError("mosquitto is not installed: apt-get install mosquitto")
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.broker_port} 127.0.0.1\nallow_anonymous true\n"
            "set_tcp_nodelay true\n"
        )
        self.spawn_command("broker", [binary, "-c", str(config)])

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
        self.spawn(
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
        self.check()
        self._remember()

    def _remember(self) -> None:
        """Keep where the city's clock is, so that a next start goes on from there."""
        shown = self.timeline.at(time.time())
        (self.folder / "clock.json").write_text(json.dumps({"shown": shown}))

    def stop(self) -> None:
        """End the children, agents first so that they can say goodbye."""
        last = ("backend", "devices", "broker")
        self.end([name for name in self.children if name not in last])
        for name in last:
            self.end([name])

    # -- help ----------------------------------------------------------------------------

    def _evening(self, folder: Path) -> tuple[Timeline, float]:
        """A timeline that reaches tonight's dusk in a moment, and that dusk [s].

        A folder that has lived through an evening goes on with the next one: time in
        a store never runs backwards.
        """
        now = time.time()
        if self._options.now:
            return Timeline(), now
        sun = Sun(PLACE)
        date = dt.datetime.fromtimestamp(now, dt.UTC).date()
        kept = folder / "clock.json"
        if kept.exists():
            shown = json.loads(kept.read_text("utf-8"))["shown"]
            date = max(date, sun.date_of(shown) + dt.timedelta(days=1))
        night = sun.night(date)
        dusk = night.sunset if night else now
        rate = self._options.speed
        return Timeline(now, dusk - LEAD_S * rate, rate), dusk

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


def _square(latitude: float, longitude: float, area_ha: float) -> list[list[float]]:
    """Corners (longitude, latitude) of a square of an area [ha] around a place."""
    half = math.sqrt(area_ha * 1e4) / 2 / 111_320
    wide = half / math.cos(math.radians(latitude))
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))
    return [[longitude + x * wide, latitude + y * half] for x, y in corners]


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
