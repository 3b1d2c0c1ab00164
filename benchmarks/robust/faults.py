"""Servers that hang, a disk that is full, and hours of service."""

import argparse
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import sqlalchemy as sa
from tests import servers

from benchmarks.__main__ import _rss_mib
from benchmarks.robust.city import CITY, Backend, city, until
from duha_sim.demo import _parser as demo_parser
from duha_sim.load import Load
from duha_sim.town import Town

DISK_MIB = 64
WARM_UP_S = 600.0


def hung(stopped_s: float = 20.0) -> dict[str, float]:
    """PostgreSQL stopped in mid-answer: 503 meanwhile, and recovery by itself."""
    with tempfile.TemporaryDirectory(prefix="duha-robust-pg-") as name:
        Path(name).chmod(0o755)
        with servers.postgres(Path(name) / "pg") as url, city(2, 20, "--registry", url) as target:  # fmt: skip
            target.json("GET", "/programmes")
            pids = _processes_of(sa.make_url(url).port or 0)
            _signal(pids, signal.SIGSTOP)
            try:
                began = time.monotonic()
                status = _status(target)
                answered = time.monotonic() - began
                time.sleep(max(0.0, stopped_s - answered))
            finally:
                _signal(pids, signal.SIGCONT)
            recovery = until(lambda: _status(target) == 200, 60, "no recovery")  # fmt: skip
            target.check()
            return {
                "hung_server_status": status,
                "hung_server_answer_s": answered,
                "hung_server_recovery_s": recovery,
                "hung_server_deaths": target.deaths,
            }


def _status(target: Backend) -> int:
    """Status of a request that needs the registry; 0 without an answer."""
    try:
        return target.ask("GET", "/programmes")[0]
    except OSError:
        return 0


def _processes_of(port: int) -> list[int]:
    """The PostgreSQL server that listens on a port, and its children."""
    found = subprocess.run(
        ["pgrep", "-f", f"postgres -D .* -p {port} "], capture_output=True, text=True, check=True
    ).stdout.split()  # fmt: skip
    children = subprocess.run(
        ["pgrep", "-P", found[0]], capture_output=True, text=True, check=True
    ).stdout.split()
    return [int(pid) for pid in (found[0], *children)]


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextlib.contextmanager
def small_disk(mib: int = DISK_MIB) -> Iterator[Path]:
    """A file system of its own; raises OSError where mounting is not allowed."""
    with tempfile.TemporaryDirectory(prefix="duha-robust-disk-") as name:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if mounted.returncode != 0:
            raise OSError(f"mounting is not allowed here: {mounted.stderr.strip()}")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=False)


def full_disk(seconds: float = 15.0) -> dict[str, float]:
    """The backend's disk full while readings come; then room again."""
    with small_disk() as disk, city(50, 20, data=disk) as target:
        load = Load(target.broker, 50, 20, city=CITY, outbox="disk")
        load.at_rate(2000, 5)
        load.drain(30)
        filler = disk / "filler"
        _fill(filler)
        load.at_rate(2000, seconds)
        alive = target.process.poll() is None
        filler.unlink()
        drained = load.drain(90)
        deaths = target.deaths + (not alive)
        target.stop()
        stored, distinct = _stored(disk)
        sent = load.sent * load.lamps
        load.close()
        print(f"  sent {sent}, stored {stored}, drained {drained}", flush=True)
        return {
            "full_disk_lost": sent - distinct,
            "full_disk_doubled": stored - distinct,
            "full_disk_deaths": deaths,
        }


def _fill(path: Path) -> None:
    """Take all the room that is left, to the last page."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size):
                    pass


def _stored(folder: Path) -> tuple[int, int]:
    with duckdb.connect(str(folder / "readings.duckdb"), read_only=True) as db:
        row = db.execute("SELECT count(*), count(DISTINCT (device, ts)) FROM luminaire").fetchone()  # fmt: skip
    assert row is not None
    return int(row[0]), int(row[1])


def soak(minutes: float, speed: float = 60.0) -> dict[str, float]:
    """A town at a multiple of time: growth of resident memory after a warm-up."""
    options: argparse.Namespace = demo_parser().parse_args(
        [
            "--cabinets",
            "4",
            "--luminaires",
            "60",
            "--speed",
            f"{speed:g}",
            "--port",
            "0",
        ]
    )
    with tempfile.TemporaryDirectory(prefix="duha-robust-") as name:
        town = Town(options, Path(name))
        town.start()
        try:
            return _grown(town, 60 * minutes)
        finally:
            town.stop()


def _grown(town: Town, seconds: float) -> dict[str, float]:
    parts = [n for n in town.children if n not in ("broker", "devices")]
    seen: dict[str, list[float]] = {part: [] for part in parts}
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        time.sleep(5)
        town.check()
        for part in parts:
            seen[part].append(_rss_mib(town.children[part].pid))
    warm = min(WARM_UP_S, seconds / 3) / 5
    growth = {part: _growth(values[int(warm) :]) for part, values in seen.items()}
    for part in parts:
        print(f"  {part}: {seen[part][0]:.0f} to {seen[part][-1]:.0f} MiB, {growth[part]:.3f} after the warm-up")  # fmt: skip
    return {"soak_minutes": seconds / 60, "rss_growth_ratio": max(growth.values())}


def _growth(values: list[float]) -> float:
    """Mean of the last tenth over that of the first."""
    tenth = max(1, len(values) // 10)
    return sum(values[-tenth:]) / sum(values[:tenth])
