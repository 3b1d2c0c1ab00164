"""``duha demo``: a whole city on this machine, live in the browser.

Starts a broker, simulated devices, the backend and one agent for each cabinet, as
processes of their own, at tonight's dusk with a storm on its way. Ctrl-C stops it
all and leaves nothing behind.
"""

import argparse
import contextlib
import ctypes
import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from duha_contract.clock import TIMELINE_VARIABLE, Timeline
from duha_contract.lighting import Place, Sun
from duha_sim import streets
from duha_sim.cli import add_city_options, city_of
from duha_sim.streets import City

LEAD_S = 15.0
"""Real seconds between the start and dusk: time for everything to be up."""
STORM_AFTER_S = 18 * 60.0
POLL_REAL_S = 3.0
PLACE = Place(*streets.PLZEN, streets.ZONE)
PROGRAMME = {
    "name": "Residential streets",
    "steps": [
        {"at": "sunset", "level": 100, "fade_s": 60},
        {"at": "sunset+20", "level": 55, "fade_s": 60},
        {"at": "22:00", "level": 40, "fade_s": 120},
        {"at": "05:00", "level": 80, "fade_s": 120},
        {"at": "sunrise", "level": 0, "fade_s": 60},
    ],
    "wet_level": 100,
}


class DemoError(Exception):
    """A part of the demo did not come up, or went away."""


