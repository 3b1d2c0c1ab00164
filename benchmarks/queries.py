"""``make bench-queries``: what dashboards ask, over 30 days of 17,000 lights each minute.

The month (734 million readings of eleven quantities) is generated once, by DuckDB itself,
and kept under a cache folder (about 10 GB and a quarter of an hour); its quarters and days
are worked out by the store's own roll-up. Prints one JSON object as its last line.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from benchmarks.__main__ import Targets, _rss_mib, close, show
from duha_backend.api.app import make_app
from duha_backend.duck import DuckReadings
from duha_backend.lighting.inventory import Asset
from duha_backend.live import Live
from duha_backend.readings import DAY_MS, QUARTER_MS, Curve, length
from duha_sim.load import lamp_name

TARGETS: Targets = {
    "dashboard_p95_ms": ("<=", 250),
    "latest_200k_ms": ("<=", 150),
}
CABINETS, LAMPS = 85, 200
START = 1_793_491_200_000  # 2026-11-01 UTC
ROUNDS = 5

_HOUR = """
INSERT INTO luminaire BY NAME
SELECT printf('RVO-%05d-L%03d', d // 200, d % 200 + 1) AS device,
  make_timestamp(1000 * (? + 60000 * m + 3 * d)) AS ts,
  printf('RVO-%05d', d // 200) AS controller,
  CASE WHEN hash(d, m) % 500 = 0 THEN 'no_answer' ELSE 'good' END AS quality,
  l AS level_commanded_pct, l AS level_in_effect_pct, l AS level_actual_pct,
  round(l * 0.6 + (hash(m, d) % 20) / 10, 1) AS power_w,
  (? + m) * 30 + d AS energy_wh, (? + m) / 60 + d AS burning_h,
  round(20 + l / 5 + (hash(d, m) % 30) / 10, 1) AS driver_temperature_c,
  round(229 + (hash(d + m) % 40) / 10, 1) AS voltage_v,
  d % 50 AS switch_ons, (hash(d) % 300 = 0)::DOUBLE AS lamp_failure, 0 AS gear_failure
FROM range(60) a(m), range(?) b(d),
  (SELECT CASE WHEN ? BETWEEN 7 AND 15 THEN 0 WHEN ? BETWEEN 22 AND 23 OR ? < 5 THEN 40
   ELSE 100 END AS l)
ORDER BY m
"""


def generate(path: Path, days: int, lamps: int) -> None:
    """A month of readings, hour by hour, then its quarters and days."""
    store = DuckReadings(path, memory_mib=2048)
    began = time.monotonic()
    for hour in range(days * 24):
        at = START + hour * 3_600_000
        of_day = hour % 24
        with store._db.cursor() as db:
            db.execute(_HOUR, [at, hour * 60, hour * 60, lamps, *[of_day] * 3])
        for n in range(4):
            store._roll("luminaire", "15m", at + n * QUARTER_MS)
        if of_day == 23:
            store._roll("luminaire", "1d", at // DAY_MS * DAY_MS)
            took = time.monotonic() - began
            print(f"day {hour // 24 + 1} of {days}, {took:.0f} s", flush=True)
    with store._db.cursor() as db:
        db.execute("CHECKPOINT")
    asyncio.run(store.close())


Ask = Callable[[], Awaitable[object]]


def dashboards(store: DuckReadings, days: int) -> dict[str, Ask]:
    """What the panels of operators and managers ask."""
    end = START + days * DAY_MS
    lamp = lamp_name("RVO-00042", 77)
    power = Curve("luminaire", ("power_w", "level_actual_pct", "lamp_failure"))
    cabinet = Curve("luminaire", ("power_w", "energy_wh"), "RVO-00042")
    return {
        "city, month, quarters": lambda: store.curve(power, START, end, "15m"),
        "city, month, days": lambda: store.curve(power, START, end, "1d"),
        "cabinet, month, quarters": lambda: store.curve(cabinet, START, end, "15m"),
        "city, last night": lambda: store.curve(power, end - DAY_MS, end, "15m"),
        "lamp, month, quarters": lambda: store.window(
            "luminaire", lamp, START, end, "15m"
        ),
        "lamp, month, days": lambda: store.window("luminaire", lamp, START, end, "1d"),
        "lamp, last day, raw": lambda: store.window(
            "luminaire", lamp, end - DAY_MS, end
        ),
        "lamp, a day long ago, raw": lambda: store.window(
            "luminaire", lamp, START + DAY_MS, START + 2 * DAY_MS
        ),
        "lamp, last hour, raw": lambda: store.window(
            "luminaire", lamp, end - 3_600_000, end
        ),
    }


async def ask(store: DuckReadings, days: int) -> dict[str, float]:
    """Every panel a few times, in turn; the worst of each and of all."""
    took: list[float] = []
    for name, query in dashboards(store, days).items():
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            frame = await query()
            times.append(1000 * (time.perf_counter() - began))
            assert length(frame) > 0, name  # type: ignore[arg-type]
        print(f"  {name:28} {statistics.median(times):8.1f} ms, worst {max(times):.1f}")
        took += times
    began = time.perf_counter()
    found = await store.latest("luminaire", START + days * DAY_MS - 1_200_000)
    restore = 1000 * (time.perf_counter() - began)
    assert length(found) > 0
    took.sort()
    return {
        "dashboard_p50_ms": statistics.median(took),
        "dashboard_p95_ms": took[int(0.95 * len(took))],
        "dashboard_worst_ms": took[-1],
        "restore_latest_ms": restore,
        "rows_raw": float((await store.counts())["luminaire"]),
    }


def latest(count: int = 200_000) -> dict[str, float]:
    """The latest state of very many lights, by HTTP from a real server."""
    import uvicorn

    assets = [
        Asset(f"L{n:06d}", "luminaire", "R", "", "", 49, 13) for n in range(count)
    ]
    live = Live(assets)
    known = live.latest["luminaire"]
    known.ts[:] = START
    chance = np.random.default_rng(1)
    for column in known.values.values():
        column[:] = np.round(chance.uniform(0, 100, count), 1)

    class Few:
        roles = frozenset(("api",))

    services = Few()
    services.live = live  # type: ignore[attr-defined]
    app = make_app(services, whole=True)  # type: ignore[arg-type]
    from duha_backend.api.services import _signed_in

    app.dependency_overrides[_signed_in] = lambda: "bench"
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, lifespan="off")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    path = "/api/v1/latest/luminaire?columns=level_actual_pct,power_w"
    times, body = [], b""
    for _ in range(7):
        began = time.perf_counter()
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}{path}", timeout=10
        ) as got:
            body = got.read()
        times.append(1000 * (time.perf_counter() - began))
    server.should_exit = True
    thread.join()
    columns = json.loads(body)["columns"]
    assert len(columns["power_w"]) == len(columns["device"]) == count
    return {"latest_200k_ms": statistics.median(times), "latest_mib": len(body) / 2**20}


def main() -> int:
    """Generate what is not there, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "duha"
    parser.add_argument("--cache", type=Path, default=cache)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--lamps", type=int, default=CABINETS * LAMPS)
    options = parser.parse_args()
    path = options.cache / f"month-{options.lamps}-{options.days}.duckdb"
    if not path.exists():
        options.cache.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".half")
        half.unlink(missing_ok=True)
        print(f"generating {path} ...", flush=True)
        generate(half, options.days, options.lamps)
        half.rename(path)
    found = latest()
    store = DuckReadings(path)
    found |= asyncio.run(ask(store, options.days))
    asyncio.run(store.close())
    found["file_gib"] = path.stat().st_size / 2**30
    found["rss_mib"] = _rss_mib(os.getpid())
    for name, value in found.items():
        show(name, value, TARGETS)
    return close(found, TARGETS)


if __name__ == "__main__":
    sys.exit(main())
