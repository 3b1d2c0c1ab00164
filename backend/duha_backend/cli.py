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

from duha_backend import asking, logs
from duha_backend.drainage import commands as drainage
from duha_backend.errors import BackendError, Invalid, RegistryDown
from duha_backend.grafana import commands as grafana

if TYPE_CHECKING:
    from collections.abc import Callable

    from duha_backend.alarms.deliver import Mail
    from duha_backend.app import Backend
    from duha_backend.influx import Influx
    from duha_backend.readings import Retention
    from duha_backend.registry import Registry
from duha_contract.clock import TIMELINE_VARIABLE, Clock, Timeline
from duha_contract.programmes import Place
from duha_runtime.supervision import Fatal

log = logging.getLogger(__name__)
LONGEST_PAUSE_S = 30.0


def main(arguments: list[str]) -> int:
    """Run a ``duha backend`` command; returns the exit status."""
    options = _parser().parse_args(arguments)
    logs.begin()
    try:
        return _COMMANDS[options.command](options)
    except BackendError as error:
        print(error, file=sys.stderr)
    except Fatal as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(_told(error), file=sys.stderr)
    return 2


def _told(error: OSError) -> str:
    """What an error of the system says: there is always something."""
    said = error.strerror or str(error) or type(error).__name__
    return f"{said}: {error.filename}" if error.filename else said


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="duha backend", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the backend until stopped")
    run.add_argument(
        "--role",
        choices=("all", "ingest", "api", "control", "runoff"),
        default="all",
        help="what this process does; apart they need --registry and --influx",
    )
    run.add_argument("--host", default="127.0.0.1", help="where page and API listen")
    run.add_argument(
        "--port", type=_port, default=None,
        help="8470; a worker has none; 0 takes a free one and says which",
    )  # fmt: skip
    run.add_argument(
        "--trusted-proxy", action="append", default=[], metavar="ADDRESS",
        help="reverse proxy whose X-Forwarded-For is believed; again for more",
    )  # fmt: skip
    run.add_argument(
        "--requests-per-s", type=_positive, default=50.0, metavar="N",
        help="how often one session or token may ask, on average (50)",
    )  # fmt: skip
    run.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT")
    run.add_argument("--broker-user", default=None)
    run.add_argument("--broker-password-file", type=Path, default=None)
    run.add_argument("--city", default="plzen", help="id of the city in topics")
    run.add_argument("--name", default="Plzeň", help="name of the city on the page")
    run.add_argument("--place", default="49.7475,13.3776", metavar="LAT,LON")
    run.add_argument(
        "--grafana-url", default="", metavar="URL", help="the page links to it"
    )
    run.add_argument("--zone", default="Europe/Prague", help="IANA time zone")
    run.add_argument(
        "--memory-mib",
        type=int,
        default=None,
        help="what DuckDB may use: 256, of a worker 128",
    )
    run.add_argument(
        "--scheduler", default="", metavar="ADDRESS", help="dask, for runoff studies"
    )
    run.add_argument(
        "--external-rain", action="append", default=[], metavar="FILE_OR_URL",
        help="open data of ČHMÚ (SRA10M), {date} for the day; again for more; off without",
    )  # fmt: skip
    _stores(run)
    _influx_options(run)
    _mail_options(run)
    load = commands.add_parser("import", help="take assets from CSV or GeoJSON")
    load.add_argument("file", type=Path)
    load.add_argument("--dry-run", action="store_true", help="only say what is wrong")
    load.add_argument(
        "--skip-bad", action="store_true", help="take the good rows alone"
    )
    _stores(load)
    save = commands.add_parser("export", help="write all assets to CSV or GeoJSON")
    save.add_argument("file", type=Path, help="ends in .csv or .geojson")
    _stores(save)
    token = commands.add_parser("token", help="make a token and print it once")
    token.add_argument("name", help="whose it is; stands in the audit log")
    token.add_argument(
        "--revoke", action="store_true", help="end all tokens and sessions of the name"
    )
    token.add_argument(
        "--role", choices=("viewer", "operator", "engineer", "admin"), default="admin",
        help="what they may do (default admin)",
    )  # fmt: skip
    _stores(token)
    tokens = commands.add_parser("tokens", help="who can sign in, in which role")
    _stores(tokens)
    remove = commands.add_parser(
        "remove-asset", help="take an asset out of the inventory; its readings stay"
    )
    remove.add_argument("asset", help="its id")
    _stores(remove)
    init = commands.add_parser(
        "init-influx", help="make or adjust the databases or buckets of an InfluxDB"
    )
    _influx_options(init)
    broker = commands.add_parser("broker", help="run the embedded MQTT broker")
    broker.add_argument("--host", default="127.0.0.1")
    broker.add_argument("--port", type=_port, default=1883)
    asking.add_commands(commands)
    drainage.add_commands(commands, asking.connected)
    grafana.add_commands(commands)
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1,000,000")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"{text} is no port: 0 to 65535")
    return value