def main(arguments: list[str]) -> int:
    """Run the demo; returns the exit status."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with _folder(options.data) as folder:
            Demo(options, folder).run()
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)
    except DemoError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="duha demo", description=__doc__)
    add_city_options(parser)
    parser.add_argument(
        "--speed", type=float, default=20.0,
        help="seconds of the city in one second of yours (default 20)",
    )  # fmt: skip
    parser.add_argument(
        "--broker", choices=("embedded", "mosquitto"), default="embedded",
        help="mosquitto: the one that is installed",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, default=None,
        help="keep everything in this folder; without it nothing is left behind",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=8470, help="of page and API")
    parser.add_argument("--now", action="store_true", help="keep this machine's time")
    return parser


@contextlib.contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted.resolve()
        return
    made = tempfile.mkdtemp(prefix="duha-demo-")
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


class Demo:
    """The processes of a demo and the order in which they come and go."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._logs = folder / "logs"
        self._logs.mkdir(exist_ok=True)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._city = city_of(options)
        self._timeline, self._dusk = self._evening()
        self._broker_port = _free_port()
        self._http_port = _free_port(options.port)
        self._token = ""
        self._began = time.monotonic()

    def run(self) -> None:
        """Start everything, then wait until stopped."""
        try:
            self._start()
            self._wait()
        finally:
            self._stop()

    # -- up ----------------------------------------------------------------------------

    def _start(self) -> None:
        city, options = self._city, self._options
        lamps = sum(d.kind == "luminaire" for c in city.cabinets for d in c.devices)
        self._say(f"{len(city.cabinets)} cabinets, {lamps} luminaires: devices ...")
        devices = self._folder / "devices"
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
        self._say(f"broker ({options.broker}) on port {self._broker_port} ...")
        self._spawn_broker()
        self._say("backend ...")
        first = self._spawn_backend()
        self._until("the broker", lambda: _listens(self._broker_port))
        self._until("the simulated devices", ports_file.exists)
        ports = json.loads(ports_file.read_text("utf-8"))
        self._say("one agent for each cabinet ...")
        for cabinet in city.cabinets:
            site = self._folder / cabinet.id / "site.toml"
            site.parent.mkdir(exist_ok=True)
            site.write_text(self._site(cabinet, ports), "utf-8")
            self._spawn(cabinet.id, "edge", "run", str(site))
        self._until("the backend", lambda: _listens(self._http_port))
        if first:
            self._until("the backend's token", self._find_token)
            self._programme(city)
            self._until_live(lamps)
        self._announce()

    def _spawn_broker(self) -> None:
        if self._options.broker == "embedded":
            self._spawn("broker", "backend", "broker", "--port", str(self._broker_port))
            return
        binary = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
        if binary is None:
            raise DemoError("mosquitto is not installed: apt-get install mosquitto")
        config = self._folder / "mosquitto.conf"
        config.write_text(
            f"listener {self._broker_port} 127.0.0.1\nallow_anonymous true\n"
            "set_tcp_nodelay true\n"
        )
        self._spawn_command("broker", [binary, "-c", str(config)])

    def _spawn_backend(self) -> bool:
        """Start the backend; True when its stores are new, and it prints a token."""
        data = self._folder / "backend"
        first = not (data / "registry.db").exists()
        plan = self._folder / "city.geojson"
        plan.write_text(json.dumps(streets.geojson(self._city)), "utf-8")
        loaded = subprocess.run(
            [sys.executable, "-m", "duha", "backend", "import", str(plan), "--data", str(data)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if loaded.returncode != 0:
            raise DemoError(f"the city could not be imported: {loaded.stderr}")
        self._spawn(
            "backend", "backend", "run", "--data", str(data),
            "--port", str(self._http_port), "--broker", f"127.0.0.1:{self._broker_port}",
            "--name", self._city.name,
        )  # fmt: skip
        return first

    def _site(self, cabinet: streets.Cabinet, ports: dict[str, str]) -> str:
        """The site file of a cabinet."""
        period = POLL_REAL_S * self._timeline.rate
        lines = [
            "[site]",
            f'city = "{self._city.id}"',
            f'controller = "{cabinet.id}"',
            f"latitude = {cabinet.latitude}",
            f"longitude = {cabinet.longitude}",
            f'zone = "{streets.ZONE}"',
            f"period_s = {period}",
            f'data = "{self._folder / cabinet.id}"',
            "[broker]",
            f"port = {self._broker_port}",
        ]
        for bus in cabinet.buses:
            where = ports[f"{cabinet.id}/{bus.name}"]
            # A pseudo-terminal knows no parity, hence 8N1.
            line = (
                f'port = "{where}"\nbaud = 38400\nformat = "8N1"'
                if bus.type == "rtu"
                else f'host = "127.0.0.1"\nport = {where}'
            )
            lines += ["[[bus]]", f'name = "{bus.name}"', f'type = "{bus.type}"', line]
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

    def _programme(self, city: City) -> None:
        """Give the city a programme, as an operator would: through the API."""
        self._ask("PUT", "/programmes/residential", PROGRAMME)
        calendar = {"name": "Every night", "default": "residential"}
        self._ask("PUT", "/calendars/every-night", calendar)
        self._ask("PUT", "/assignments/*", {"calendar": "every-night"})
        main = {street.name for street in city.streets if street.main}
        members = [
            device.id
            for cabinet in city.cabinets
            for device in cabinet.devices
            if device.kind == "luminaire" and device.street in main
        ]
        self._ask(
            "PUT", "/groups/main-streets", {"name": "Main streets", "members": members}
        )

    def _until_live(self, lamps: int) -> None:
        def live() -> bool:
            figures = self._ask("GET", "/system")["figures"]
            return not figures["stale"] and figures["luminaires"] == lamps

        self._until("readings of every cabinet", live, limit=60)

    def _announce(self) -> None:
        url = f"http://127.0.0.1:{self._http_port}/"
        took = time.monotonic() - self._began
        print(f"\nDuha is live after {took:.0f} s. Open the page, already signed in:")
        if self._token:
            print(f"\n    {url}#token={self._token}\n")
            print(f"Page {url}   token {self._token}")
        else:
            print(f"\n    {url}\n\nSign in with the token of the first start; another:")
            print(f"    duha backend token NAME --data {self._folder / 'backend'}")
        print(
            f"Break something:  duha sim trouble {self._folder / 'devices'} RVO-001-L007 dead"
        )
        if self._options.broker == "mosquitto":
            print(
                f"Listen in:        mosquitto_sub -p {self._broker_port} -t 'duha/#' -v"
            )
        print(f"Logs: {self._logs}   Ctrl-C stops everything.", flush=True)

    # -- while it runs -------------------------------------------------------------------

    def _wait(self) -> None:
        while True:
            self._check_children()
            self._remember()
            time.sleep(1.0)

    def _check_children(self) -> None:
        for name, child in self._children.items():
            if child.poll() is not None:
                raise DemoError(
                    f"{name} ended ({child.returncode}):\n{self._tail(name)}"
                )

    def _remember(self) -> None:
        """Keep where the city's clock is, so that a next start goes on from there."""
        shown = self._timeline.at(time.time())
        (self._folder / "clock.json").write_text(json.dumps({"shown": shown}))

    def _stop(self) -> None:
        """End the children, agents first so that they can say goodbye."""
        last = ("backend", "devices", "broker")
        order = [n for n in self._children if n not in last] + list(last)
        groups = (order[:-3], *([name] for name in last))
        for group in groups:
            children = [
                self._children[name] for name in group if name in self._children
            ]
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
        kept = self._folder / "clock.json"
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
        timeline = "" if self._options.now else str(self._timeline)
        environment = os.environ | {
            TIMELINE_VARIABLE: timeline,
            "PYTHONUNBUFFERED": "1",
        }
        with (self._logs / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=environment, start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip

    def _find_token(self) -> bool:
        for line in (self._logs / "backend.log").read_text("utf-8").splitlines():
            if line.startswith("token: "):
                self._token = line.removeprefix("token: ")
                # The log stays with --data; a secret does not stay in a log.
                (self._logs / "backend.log").open("r+b").truncate(0)
                return True
        return False

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._http_port}/api/v1{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            detail = error.read().decode()
            raise DemoError(f"{method} {path}: {error.code} {detail}") from None

    def _until(self, what: str, ready: Callable[[], bool], limit: float = 30) -> None:
        deadline = time.monotonic() + limit
        while not ready():
            self._check_children()
            if time.monotonic() > deadline:
                raise DemoError(
                    f"{what} did not come up in {limit:.0f} s; see {self._logs}"
                )
            time.sleep(0.1)

    def _tail(self, name: str) -> str:
        text = (self._logs / f"{name}.log").read_text("utf-8", errors="replace")
        return "\n".join(text.splitlines()[-8:])

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:4.1f} s] {text}", flush=True)


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
    raise DemoError("no free port on 127.0.0.1")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.3)
        return probe.connect_ex(("127.0.0.1", port)) == 0
