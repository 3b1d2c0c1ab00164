"""``duha edge``: the agent, and a technician's tools, on the command line."""

import argparse
import asyncio
import contextlib
import datetime as dt
import logging
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from duha_contract.clock import TIMELINE_VARIABLE, Clock, Timeline
from duha_edge import profiles
from duha_edge.errors import EdgeError
from duha_edge.shutdown import ShutdownSignals
from duha_edge.site import BusConfig, SiteFile, Source, load
from duha_runtime.supervision import Fatal

SCAN_S = 0.2
"""How long a unit is waited for in a scan [s]."""


def main(arguments: list[str]) -> int:
    """Run a ``duha edge`` command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except (EdgeError, Fatal) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="duha edge", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, text: str, *, site: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        if site:
            command.add_argument("site", type=Path, help="site file (TOML)")
        return command

    add("run", "run the agent of a site file until stopped")
    add("check", "check a site file; print the request plan and the load of each line")
    add("profiles", "list the device profiles", site=False)
    init = add("init", "write a commented site file")
    init.add_argument("--controller", default="RVO-001")
    scan = add("scan", "ask every unit of a line who is there and what profile fits")
    scan.add_argument("bus", nargs="?", help="name of the line; the first if left out")
    scan.add_argument("--units", default="1-247", metavar="FROM-TO")
    scan.add_argument(
        "--add", action="store_true", help="add what answers to the site file"
    )
    for name, text in (
        ("read", "read a device once"),
        ("watch", "read a device again and again, until Ctrl-C"),
        ("identify", "blink a luminaire"),
    ):
        add(name, text).add_argument("device")
    write = add("write", "write a quantity that the site file allows")
    write.add_argument("device")
    write.add_argument("quantity")
    write.add_argument("value", type=float)
    commission = add("commission", "light, dim and put out luminaires, and judge each")
    commission.add_argument(
        "device", nargs="*", help="all that may be dimmed if left out"
    )
    commission.add_argument(
        "--report", type=Path, help="keep the findings in this file"
    )
    return parser


def _profiles(_options: argparse.Namespace) -> int:
    for name in profiles.names():
        profile = profiles.load(name)
        print(f"{name:24} {profile.kind:14} {profile.title}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from duha_edge.technician import plans

    file = load(options.site)
    print(f"{options.site}: controller {file.site.controller} of {file.site.city}")
    for key in (file.broker.password, file.broker.tls):
        try:
            key()
        except EdgeError as error:  # files of the controller are not on every machine
            print(f"note: {error}")
    overloaded = False
    for plan in plans(file):
        print(plan)
        overloaded |= plan.load is not None and plan.load > 1
    if overloaded:
        print("A line cannot be read within the period: cycles will be skipped.")
    return 0


def _init(options: argparse.Namespace) -> int:
    from duha_edge.technician import example

    if options.site.exists():
        print(f"{options.site} exists already; it stays as it is", file=sys.stderr)
        return 2
    options.site.write_text(example(options.controller), "utf-8")
    load(options.site)
    print(
        f"{options.site} written. Set its line, then: duha edge scan {options.site} --add"
    )
    return 0


def _scan(options: argparse.Namespace) -> int:
    from duha_edge.technician import scan, serving

    file = load(options.site)
    config = _bus(file, options.bus)
    # Most units are not there: waiting long for each would take the morning.
    config = msgspec.structs.replace(config, timeout_s=min(config.timeout_s, SCAN_S))
    first, _, last = options.units.partition("-")
    units = range(int(first), int(last or first) + 1)

    found: list[tuple[int, str]] = []

    async def look() -> int:
        count = 0
        async with serving(config) as bus:
            async for unit, fitting in scan(bus, units, file.library):
                count += 1
                found.extend((unit, name) for name in fitting[:1])
                print(
                    f"unit {unit:3d}: {', '.join(fitting) or 'no profile fits'}",
                    flush=True,
                )
        return count

    print(f"Asking units {units[0]} to {units[-1]} of {config.name} ...", flush=True)
    count = asyncio.run(look())
    print(f"{count} units answered.")
    if options.add:
        _add(options.site, file, config.name, found)
    return 0 if count else 1


def _add(path: Path, file: SiteFile, bus: str, found: list[tuple[int, str]]) -> None:
    """Append devices that a scan has found; those of the site file stay as they are."""
    from duha_edge.technician import device_text

    known = {device.unit for device in file.device if device.bus == bus}
    fresh = [(u, file.library.load(name)) for u, name in found if u not in known]
    new = [(unit, profile) for unit, profile in fresh if not profile.index]
    with path.open("a", encoding="utf-8") as out:
        out.writelines(device_text(file.site.controller, bus, *item) for item in new)
    load(path)
    print(f"{len(new)} devices added to {path}.")
    for unit, profile in fresh:
        if profile.index:
            print(f"unit {unit}: {profile.title}; add what hangs on it by hand")


def _bus(file: SiteFile, name: str | None) -> BusConfig:
    found = next((bus for bus in file.bus if name in {None, bus.name}), None)
    if found is None:
        known = ", ".join(bus.name for bus in file.bus)
        raise EdgeError(f"no line {name!r} in the site file; there are {known}")
    return found


def _read(options: argparse.Namespace) -> int:
    from duha_edge.technician import device_of, read, serving

    device, config = device_of(load(options.site), options.device)
    profile = device.profile

    async def once() -> None:
        async with serving(config) as bus:
            while True:
                values = await read(bus, device.config.unit, profile)
                _show(profile.kind, values, again=options.command == "watch")
                if options.command == "read":
                    return
                await asyncio.sleep(1.0)

    asyncio.run(once())
    return 0


def _show(kind: str, values: dict[str, float | None], *, again: bool) -> None:
    from duha_contract.quantities import BY_NAME

    if again:
        print("\x1b[2J\x1b[H", end="")
    for quantity, value in values.items():
        known = BY_NAME[kind][quantity]
        text = "–" if value is None else f"{value:g} {known.unit}".rstrip()
        print(f"{quantity:24} {text:>16}   {known.title}")
    sys.stdout.flush()


def _write(options: argparse.Namespace) -> int:
    from duha_edge.technician import device_of, serving, write

    device, config = device_of(load(options.site), options.device)

    async def once() -> None:
        async with serving(config) as bus:
            await write(bus, device, options.quantity, options.value)

    asyncio.run(once())
    print(f"{device.id}: {options.quantity} = {options.value:g}, confirmed")
    return 0


def _identify(options: argparse.Namespace) -> int:
    from duha_edge.technician import device_of, identify, serving

    device, config = device_of(load(options.site), options.device)

    async def blink() -> None:
        async with serving(config) as bus:
            await identify(bus, device)

    print(f"{device.id} blinks ...", flush=True)
    asyncio.run(blink())
    return 0


def _commission(options: argparse.Namespace) -> int:
    from duha_edge.technician import Finding, commission, report, serving
    from duha_edge.units import LinePlan, line_plans

    file = load(options.site)
    plans = line_plans(file)
    devices = {d.id: d for plan in plans.values() for d in plan.devices}
    wanted = options.device or [d.id for d in devices.values() if d.dimmable]
    unknown = set(wanted) - set(devices)
    if unknown:
        raise EdgeError(f"not in the site file: {', '.join(sorted(unknown))}")
    findings: list[Finding] = []

    async def all_of(plan: LinePlan) -> None:
        async with serving(plan.bus) as bus:
            for device in plan.devices:
                if device.id in wanted:
                    findings.append(await commission(bus, device))
                    print(findings[-1], flush=True)

    for plan in plans.values():
        asyncio.run(all_of(plan))
    faults = sum(bool(finding.fault) for finding in findings)
    print(f"{len(findings)} luminaires, {faults} with a fault.")
    if options.report:
        now = dt.datetime.fromtimestamp(time.time(), dt.UTC)
        report(findings, options.report, file.site.controller, now)
    return 1 if faults else 0


def _run(options: argparse.Namespace) -> int:
    from duha_edge.agent import Agent

    _log()
    source = Source(options.site)
    file = source.load()
    clock = Clock(time.time, Timeline.parse(os.environ.get(TIMELINE_VARIABLE, "")))

    async def until_stopped(signals: ShutdownSignals) -> None:
        agent = Agent(file, clock, source)
        running = asyncio.create_task(agent.run(), name="agent")
        loop = asyncio.get_running_loop()
        signals.on_shutdown(loop, running.cancel)
        loop.add_signal_handler(signal.SIGHUP, agent.look_again)
        await running

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(until_stopped(ShutdownSignals()))
    return 0


def _log() -> None:
    """Log to standard error; journald knows the time itself and wants the urgency."""
    plain = "%(asctime)s %(levelname)s %(message)s"
    journal = "JOURNAL_STREAM" in os.environ
    if journal:
        for level, urgency in ((40, 3), (30, 4), (20, 6), (10, 7)):
            logging.addLevelName(level, f"<{urgency}>")
    logging.basicConfig(
        level=os.environ.get("DUHA_LOG", "INFO"),
        format="%(levelname)s%(message)s" if journal else plain,
    )


_COMMANDS = {
    "run": _run, "check": _check, "profiles": _profiles, "init": _init, "scan": _scan,
    "read": _read, "watch": _read, "write": _write, "identify": _identify,
    "commission": _commission,
}  # fmt: skip
