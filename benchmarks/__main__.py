"""``make bench``: figures of the whole line, each with its baseline of the same run.

Prints what it does, then one JSON object as its last line. A figure that misses its
target ends the run with status 1.
"""

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb

from duha_backend.duck import DuckReadings
from duha_backend.validate import examine
from duha_contract.lighting import Sun, level_at
from duha_contract.messages import Batch, Table, encode
from duha_contract.programmes import Calendar, Effect, Place, Programme, Step
from duha_contract.quantities import KINDS
from duha_edge.bus import Bus
from duha_edge.outbox import Content, Outbox
from duha_edge.points import Block
from duha_edge.site import BusConfig
from duha_sim.demo import _parser as demo_parser
from duha_sim.modbus import RtuPort, answer
from duha_sim.town import Town

NOW = 1_800_000_000_000
COLUMNS = ("device", "ts", "quality", *(q.name for q in KINDS["luminaire"]))
TARGETS: dict[str, tuple[str, float]] = {
    "ingest_rows_per_s": (">=", 50_000),
    "ingest_over_row_by_row": (">=", 20),
    "outbox_share_of_bare_sqlite": (">=", 0.25),
    "rtu_19200_efficiency": (">=", 0.95),
    "level_at_us": ("<=", 60),
    "agent_rss_mib": ("<=", 60),
    "agent_cpu_percent": ("<=", 10),
    "register_after_override_s": ("<=", 2.0),
}


def rows(count: int, ts: int) -> tuple[tuple[object, ...], ...]:
    """Readings of `count` luminaires."""
    chance = random.Random(ts)
    lead = ((f"L{n:05d}", ts + n % 1000, "good") for n in range(count))
    return tuple(
        (*head, 60, 60.0, 60.0, chance.uniform(0, 90), *(1.0,) * (len(COLUMNS) - 7))
        for head in lead
    )


def table(count: int, ts: int) -> Table:
    """A table of luminaires."""
    return Table("luminaire", COLUMNS, rows(count, ts))


def rate(work: Callable[[], int], seconds: float = 3.0) -> float:
    """Units per second of work that says how many it has done."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += work()
    return done / (time.perf_counter() - began)


def ingest(folder: Path) -> dict[str, float]:
    """Bytes of a batch to committed rows, against INSERTs row by row."""
    store = DuckReadings(folder / "readings.duckdb")
    payloads = iter(
        encode(Batch(1, "b", "o", n, "trusted", (table(400, NOW + n * 1000),)))
        for n in range(10**6)
    )
    prepared = [next(payloads) for _ in range(240)]
    groups = [prepared[n : n + 16] for n in range(0, len(prepared), 16)]
    began = time.perf_counter()
    for group in groups:
        found = [examine("duha/v1/c/k/data", p, 2 * NOW, {}) for p in group]
        asyncio.run(store.write(found, NOW))
    ours = len(prepared) * 400 / (time.perf_counter() - began)
    asyncio.run(store.close())
    plain = duckdb.connect(str(folder / "plain.duckdb"))
    plain.execute("CREATE TABLE l (device VARCHAR, ts BIGINT, quality VARCHAR, "
                  + ", ".join(f"{name} DOUBLE" for name in COLUMNS[3:]) + ", PRIMARY KEY (device, ts))")  # fmt: skip
    marks = ", ".join("?" * len(COLUMNS))
    source = iter(range(10**6))

    def row_by_row() -> int:
        for row in rows(100, NOW + next(source) * 1000):
            plain.execute(f"INSERT INTO l VALUES ({marks})", list(row))
        return 100

    theirs = rate(row_by_row, 2)
    plain.close()
    return {"ingest_rows_per_s": ours, "ingest_over_row_by_row": ours / theirs}


def outbox(folder: Path) -> dict[str, float]:
    """Poll cycles of 60 luminaires made durable, against bare SQLite with the same bytes."""
    ours = Outbox(folder / "outbox.db")
    content = [Content(vital=False, tables=(table(60, NOW),))]

    def put() -> int:
        ours.put(content)
        return 60

    put()
    payload = ours.due((), 0, 1)[0].payload
    speed = rate(put)
    ours.close()
    bare = sqlite3.connect(folder / "bare.db", isolation_level=None)
    bare.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE b (p BLOB);"
    )

    def insert() -> int:
        bare.execute("INSERT INTO b VALUES (?)", (payload,))
        return 60

    baseline = rate(insert)
    bare.close()
    return {"outbox_rows_per_s": speed, "outbox_share_of_bare_sqlite": speed / baseline}


def programme() -> dict[str, float]:
    """One evaluation of a luminaire's level."""
    steps = (
        Step("sunset", 100),
        Step("22:00", 40),
        Step("05:00", 80),
        Step("sunrise", 0),
    )
    street = {"p": Programme("p", "P", steps, effects=(Effect("wet_road"),))}
    calendar, sun = Calendar("c", "C", "p"), Sun(Place(49.7, 13.4, "Europe/Prague"))

    def evaluate() -> int:
        for n in range(1000):
            level_at(street, calendar, (), (), sun, NOW / 1000 + n, "L1")
        return 1000

    return {"level_at_us": 1e6 / rate(evaluate, 1)}


