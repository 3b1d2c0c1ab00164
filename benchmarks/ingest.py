"""``make bench-ingest``: from Mosquitto to the committed store, counted.

A load of very many controllers, real servers, the product's own process for ingest. The
baseline, in the same run: the pipeline that a Python developer would write first, one JSON
message a reading, aiomqtt, influxdb-client's `Point` (in writes of 500). Prints what it
does, then one JSON object as its last line.
"""

import argparse
import asyncio
import contextlib
import functools
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
from tests import servers

from benchmarks import cost
from benchmarks.__main__ import Targets, _cpu_s, _rss_mib, close, show
from duha_backend.lighting.inventory import Asset
from duha_backend.registry import Registry
from duha_sim.load import Load, controller_name, lamp_name, plain_messages

TARGETS: Targets = {
    "duckdb_rows_per_s_peak": (">=", 100_000),
    "duckdb_1m_per_minute_cpu_percent": ("<=", 35),
    "ingest_rss_mib": ("<=", 600),
    "ingest_rss_growth": ("<=", 1.15),
    "p99_s": ("<=", 3.0),
    "lost": ("<=", 0),
    "duplicated": ("<=", 0),
    "influxdb_100k_per_minute_p99_s": ("<=", 3.0),
    "influxdb_lost": ("<=", 0),
    "plain_pipeline_ratio": (">=", 10),
    "influx2_cpu_over_baseline": ("<=", 1.2),
    "quarter_load_cpu_over_baseline": ("<=", 1.5),
    "quarter_load_p99_s": ("<=", 0.3),
}
LAMPS = 200
CONTROLLERS = 5000


class Worker:
    """A process `duha backend run --role ingest`."""

    def __init__(self, folder: Path, port: int, *more: str) -> None:
        self.log = (folder / "worker.log").open("w")
        command = [
            sys.executable, "-m", "duha", "backend", "run", "--role", "ingest",
            "--data", str(folder / "data"), "--city", "load",
            "--broker", f"127.0.0.1:{port}", *more,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stderr=self.log)
        self.rss: list[float] = []
        self._stop = threading.Event()
        self._watching = threading.Thread(target=self._watch)
        self._watching.start()
        _until(lambda: "connected" in (folder / "worker.log").read_text())

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            with contextlib.suppress(OSError):
                self.rss.append(_rss_mib(self.process.pid))

    @property
    def cpu_s(self) -> float:
        """Processor time so far [s]."""
        return _cpu_s(self.process.pid)

    def stop(self) -> None:
        """End it, as an operator would."""
        self._stop.set()
        self._watching.join()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log.close()


def _until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("the worker does not come up")
        time.sleep(0.05)


@contextlib.contextmanager
def place() -> Iterator[tuple[Path, int]]:
    """A folder and a Mosquitto."""
    with tempfile.TemporaryDirectory(prefix="duha-bench-") as name:
        folder, port = Path(name), servers.free_port()
        os.environ["PATH"] += ":/usr/sbin"
        with servers.mosquitto(port, folder, "max_queued_messages 20000"):
            yield folder, port


def register(folder: Path) -> None:
    """A million luminaires in the registry."""
    (folder / "data").mkdir()
    registry = Registry.in_folder(folder / "data")
    cabinets = [controller_name(n) for n in range(CONTROLLERS)]
    registry.put_assets(Asset(c, "cabinet", "", "", "", 49.7, 13.4) for c in cabinets)
    registry.put_assets(
        Asset(lamp_name(c, n), "luminaire", c, "", "", 49.7, 13.4)
        for c in cabinets
        for n in range(1, LAMPS + 1)
    )
    registry.close()


