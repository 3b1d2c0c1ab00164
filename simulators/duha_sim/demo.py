"""``duha demo``: a whole city on this machine, live in the browser.

Starts a broker, simulated devices, the backend and one agent for each cabinet, as
processes of their own, at tonight's dusk with a storm on its way. Ctrl-C stops it
all and leaves nothing behind.
"""

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from duha_sim.cli import add_city_options
from duha_sim.processes import TownError
from duha_sim.town import Town


def main(arguments: list[str]) -> int:
    """Run the demo; returns the exit status."""
    options = _parser().parse_args(arguments)
    # SIGINT, too: whoever was started in the background of a script ignores it otherwise.
    for number in _ENDING:
        signal.signal(number, _interrupt)
    try:
        with _folder(options.data) as folder:
            _show(Town(options, folder))
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)
    except TownError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupt(_number: int, _frame: object) -> None:
    # A second, impatient Ctrl-C must not leave half of the town behind.
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
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


def _show(town: Town) -> None:
    """Start a town, say where it is, and wait until stopped."""
    began = time.monotonic()
    try:
        town.start()
        _announce(town, time.monotonic() - began)
        while True:
            town.watch()
            time.sleep(1.0)
    finally:
        town.stop()


def _announce(town: Town, took: float) -> None:
    url = f"http://127.0.0.1:{town.http_port}/"
    print(f"\nDuha is live after {took:.0f} s. Open the page, already signed in:")
    if town.token:
        print(f"\n    {url}#token={town.token}\n")
        print(f"Page {url}   token {town.token}")
    else:
        print(f"\n    {url}\n\nSign in with the token of the first start; another:")
        print(f"    {sys.argv[0]} backend token NAME --data {town.folder / 'backend'}")
    print(
        f"Break something:  {sys.argv[0]} sim trouble {town.folder / 'devices'} RVO-001-L007 dead"
    )
    if town.broker == "mosquitto":
        print(f"Listen in:        mosquitto_sub -p {town.broker_port} -t 'duha/#' -v")
    print(f"Logs: {town.logs}   Ctrl-C stops everything.", flush=True)