class _Unit:
    def read(self, table: str, address: int, count: int) -> list[int]:
        del table
        return list(range(address, address + count))

    def write(self, address: int, words: list[int]) -> None:
        del address, words


async def line(folder: Path, baud: int = 19_200, units: int = 30) -> dict[str, float]:
    """A cycle over a paced terminal: time of the frames alone over the measured time."""

    async def respond(unit: int, pdu: bytes) -> bytes | None:
        del unit
        return answer(_Unit(), pdu)

    port = RtuPort(respond, lambda _, frame: frame, folder / "line.tty", baud, 0.0)
    await port.start()
    bus = Bus(BusConfig("b", "rtu", port=str(port.path), baud=baud, format="8N1"))
    serving = asyncio.create_task(bus.run())
    await bus.read(1, Block("holding", 0, 11))
    began = time.perf_counter()
    for unit in range(1, units + 1):
        await bus.read(unit, Block("holding", 0, 11))
    took = time.perf_counter() - began
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    await port.close()
    characters = 8 + 5 + 2 * 11
    silence = max(3.5 * 11 / baud, 0.00175)
    frames = units * (characters * 11 / baud + 2 * silence)
    return {
        f"rtu_{baud}_efficiency": frames / took,
        "rtu_request_ms": 1000 * took / units,
    }


def town(folder: Path) -> dict[str, float]:
    """Real processes: start-up, an agent's memory and CPU, an override's way to a register."""
    options = demo_parser().parse_args(
        ["--port", "0", "--cabinets", "1", "--luminaires", "200", "--rtu", "0", "--now"]
    )
    made = Town(options, folder)
    began = time.perf_counter()
    try:
        made.start()
        up = time.perf_counter() - began
        agent = made.children["RVO-001"].pid
        cpu, since = _cpu_s(agent), time.perf_counter()
        time.sleep(15)
        percent = 100 * (_cpu_s(agent) - cpu) / (time.perf_counter() - since)
        body = {
            "target": {"kind": "luminaire", "id": "RVO-001-L100"},
            "level": 33,
            "minutes": 5,
        }
        given = time.perf_counter()
        made.ask("POST", "/overrides", body)
        reached = asyncio.run(_until_register(made, 100, 33, given))
        return {
            "town_up_s": up,
            "agent_rss_mib": _rss_mib(agent),
            "agent_cpu_percent": percent,
            "backend_rss_mib": _rss_mib(made.children["backend"].pid),
            "register_after_override_s": reached,
        }
    finally:
        made.stop()


async def _until_register(made: Town, unit: int, level: int, since: float) -> float:
    """Time until a second Modbus client sees the level in a driver's register [s]."""
    ports = json.loads((made.folder / "devices" / "ports.json").read_text("utf-8"))
    bus = Bus(BusConfig("b", "tcp", "127.0.0.1", ports["RVO-001/line1"]))
    serving = asyncio.create_task(bus.run())
    while (await bus.read(unit, Block("holding", 0, 1)))[0] != level:
        if time.perf_counter() - since > 20:
            break
        await asyncio.sleep(0.01)
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    return time.perf_counter() - since


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith("VmRSS:"):
            return int(text.split()[1]) / 1024
    return 0.0


def figures() -> Iterator[dict[str, float]]:
    """Every part of the benchmark, in a folder of its own."""
    parts: tuple[Callable[[Path], dict[str, float]], ...] = (
        lambda _: programme(),
        outbox,
        ingest,
        lambda folder: asyncio.run(line(folder)),
        town,
    )
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="duha-bench-") as folder:
            yield part(Path(folder))


Targets = dict[str, tuple[str, float]]


def show(name: str, value: float, targets: Targets) -> None:
    """Print one figure beside its target."""
    sign, target = targets.get(name, ("", 0.0))
    wanted = ""
    if sign:
        verdict = "" if fine(value, sign, target) else ": MISSED"
        wanted = f"  (target {sign} {target:g}{verdict})"
    print(f"{name:32} {value:12.3f}{wanted}", flush=True)


def fine(value: float, sign: str, target: float) -> bool:
    """Whether a figure keeps to its target."""
    return value >= target if sign == ">=" else value <= target


def close(found: dict[str, float], targets: Targets, **more: str) -> int:
    """Print all figures as one JSON object, the last line; returns the exit status."""
    missed = [
        n for n, (sign, target) in targets.items() if not fine(found[n], sign, target)
    ]
    print(
        json.dumps(
            {name: round(v, 4) for name, v in found.items()} | more | {"missed": missed}
        )
    )
    return 1 if missed else 0


def main() -> int:
    """Measure, compare with the targets, print."""
    found: dict[str, float] = {}
    for part in figures():
        for name, value in part.items():
            show(name, value, TARGETS)
        found |= part
    return close(found, TARGETS)


if __name__ == "__main__":
    sys.exit(main())
