"""``duha edge``: the agent on the command line."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path

from duha_contract.clock import TIMELINE_VARIABLE, Clock, Timeline
from duha_edge import profiles
from duha_edge.errors import ConfigError
from duha_edge.site import load


def main(arguments: list[str]) -> int:
    """Run a ``duha edge`` command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="duha edge", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("run", "run the agent of a site file until stopped"),
        ("check", "check a site file and say what it holds"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("site", type=Path, help="site file (TOML)")
    commands.add_parser("profiles", help="list the device profiles")
    options = parser.parse_args(arguments)
    if options.command == "profiles":
        return _profiles()
    try:
        return _run(options.site) if options.command == "run" else _check(options.site)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def _profiles() -> int:
    for name in profiles.names():
        profile = profiles.load(name)
        print(f"{name:24} {profile.kind:12} {profile.title}")
    return 0


def _check(path: Path) -> int:
    file = load(path)
    print(f"{path}: controller {file.site.controller} of {file.site.city}")
    for bus in file.bus:
        mine = [device for device in file.device if device.bus == bus.name]
        print(f"  {bus.name} ({bus.type}): {len(mine)} devices")
    return 0


def _run(path: Path) -> int:
    from duha_edge.agent import Agent

    logging.basicConfig(
        level=os.environ.get("DUHA_LOG", "INFO"),
        format="%(asctime)s %(levelname)s %(message)s",
    )
    file = load(path)
    clock = Clock(time.time, Timeline.parse(os.environ.get(TIMELINE_VARIABLE, "")))

    async def until_stopped() -> None:
        agent = asyncio.create_task(Agent(file, clock).run(), name="agent")
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, agent.cancel)
        await agent

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(until_stopped())
    return 0