def _address(text: str, usual_port: int) -> tuple[str, int]:
    """Host and port of ``HOST``, ``HOST:PORT``, ``:PORT`` or ``[IPV6]:PORT``.

    Raises
    ------
    Invalid
        The port is none.
    """
    bare = text.endswith("]") or (text.count(":") != 1 and not text.startswith("["))
    host, _, port = (text, "", "") if bare else text.rpartition(":")
    if port and not (port.isdecimal() and 0 < int(port) < 65_536):
        raise Invalid(f"{text!r} has no port from 1 to 65535 behind its colon")
    return host.strip("[]") or "127.0.0.1", int(port or usual_port)


def _mail_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--smtp", default="", metavar="HOST:PORT", help="mail server for alarms"
    )
    parser.add_argument("--smtp-from", default="", help="sender of the mails")
    parser.add_argument("--smtp-user", default="")
    parser.add_argument("--smtp-password-file", type=Path, default=None)
    parser.add_argument(
        "--smtp-plain",
        action="store_true",
        help="no STARTTLS: within one machine alone",
    )


def _stores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="folder of the stores"
    )
    parser.add_argument(
        "--registry", default=os.environ.get("DUHA_REGISTRY", ""), metavar="URL",
        help="postgresql+psycopg://user@host/database; SQLite in --data when left out"
        " (DUHA_REGISTRY)",
    )  # fmt: skip
    parser.add_argument(
        "--registry-password-file", type=Path, default=None,
        help="file with the password of --registry",
    )  # fmt: skip


def _influx_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--influx", default="", metavar="URL", help="InfluxDB 1, 2 or 3"
    )
    parser.add_argument(
        "--influx-token-file", type=Path, default=None,
        help="file with the token; `user:password` for 1.x (or DUHA_INFLUX_TOKEN)",
    )  # fmt: skip
    parser.add_argument("--influx-org", default="duha")
    parser.add_argument("--influx-database", default="duha")
    for name, usual, what in (
        ("raw", 31, "as they were read"),
        ("quarters", 1100, "in quarters of an hour"),
        ("days", 0, "in days"),
    ):
        parser.add_argument(
            f"--keep-{name}", type=int, default=usual, metavar="DAYS",
            help=f"how long readings are kept {what}; 0 is for ever ({usual})",
        )  # fmt: skip


def _retention(options: argparse.Namespace) -> "Retention":
    from duha_backend.readings import Retention

    kept = (options.keep_raw, options.keep_quarters, options.keep_days)
    return Retention(*(days or None for days in kept))


def _influx(options: argparse.Namespace) -> "Influx | None":
    from duha_backend.influx import Influx

    if not options.influx:
        return None
    file = options.influx_token_file
    token = file.read_text("utf-8").strip() if file else ""
    return Influx(
        options.influx,
        token or os.environ.get("DUHA_INFLUX_TOKEN", ""),
        options.influx_org,
        options.influx_database,
    )


