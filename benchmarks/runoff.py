"""Rain and runoff: what models and quality control cost (`make bench-runoff`).

The last line is one JSON object. Ratios are to plain batch SWMM over the same model with
the same rain as a time series, run alternately with it.
"""

import argparse
import asyncio
import datetime as dt
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.__main__ import Targets, close, show
from duha_backend.drainage.process import Process
from duha_backend.rain.quality import judge
from duha_backend.runoff.catchments import Catchment, Tier1
from duha_backend.runoff.inp import adapt, parse
from duha_backend.runoff.watch import members
from duha_backend.validate import Array
from duha_sim.sewer import sewer

START = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
DAY_MIN = 24 * 60
TARGETS: Targets = {
    "tier1_10k_day_s": ("<=", 0.1),
    "tier2_overhead_1000": ("<=", 1.15),
    "forecast_3h_4_members_s": ("<=", 10),
}
BATCH = """
import sys, time
from pyswmm import Simulation
begun = time.perf_counter()
with Simulation(sys.argv[1]) as sim:
    sim.execute()
print()
print(time.perf_counter() - begun)
"""


def main() -> int:
    """Run everything; exits 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3, help="of batch and live runs")
    options = parser.parse_args()
    figures: dict[str, float] = {}

    def part(made: dict[str, float]) -> None:
        for name, value in made.items():
            show(name, value, TARGETS)
        figures.update(made)

    part(_tier1())
    part(_quality())
    for streets in (100, 1000):
        part(asyncio.run(_tier2(streets, options.pairs)))
    return close(figures, TARGETS)


def _tier1() -> dict[str, float]:
    """10,000 catchments over a day of minutes."""
    chance = np.random.default_rng(1)
    catchments = [
        Catchment(
            f"C{i}", "", 49.7, 13.4, 10.0, 0.5, lag_min=float(chance.uniform(5, 30))
        )
        for i in range(10_000)
    ]
    rain = chance.choice([0.0, 0.0, 0.2, 0.6], (DAY_MIN, 10_000))
    took = []
    for _ in range(3):
        model = Tier1(catchments)
        begun = time.perf_counter()
        model.step(rain)
        took.append(time.perf_counter() - begun)
    print(f"tier 1: 10,000 catchments x 1,440 steps: {min(took):.3f} s")
    return {"tier1_10k_day_s": round(min(took), 3)}


def _quality() -> dict[str, float]:
    """A month of 20 gauges, as it is judged every five minutes."""
    chance = np.random.default_rng(2)
    rain = chance.choice([0.0, 0.0, 0.0, 0.2, 0.6], (20, 31 * 288))
    places = chance.uniform(0, 9000, (20, 2))
    begun = time.perf_counter()
    for _ in range(3):
        judge(rain, places)
    took = (time.perf_counter() - begun) / 3
    print(f"quality control: {rain.size / took:,.0f} values/s")
    return {"qc_rows_per_s": round(rain.size / took)}


async def _tier2(streets: int, pairs: int) -> dict[str, float]:
    """Live stepping against batch; forecast, replay and memory of the larger model."""
    raw = sewer(streets, ("A", "B", "C"), "gardens").encode()
    rain = np.zeros((DAY_MIN, 3))
    rain[300:480] = np.random.default_rng(3).choice([0.0, 6.0, 24.0, 60.0], (180, 3))
    live, batch = [], []
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="duha-bench-") as folder:
        path = _batch_model(raw, rain, Path(folder))
        for _ in range(pairs):
            batch.append(_batch(path))
            process = Process()
            try:
                await process.open(raw, START.timestamp())
                begun = time.perf_counter()
                await process.run(rain, 5, 600)
                live.append(time.perf_counter() - begun)
                if streets == 1000 and not found:
                    found = await _ahead(process, rain)
            finally:
                await process.close()
    ratio = min(live) / min(batch)
    print(
        f"{streets} subcatchments, a day: batch {min(batch):.2f} s, live with rain each minute"
        f" and all results each five {min(live):.2f} s: {ratio:.3f}"
    )
    if streets == 1000:
        found["replay_day_s"] = round(min(live), 2)
    return {f"tier2_overhead_{streets}": round(ratio, 3), **found}


async def _ahead(process: Process, rain: Array) -> dict[str, float]:
    """Four members of three hours; memory of the model's process."""
    rains = members(rain[300:480], 180)
    rains["design"] = np.full((180, 3), 20.0)
    nodes = list(range(50))
    begun = time.perf_counter()
    told = await process.forecast(rains, nodes, nodes, 5, 60)
    took = time.perf_counter() - begun
    assert all(not one["problem"] for one in told.values())
    status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    mib = int(peak.split()[1]) / 1024
    print(
        f"forecast of 3 h, 4 members: {took:.2f} s; memory of the model {mib:.0f} MiB"
    )
    return {"forecast_3h_4_members_s": round(took, 2), "model_rss_mib": round(mib)}


def _batch_model(raw: bytes, rain: Array, folder: Path) -> Path:
    """The same model with the rain as its own series, over one day."""
    made, _ = adapt(parse(raw), START.replace(tzinfo=None))
    lines = [
        f"DUHA_RAIN_{gauge} {minute // 60}:{minute % 60:02d} {float(value)!r}"
        for gauge, column in enumerate(rain.T)
        for minute, value in enumerate(column)
    ]
    series = [row for row in made.sections["TIMESERIES"] if "DUHA_RAIN" not in row]
    made.sections["TIMESERIES"] = series + lines
    options = [row for row in made.sections["OPTIONS"] if not row.startswith("END")]
    made.sections["OPTIONS"] = [*options, "END_DATE 07/02/2026", "END_TIME 00:00:00"]
    path = folder / "batch.inp"
    path.write_text(made.text(), "utf-8")
    return path


def _batch(path: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-c", BATCH, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
