"""``duha sim``: simulated devices behind real Modbus ports, and their troubles."""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from duha_contract.clock import TIMELINE_VARIABLE, Clock, Timeline
from duha_sim import field, storm, streets, trouble
from duha_sim.city import SimulatedCity, serve


def main(arguments: list[str]) -> int:
    """Run a ``duha sim`` command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="duha sim", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    city = commands.add_parser("city", help="serve a whole city until stopped")
    city.add_argument("folder", type=Path, help="where ports.json and terminals go")
    add_city_options(city)
    city.add_argument("--storm-at", type=float, help="arrival, POSIX time [s]")
    city.add_argument("--baud", type=int, default=38_400, help="speed of serial lines")
    whole = commands.add_parser(
        "field", help="devices and one agent a cabinet, against a broker elsewhere"
    )
    whole.add_argument("folder", type=Path, help="where everything is kept")
    add_city_options(whole)
    whole.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT")
    whole.add_argument("--broker-user", default="")
    whole.add_argument("--broker-password-file", default="")
    whole.add_argument(
        "--storm-after", type=float, default=30, metavar="MIN", help="first storm [min]"
    )
    plan = commands.add_parser("plan", help="the city as GeoJSON, for an import")
    plan.add_argument("file", type=Path)
    add_city_options(plan)
    listing = "; ".join(f"{name}: {text}" for name, text in trouble.HELP.items())
    make = commands.add_parser("trouble", help="break or mend a device", epilog=listing)
    make.add_argument("folder", type=Path, help="folder of a running city or demo")
    make.add_argument("device", nargs="?", help="id of a device or cabinet")
    make.add_argument("what", nargs="?", choices=(*trouble.TROUBLES, "none"))
    return parser


def add_city_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which city it is; the same ones lay out the same city."""
    parser.add_argument("--cabinets", type=_positive, default=4)
    parser.add_argument(
        "--luminaires", type=_positive, default=60, help="of each cabinet"
    )
    parser.add_argument("--gauges", type=_positive, default=6)
    parser.add_argument("--rtu", type=int, default=1, help="cabinets with serial lines")
    parser.add_argument("--seed", type=int, default=1, help="of streets and storm")
    parser.add_argument(
        "--replay", type=Path, default=None, metavar="CSV",
        help="rain from a record (time,mm_h) instead of a generated storm",
    )  # fmt: skip


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def city_of(options: argparse.Namespace) -> streets.City:
    """The city that the options describe."""
    return streets.generate(
        options.cabinets, options.luminaires, options.gauges, options.rtu, options.seed
    )


def _city(options: argparse.Namespace) -> int:
    clock = Clock(time.time, Timeline.parse(os.environ.get(TIMELINE_VARIABLE, "")))
    arrival = options.storm_at or clock.now() + 1800
    weather: storm.Weather
    if options.replay:
        lines = options.replay.read_text("utf-8").splitlines()
        weather = storm.read_csv(lines, arrival)
    else:
        weather = storm.generate(options.seed, arrival, *streets.PLZEN)
    options.folder.mkdir(parents=True, exist_ok=True)
    simulated = SimulatedCity(
        city_of(options), clock, weather,
        trouble.Troubles(options.folder / "trouble.json"),
        options.folder, options.baud, options.seed,
    )  # fmt: skip

    async def until_stopped() -> None:
        serving = asyncio.create_task(serve(simulated, options.folder / "ports.json"))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
        await serving

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(until_stopped())
    return 0


def _field(options: argparse.Namespace) -> int:
    return field.run(city_of(options), options)


def _plan(options: argparse.Namespace) -> int:
    text = json.dumps(streets.geojson(city_of(options)))
    options.file.parent.mkdir(parents=True, exist_ok=True)
    options.file.write_text(text, "utf-8")
    return 0


def _trouble(options: argparse.Namespace) -> int:
    path = options.folder / "trouble.json"
    if options.device is None:
        print(json.dumps(trouble.load(path), indent=2))
        return 0
    if options.what is None:
        print(f"say what: {', '.join((*trouble.TROUBLES, 'none'))}", file=sys.stderr)
        return 2
    wanted = None if options.what == "none" else options.what
    print(json.dumps(trouble.change(path, options.device, wanted), indent=2))
    return 0


_COMMANDS = {"city": _city, "field": _field, "plan": _plan, "trouble": _trouble}