def _mail(options: argparse.Namespace) -> "Mail | None":
    from duha_backend.alarms.deliver import Mail

    if not options.smtp:
        return None
    host, port = _address(options.smtp, 587)
    file = options.smtp_password_file
    return Mail(
        host,
        port,
        options.smtp_from,
        options.smtp_user,
        file.read_text("utf-8").strip() if file else "",
        secure=not options.smtp_plain,
    )


def _registry_url(options: argparse.Namespace) -> str:
    """The registry's URL, with the password that stands in a file."""
    from sqlalchemy.engine import make_url

    file: Path | None = options.registry_password_file
    if not options.registry or file is None:
        return str(options.registry)
    url = make_url(options.registry).set(password=file.read_text("utf-8").strip())
    return url.render_as_string(hide_password=False)


def _registry(options: argparse.Namespace) -> "Registry":
    from duha_backend.registry import Registry

    if options.registry:
        return Registry(_registry_url(options))
    options.data.mkdir(parents=True, exist_ok=True)
    return Registry.in_folder(options.data)


def _run(options: argparse.Namespace) -> int:
    from duha_backend.api.limits import Limits
    from duha_backend.app import ROLES, Backend, Settings
    from duha_backend.link import Broker

    host, port = _address(options.broker, 1883)
    password_file = options.broker_password_file
    settings = Settings(
        data=options.data,
        broker=Broker(
            host,
            port,
            options.broker_user,
            password_file.read_text("utf-8").strip() if password_file else None,
        ),
        city=options.city,
        name=options.name,
        place=_place(options.place, options.zone),
        host=options.host,
        port=8470 if options.port is None and _serves(options) else options.port,
        roles=frozenset(ROLES if options.role == "all" else (options.role,)),
        registry=_registry_url(options),
        influx=_influx(options),
        retention=_retention(options),
        mail=_mail(options),
        scheduler=options.scheduler,
        external_rain=tuple(options.external_rain),
        grafana=options.grafana_url,
        limits=Limits(
            requests_per_s=options.requests_per_s,
            burst=10 * options.requests_per_s,
            trusted_proxies=tuple(options.trusted_proxy),
        ),
        memory_mib=options.memory_mib or (128 if options.role == "ingest" else 256),
    )
    clock = Clock(time.time, Timeline.parse(os.environ.get(TIMELINE_VARIABLE, "")))

    async def until_stopped() -> None:
        backend = await _patiently(lambda: Backend(settings, clock))
        if "api" in settings.roles and not backend.registry.has_token():
            _show_token(backend.registry.new_token("admin"))
        running = asyncio.create_task(backend.run(), name="backend")
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        await running

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(until_stopped())
    # What hangs in a thread, or a study in its processes, must not hold up the end.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def _patiently(make: "Callable[[], Backend]") -> "Backend":
    """A backend, as soon as its registry answers: a server may start later than we do."""
    pause = 1.0
    while True:
        try:
            return make()
        except RegistryDown as error:
            log.warning("%s; again in %.0f s", error, pause)
        await asyncio.sleep(pause)
        pause = min(LONGEST_PAUSE_S, pause * 2)


def _place(text: str, zone: str) -> Place:
    """Where the city is.

    Raises
    ------
    Invalid
        It is nowhere.
    """
    try:
        latitude, longitude = (float(part) for part in text.split(","))
    except ValueError:
        raise Invalid(f"--place {text!r} is no LAT,LON") from None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        raise Invalid(f"--place {text!r} is nowhere on Earth")
    return Place(latitude, longitude, zone)


def _serves(options: argparse.Namespace) -> bool:
    """Whether a process has page and API."""
    return options.role in ("all", "api")


def _show_token(token: str) -> None:
    print("First start: this token signs the admin in. It is shown once only.")
    print(f"token: {token}", flush=True)


