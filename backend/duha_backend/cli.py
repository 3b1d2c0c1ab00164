"""``duha backend``: the backend on the command line."""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from duha_backend.errors import BackendError

if TYPE_CHECKING:
    from duha_backend.registry import Registry
from duha_contract.clock import TIMELINE_VARIABLE, Clock, Timeline
from duha_contract.lighting import Place


def main(arguments: list[str]) -> int:
    """Run a ``duha backend`` command; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=os.environ.get("DUHA_LOG", "INFO"),
        format="%(asctime)s %(levelname)s %(message)s",
    )
    try:
        return _COMMANDS[options.command](options)
    except BackendError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{error.strerror}: {error.filename or ''}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="duha backend", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the backend until stopped")
    run.add_argument(
        "--data", type=Path, default=Path("data"), help="folder of the stores"
    )
    run.add_argument("--host", default="127.0.0.1", help="where page and API listen")
    run.add_argument("--port", type=int, default=8470)
    run.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT")
    run.add_argument("--broker-user", default=None)
    run.add_argument("--broker-password-file", type=Path, default=None)
    run.add_argument("--city", default="plzen", help="id of the city in topics")
    run.add_argument("--name", default="Plzeň", help="name of the city on the page")
    run.add_argument("--place", default="49.7475,13.3776", metavar="LAT,LON")
    run.add_argument("--zone", default="Europe/Prague", help="IANA time zone")
    load = commands.add_parser("import", help="take assets and streets from GeoJSON")
    load.add_argument("file", type=Path)
    load.add_argument("--data", type=Path, default=Path("data"))
    token = commands.add_parser("token", help="make a token and print it once")
    token.add_argument("name", help="whose it is; stands in the audit log")
    token.add_argument("--data", type=Path, default=Path("data"))
    broker = commands.add_parser("broker", help="run the embedded MQTT broker")
    broker.add_argument("--host", default="127.0.0.1")
    broker.add_argument("--port", type=int, default=1883)
    return parser


def _run(options: argparse.Namespace) -> int:
    from duha_backend.app import Backend, Settings
    from duha_backend.link import Broker

    host, _, port = options.broker.rpartition(":")
    latitude, _, longitude = options.place.partition(",")
    password_file = options.broker_password_file
    settings = Settings(
        data=options.data,
        broker=Broker(
            host or "127.0.0.1",
            int(port),
            options.broker_user,
            password_file.read_text("utf-8").strip() if password_file else None,
        ),
        city=options.city,
        name=options.name,
        place=Place(float(latitude), float(longitude), options.zone),
        host=options.host,
        port=options.port,
    )
    clock = Clock(time.time, Timeline.parse(os.environ.get(TIMELINE_VARIABLE, "")))

    async def until_stopped() -> None:
        backend = Backend(settings, clock)
        if not backend.registry.has_token():
            _show_token(backend.registry.new_token("admin"))
        running = asyncio.create_task(backend.run(), name="backend")
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        await running

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(until_stopped())
    return 0


def _show_token(token: str) -> None:
    print("First start: this token signs the admin in. It is shown once only.")
    print(f"token: {token}", flush=True)


def _import(options: argparse.Namespace) -> int:
    from duha_backend.registry import Registry

    options.data.mkdir(parents=True, exist_ok=True)
    registry = Registry.in_folder(options.data)
    try:
        collection = json.loads(options.file.read_text("utf-8"))
        counts = registry.import_geojson(collection)
        _record(registry, "import", str(options.file))
    except json.JSONDecodeError as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 2
    finally:
        registry.close()
    print(f"{options.file}: {counts['assets']} assets, {counts['streets']} streets")
    return 0


def _token(options: argparse.Namespace) -> int:
    from duha_backend.registry import Registry

    registry = Registry.in_folder(options.data)
    print(f"token: {registry.new_token(options.name)}")
    _record(registry, "token", options.name)
    registry.close()
    return 0


def _record(registry: "Registry", action: str, target: str) -> None:
    """What is done on the command line is audited like everything else."""
    registry.record(round(time.time() * 1000), "command line", action, target, "")


def _broker(options: argparse.Namespace) -> int:
    from duha_backend.broker import serve

    asyncio.run(serve(options.host, options.port))
    return 0


_COMMANDS = {"run": _run, "import": _import, "token": _token, "broker": _broker}