def duck(minutes: float, peak_s: float) -> dict[str, float]:
    """A million luminaires a minute into DuckDB; then as fast as it goes."""
    with place() as (folder, port):
        print(f"registering {CONTROLLERS * LAMPS:,} luminaires ...", flush=True)
        register(folder)
        worker = Worker(folder, port)
        load = Load(port, CONTROLLERS, LAMPS, outbox="steady")
        time.sleep(2)
        print(f"1,000,000 luminaires a minute, for {minutes:g} minutes ...", flush=True)
        cpu, began = worker.cpu_s, time.monotonic()
        load.at_rate(CONTROLLERS * LAMPS / 60, 60 * minutes)
        spent = time.monotonic() - began
        percent = 100 * (worker.cpu_s - cpu) / spent
        drained = load.drain(60)
        rss = worker.rss[5:]
        quarter = max(1, len(rss) // 4)
        lags = sorted(load.lags)
        print(f"as fast as it goes, for {peak_s:g} s ...", flush=True)
        peak = Load(port, CONTROLLERS, LAMPS, outbox="peak")
        rate = fastest(peak, peak_s)
        drained &= peak.drain(60)
        worker.stop()
        rows = (load.sent + peak.sent) * LAMPS
        stored, distinct = counted(folder / "data" / "readings.duckdb")
        load.close()
        peak.close()
        return {
            "duckdb_rows_per_s_peak": rate,
            "duckdb_1m_per_minute_cpu_percent": percent,
            "cpu_us_per_row": 1e6 * percent / 100 * spent / (load.sent * LAMPS),
            "ingest_rss_mib": max(worker.rss),
            "ingest_rss_growth": max(rss[-quarter:]) / max(rss[:quarter]),
            "p50_s": statistics.median(lags),
            "p99_s": lags[int(0.99 * len(lags))],
            "rows_sent": float(rows),
            "lost": float(rows - distinct + (0 if drained else 1)),
            "duplicated": float(stored - distinct),
            "resent": float(load.resent + peak.resent),
        }


def fastest(load: Load, seconds: float) -> float:
    """Acknowledged rows a second with a full window, after two seconds to come up to it."""
    end = time.monotonic() + seconds + 2
    sending = threading.Thread(
        target=load.at_most, args=(300, lambda: time.monotonic() > end)
    )
    sending.start()
    time.sleep(2)
    before, began = load.rows, time.monotonic()
    sending.join()
    return (load.rows - before) / (time.monotonic() - began)


def counted(path: Path) -> tuple[int, int]:
    """Rows of luminaires, and different ones."""
    with duckdb.connect(str(path), read_only=True) as db:
        db.execute("SET memory_limit = '2GiB'")
        stored = db.execute("SELECT count(*) FROM luminaire").fetchall()[0][0]
        # A device has one reading at one time: counted minute by minute, in little memory.
        distinct = db.execute(
            "SELECT sum(n) FROM (SELECT count(DISTINCT (device, epoch_ms(ts) % 600000))"
            " AS n FROM luminaire GROUP BY epoch_ms(ts) // 600000)"
        ).fetchall()[0][0]
    return int(stored), int(distinct)


def influx(minutes: float, peak_s: float) -> dict[str, float]:
    """A hundred thousand luminaires a minute into InfluxDB 1.x; then as fast as it goes."""
    controllers = 500
    with place() as (folder, port), servers.influxd(folder / "influx") as url:
        init = ["init-influx", "--influx", url]
        subprocess.run([sys.executable, "-m", "duha", "backend", *init], check=True)
        worker = Worker(folder, port, "--influx", url)
        load = Load(port, controllers, LAMPS, outbox="steady")
        time.sleep(2)
        print(f"100,000 luminaires a minute, for {minutes:g} minutes ...", flush=True)
        load.at_rate(controllers * LAMPS / 60, 60 * minutes)
        drained = load.drain(60)
        lags = sorted(load.lags)
        peak = Load(port, controllers, LAMPS, outbox="peak")
        rate = fastest(peak, peak_s)
        drained &= peak.drain(60)
        rows = (load.sent + peak.sent) * LAMPS
        stored = asyncio.run(_count_influx(url))
        worker.stop()
        load.close()
        peak.close()
        return {
            "influxdb_rows_per_s": rate,
            "influxdb_100k_per_minute_p99_s": lags[int(0.99 * len(lags))],
            "influxdb_lost": float(rows - stored + (0 if drained else 1)),
        }


async def _count_influx(url: str) -> int:
    from duha_backend.influx import Influx, InfluxReadings

    store = InfluxReadings(Influx(url))
    counts = await store.counts()
    await store.close()
    return counts["luminaire"]


def workers(peak_s: float) -> dict[str, float]:
    """One worker and two, on one shared subscription, into a server that takes more."""
    rates = []
    for count in (1, 2):
        with place() as (folder, port), servers.victoria_metrics(folder / "vm") as url:
            running = []
            for n in range(count):
                (folder / str(n)).mkdir()
                running.append(Worker(folder / str(n), port, "--influx", url))
            load = Load(port, 500, LAMPS, outbox=f"workers{count}")
            time.sleep(1)
            rates.append(fastest(load, peak_s))
            load.drain(60)
            load.close()
            for worker in running:
                worker.stop()
    cores = float(os.cpu_count() or 1)
    return {
        "worker_rows_per_s": rates[0],
        "two_workers_over_one": rates[1] / rates[0],
        "cores": cores,
    }


def costs(seconds: float) -> tuple[dict[str, float], str]:
    """CPU for a million rows, at the peak and at a quarter of it; and which server it was."""
    with place() as (folder, port), cost.server(folder) as influxdb:
        numbers = itertools.count()

        @contextlib.contextmanager
        def ours() -> Iterator[int]:
            here = folder / f"worker{next(numbers)}"
            here.mkdir()
            more = ("--influx", influxdb.url, "--influx-org", influxdb.org)
            worker = Worker(here, port, *more)
            yield worker.process.pid
            worker.stop()

        baseline = functools.partial(cost.minimal, port, influxdb)
        return cost.compared(port, ours, baseline, seconds), influxdb.version


def plain(seconds: float) -> dict[str, float]:
    """The pipeline that one would write first, as a process of its own."""
    with place() as (folder, port), servers.victoria_metrics(folder / "vm") as url:
        command = [sys.executable, "-m", "benchmarks.plain", str(port), url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it is connected
            _flood(port, seconds)
            process.send_signal(signal.SIGTERM)
            written, took = map(float, process.stdout.readline().split())
    return {"plain_rows_per_s": written / took}


def _flood(port: int, seconds: float) -> None:
    """More single messages than anybody takes, for a while."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="flood")
    client.connect("127.0.0.1", port)
    client.loop_start()
    messages = plain_messages(LAMPS)
    end, n = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        client.publish("plain/reading", messages[n % LAMPS], qos=0)
        n += 1
        if n % 20 == 0:
            time.sleep(0.001)
    client.disconnect()
    client.loop_stop()


def main() -> int:
    """Measure, compare with the targets, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=10, help="of a million a minute"
    )
    parser.add_argument("--peak", type=float, default=20, help="seconds at full speed")
    options = parser.parse_args()
    found: dict[str, float] = {}
    parts: tuple[Callable[[], dict[str, float]], ...] = (
        lambda: duck(options.minutes, options.peak),
        lambda: influx(max(0.5, options.minutes / 5), options.peak),
        lambda: plain(options.peak),
        lambda: workers(options.peak),
    )
    for part in parts:
        figures = part()
        for name, value in figures.items():
            show(name, value, TARGETS)
        found |= figures
    print("CPU for a million rows, at the peak and at a quarter of it ...", flush=True)
    figures, version = costs(options.peak)
    for name, value in figures.items():
        show(name, value, TARGETS)
    found |= figures
    ours = found["duckdb_rows_per_s_peak"]
    found["plain_pipeline_ratio"] = ours / found["plain_rows_per_s"]
    found["plain_pipeline_ratio_influxdb"] = (
        found["influxdb_rows_per_s"] / found["plain_rows_per_s"]
    )
    for name in ("plain_pipeline_ratio", "plain_pipeline_ratio_influxdb"):
        show(name, found[name], TARGETS)
    # Broker, load and server take cores too: with fewer, two workers have none for each.
    judged = {"two_workers_over_one": (">=", 1.5)} if found["cores"] >= 6 else {}
    return close(
        found, TARGETS | judged, influx_server=f"InfluxDB {version or '2 or 3'}"
    )


if __name__ == "__main__":
    sys.exit(main())