def _import(options: argparse.Namespace) -> int:
    from duha_backend.assets import parse

    raw = options.file.read_bytes()
    registry = _registry(options)
    try:
        parsed = parse(raw, [asset.id for asset in registry.assets("cabinet")])
        for problem in parsed.problems:
            print(f"row {problem.row} {problem.id}: {problem.reason}", file=sys.stderr)
        found = f"{len(parsed.assets)} assets, {len(parsed.streets)} streets"
        if options.dry_run:
            print(
                f"{options.file}: {found}, {len(parsed.problems)} bad rows; nothing taken"
            )
            return 1 if parsed.problems else 0
        if parsed.problems and not options.skip_bad:
            print(
                f"{options.file}: {len(parsed.problems)} bad rows; nothing taken."
                " Mend them, or take the others with --skip-bad",
                file=sys.stderr,
            )
            return 2
        registry.put_assets(parsed.assets, parsed.streets)
        _record(registry, "import", str(options.file))
        if parsed.without_control:
            print(
                f"{parsed.without_control} luminaires have no cabinet: nothing controls"
                " them",
                file=sys.stderr,
            )
    finally:
        registry.close()
    print(f"{options.file}: {found}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from duha_backend.assets import to_csv, to_geojson

    registry = _registry(options)
    assets, streets = registry.assets(), registry.streets()
    registry.close()
    if options.file.suffix == ".csv":
        options.file.write_text(to_csv(assets), "utf-8")
    else:
        text = json.dumps(to_geojson(assets, streets), ensure_ascii=False)
        options.file.write_text(text, "utf-8")
    print(f"{options.file}: {len(assets)} assets")
    return 0


def _token(options: argparse.Namespace) -> int:
    with contextlib.closing(_registry(options)) as registry:
        if options.revoke:
            gone = registry.revoke(options.name)
            _record(registry, "revoke", options.name)
            print(f"{options.name}: {gone} tokens and sessions ended")
            return 0
        print(f"token: {registry.new_token(options.name, role=options.role)}")
        _record(registry, "token", f"{options.name} ({options.role})")
    return 0


def _tokens(options: argparse.Namespace) -> int:
    with contextlib.closing(_registry(options)) as registry:
        for found in registry.tokens():
            print(f"{found['role']:9s} {found['name']}")
    return 0


def _remove_asset(options: argparse.Namespace) -> int:
    now = round(time.time() * 1000)
    with contextlib.closing(_registry(options)) as registry:
        gone = registry.drop_asset(options.asset, now, "command line")
        _record(registry, "remove_asset", options.asset)
    print(f"{gone.kind} {gone.id} is out of the inventory")
    return 0


def _init_influx(options: argparse.Namespace) -> int:
    from duha_backend.influx import InfluxReadings

    place = _influx(options)
    if place is None:
        print("which one? --influx http://127.0.0.1:8086", file=sys.stderr)
        return 2
    retention = _retention(options)

    async def prepare() -> None:
        store = InfluxReadings(place, retention)
        try:
            for line in await store.prepare(retention):
                print(line)
        finally:
            await store.close()

    asyncio.run(prepare())
    return 0


def _record(registry: "Registry", action: str, target: str) -> None:
    """What is done on the command line is audited like everything else."""
    registry.record(round(time.time() * 1000), "command line", action, target, "")


def _broker(options: argparse.Namespace) -> int:
    from duha_backend.broker import serve

    asyncio.run(serve(options.host, options.port))
    return 0


_COMMANDS = {
    "run": _run,
    "import": _import,
    "export": _export,
    "token": _token,
    "tokens": _tokens,
    "remove-asset": _remove_asset,
    "init-influx": _init_influx,
    "broker": _broker,
    **asking.COMMANDS,
    **drainage.COMMANDS,
    **grafana.COMMANDS,
}
