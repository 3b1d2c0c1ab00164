"""Processor time of a million rows into InfluxDB, beside the least that would do it.

Each is measured at its peak and at a quarter of the slower one's peak, in turn, on the
same broker and the same server: the one that DUHA_TEST_INFLUXDB_URL names, else an influxd
of this machine, by the way that it has. CPU is of the consumer alone.
"""

import contextlib
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tests import servers

from benchmarks.__main__ import _cpu_s
from duha_sim.load import Load

CONTROLLERS, LAMPS = 250, 200
WINDOW = 300
"""Batches that are sent and not acknowledged yet, at the peak."""
WARM_UP_S = 3.0


class Place:
    """A server, and how the two ways into it are called."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.token = os.environ.get("DUHA_TEST_INFLUXDB_TOKEN", "")
        self.org = os.environ.get("DUHA_TEST_INFLUXDB_ORG", "duha")
        with urllib.request.urlopen(f"{url}/ping", timeout=10) as answer:
            self.version = answer.headers.get("X-Influxdb-Version", "").lstrip("v")

    @property
    def write_url(self) -> str:
        """Where lines are written."""
        if self.version.startswith("1."):
            return f"{self.url}/write?db=duha&precision=ms"
        asked = {"org": self.org, "bucket": "duha", "precision": "ms"}
        return f"{self.url}/api/v2/write?{urllib.parse.urlencode(asked)}"


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Place]:
    """The server that was named, or one of this machine."""
    named = os.environ.get("DUHA_TEST_INFLUXDB_URL")
    with contextlib.ExitStack() as stack:
        place = Place(named or stack.enter_context(servers.influxd(folder / "cost")))
        command = [sys.executable, "-m", "duha", "backend", "init-influx"]
        command += ["--influx", place.url, "--influx-org", place.org]
        token = {"DUHA_INFLUX_TOKEN": place.token} if place.token else {}
        subprocess.run(command, check=True, env=os.environ | token)
        os.environ.update(token)
        yield place


Consumer = Callable[[], contextlib.AbstractContextManager[int]]
"""Starts a consumer; its process id."""


@contextlib.contextmanager
def minimal(port: int, place: Place) -> Iterator[int]:
    """The baseline."""
    command = [sys.executable, "-m", "benchmarks.minimal", str(port), place.write_url]
    command += [place.token] if place.token else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.terminate()


def peak(port: int, begin: Consumer, name: str, seconds: float) -> tuple[float, float]:
    """Rows a second, and CPU seconds for a million rows."""
    with begin() as pid:
        load = Load(port, CONTROLLERS, LAMPS, outbox=f"{name}-peak")
        warm = time.monotonic() + WARM_UP_S
        load.at_most(WINDOW, lambda: time.monotonic() > warm)
        rows, cpu, began = load.rows, _cpu_s(pid), time.monotonic()
        load.at_most(WINDOW, lambda: time.monotonic() > began + seconds)
        rows, spent = load.rows - rows, time.monotonic() - began
        cpu = _cpu_s(pid) - cpu
        load.drain(60)
        load.close()
    return rows / spent, 1e6 * cpu / rows


def steady(
    port: int, begin: Consumer, name: str, rate: float, seconds: float
) -> tuple[float, float]:
    """CPU seconds for a million rows at a rate, and the 99th percentile of lags [s]."""
    with begin() as pid:
        load = Load(port, CONTROLLERS, LAMPS, outbox=f"{name}-steady")
        load.at_rate(rate, WARM_UP_S)
        rows, cpu, known = load.rows, _cpu_s(pid), len(load.lags)
        load.at_rate(rate, seconds)
        rows, cpu = load.rows - rows, _cpu_s(pid) - cpu
        lags = sorted(load.lags[known:])
        load.drain(60)
        load.close()
    return 1e6 * cpu / rows, lags[int(0.99 * len(lags))]


def compared(
    port: int, ours: Consumer, baseline: Consumer, seconds: float
) -> dict[str, float]:
    """Both, at their peak and at a quarter of the slower one's."""
    rate, cpu = peak(port, ours, "duha", seconds)
    base_rate, base_cpu = peak(port, baseline, "minimal", seconds)
    quarter = min(rate, base_rate) / 4
    slow, p99 = steady(port, ours, "duha", quarter, seconds)
    base_slow, base_p99 = steady(port, baseline, "minimal", quarter, seconds)
    return {
        "influx2_rows_per_s": rate,
        "influx2_cpu_s_per_million": cpu,
        "baseline_rows_per_s": base_rate,
        "baseline_cpu_s_per_million": base_cpu,
        "influx2_cpu_over_baseline": cpu / base_cpu,
        "quarter_load_rows_per_s": quarter,
        "quarter_load_cpu_s_per_million": slow,
        "quarter_load_p99_s": p99,
        "baseline_quarter_load_cpu_s_per_million": base_slow,
        "baseline_quarter_load_p99_s": base_p99,
        "quarter_load_cpu_over_baseline": slow / base_slow,
    }
