"""``make bench-lighting``: documents, previews, overrides and alarms of whole cities.

Prints what it does, then one JSON object as its last line. The baseline of the same run:
an alarm engine that a Python developer would write first, row by row.
"""

import argparse
import asyncio
import contextlib
import datetime as dt
import json
import resource
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import numpy as np
from tests import servers

from benchmarks.__main__ import Targets, close, show
from duha_backend.alarms.engine import Engine
from duha_backend.app import Backend, Settings
from duha_backend.lighting.inventory import Asset, LuminaireType, Stretch
from duha_backend.lighting.preview import preview
from duha_backend.lighting.roads import Roads
from duha_backend.lighting.tariff import Tariff
from duha_backend.lighting.wanted import Compiler, Lamps, Wanted
from duha_backend.link import Broker
from duha_backend.live import Live
from duha_backend.registry import Registry
from duha_backend.validate import Array, Columns
from duha_contract.clock import Clock
from duha_contract.lighting import Sun, level_at
from duha_contract.messages import Desired, Report, Status
from duha_contract.programmes import (
    Calendar,
    Effect,
    Period,
    Place,
    Programme,
    Rule,
    Step,
)
from duha_contract.quantities import KINDS
from duha_contract.roads import Drying
from duha_contract.topics import pattern

TARGETS: Targets = {
    "compile_1m_s": ("<=", 10),
    "compile_1m_mib": ("<=", 2048),
    "override_17k_s": ("<=", 2),
    "overrides_loop_p99_ms": ("<=", 50),
    "alarm_rows_per_s": (">=", 16_667),
    "alarm_16667_cpu_percent": ("<=", 35),
}
PLACE = Place(49.7475, 13.3776, "Europe/Prague")
SUN = Sun(PLACE)
TONIGHT = dt.date(2026, 11, 24)
NOW = 1_800_000_000_000
TYPES = {
    f"LED{w}": LuminaireType(f"LED{w}", f"LED {w} W", float(w)) for w in range(20, 60)
}


def city(count: int, of_cabinet: int) -> list[Asset]:
    """Luminaires in cabinets, with stretches and types."""
    return [
        Asset(
            f"R{n // of_cabinet:05d}-L{n % of_cabinet:03d}", "luminaire",
            f"R{n // of_cabinet:05d}", f"D{n // 100_000}", f"S{n // 40}",
            49.7 + n % 1000 / 1e4, 13.3 + n // 1000 / 1e5,
            feeder=f"F{n % 3}", type=f"LED{20 + n % 40}", stretch=f"T{n // 200}",
        )
        for n in range(count)
    ]  # fmt: skip


def programme(name: str, level: float) -> Programme:
    """A usual one."""
    steps = (Step("sunset", 100, 60), Step("22:00", level, 300), Step("05:00", 80))
    return Programme(name, name, steps, (Period(),), (Effect("wet_road"),))


def wanted(lamps: list[Asset]) -> Wanted:
    """Twelve calendars of twenty programmes; a tenth of cabinets and stretches has its own."""
    programmes = {f"p{n}": programme(f"p{n}", 40 + n) for n in range(20)}
    calendars = {
        f"c{n}": Calendar(
            f"c{n}", f"c{n}", f"p{n}",
            (Rule(f"p{n + 5}", weekdays=("fri", "sat")), Rule("p19", holidays="CZ")),
        )
        for n in range(12)
    }  # fmt: skip
    stretches = {
        name: Stretch(name, name, "M4", ("M5",), {"M4": 90.0, "M5": 40.0})
        for name in {lamp.stretch for lamp in lamps[::400]}
    }
    given = {"*": "c0"}
    for n, lamp in enumerate(lamps[::1000]):
        given[lamp.cabinet] = f"c{1 + n % 5}"
    for n, lamp in enumerate(lamps[::100]):
        given[lamp.id] = f"c{6 + n % 6}"
    return Wanted(programmes, calendars, {}, stretches, given)


def compile_city(count: int) -> dict[str, float]:
    """Documents of a million luminaires: made anew, and compared after a change."""
    assets = city(count, 100)
    lamps, want = Lamps(assets), wanted(assets)
    compiler = Compiler(PLACE, Drying(), TONIGHT)
    began = time.perf_counter()
    first = compiler.compiled(lamps, want, {}, {}, {}, NOW).fresh
    made = time.perf_counter()
    changed = want._replace(programmes={**want.programmes, "p7": programme("p7", 33)})
    second = compiler.compiled(lamps, changed, {}, {}, first, NOW).fresh
    done = time.perf_counter()
    print(f"{len(first)} documents, {len(second)} changed by one programme", flush=True)
    return {
        "compile_1m_s": done - began,
        "compile_1m_first_s": made - began,
        "compile_1m_diff_s": done - made,
        "compile_1m_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def preview_city(count: int) -> dict[str, float]:
    """Seven nights of a city under another calendar."""
    assets = city(count, 200)
    now = wanted(assets)
    proposed = now._replace(assignments={"*": "c3"})
    took, kwh = [], 0.0
    for n in range(5):
        began = time.perf_counter()
        first = TONIGHT + dt.timedelta(
            days=7 * n
        )  # nothing is known of these nights yet
        found = preview(assets, proposed, now, [], TYPES, Tariff(), SUN, first, 7)
        took.append(1000 * (time.perf_counter() - began))
        kwh += found.kwh
    print(f"35 nights: {kwh:.0f} kWh", flush=True)
    return {"preview_17k_7nights_ms": float(np.median(took))}


def evaluate() -> dict[str, float]:
    """Levels of one luminaire at instant after instant, with their reasons."""
    programmes = {"p": programme("p", 40)}
    calendar = Calendar("c", "C", "p", (Rule("p", weekdays=("sat",)),))
    began, count = time.perf_counter(), 50_000
    for n in range(count):
        level_at(programmes, calendar, (), (), SUN, NOW / 1000 + 13 * n, "L1")
    return {"level_at_per_s": count / (time.perf_counter() - began)}


async def override(count: int, folder: Path) -> dict[str, float]:
    """From the call of the API to the last document at the broker."""
    registry = Registry.in_folder(folder)
    assets = city(count, 200)
    cabinets = sorted({lamp.cabinet for lamp in assets})
    registry.put_assets(
        [*(Asset(c, "cabinet", "", "D", "", 49.7, 13.3) for c in cabinets), *assets]
    )
    token = registry.new_token("bench")
    registry.close()
    port, http = servers.free_port(), servers.free_port()
    with servers.mosquitto(port, folder):
        settings = Settings(folder, Broker(port=port), port=http)
        backend = Backend(settings, Clock(time.time))
        running = asyncio.create_task(backend.run())
        try:
            async with aiomqtt.Client("127.0.0.1", port) as client:
                await client.subscribe(pattern("plzen", "desired"), qos=1)
                await _documents(client, cabinets, overrides=0)
                asking = asyncio.to_thread(_dim, http, token)
                began = time.perf_counter()
                asked = asyncio.create_task(asking)
                await _documents(client, cabinets, overrides=1)
                took = time.perf_counter() - began
                await asked
                late = await _lateness(backend, http, token)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    return {
        "override_17k_s": took,
        "overrides_loop_p99_ms": float(np.percentile(late, 99)),
        "overrides_loop_max_ms": max(late),
    }


async def _lateness(backend: Backend, port: int, token: str) -> list[float]:
    """How late the loop is [ms] while ten overrides of the city are made and asked for."""
    late: list[float] = []

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            late.append(1000 * (time.perf_counter() - began) - 5)

    watching = asyncio.create_task(watch())
    for _ in range(9):
        await asyncio.to_thread(_dim, port, token)
    for name, document in backend.control.desired.items():
        report = Report(backend.clock.now_ms(), document.revision, document.hash, 1)
        backend.live.reported(name, [report])
    for _ in range(20):
        await asyncio.to_thread(_overrides, port, token)
        await asyncio.sleep(0.1)
    watching.cancel()
    return late


def _overrides(port: int, token: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/overrides",
        headers={"Authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


async def _documents(
    client: aiomqtt.Client, cabinets: list[str], overrides: int
) -> None:
    """Wait until every cabinet has a document with so many overrides."""
    missing = set(cabinets)
    async for message in client.messages:
        body = json.loads(bytes(message.payload))
        if len(body.get("overrides", ())) == overrides:
            missing.discard(str(message.topic).split("/")[3])
        if not missing:
            return


def _dim(port: int, token: str) -> None:
    body = {"target": {"kind": "city"}, "level": 30, "minutes": 60, "reason": "bench"}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/overrides",
        method="POST",
        data=json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def alarms(count: int, seconds: int = 60) -> dict[str, float]:
    """The engine over a million luminaires, a minute's readings in a minute."""
    live = Live(city(count, 100))
    engine = Engine(
        live, Roads(live), SUN, lambda: TYPES, dict[str, Desired], lambda: ()
    )
    batches = list(_batches(live, count // 100))
    per_second = len(batches) // seconds
    engine.tick(NOW - 1000)  # takes the city in, once
    cpu = time.process_time()
    took = rows = raised = 0.0
    for second in range(seconds):
        now = NOW + 1000 * second
        for cabinet, values in batches[second * per_second : (second + 1) * per_second]:
            values["ts"][:] = now
            live.told(cabinet, Status(1, online=True, ts=now, period_s=60))
            live.take(cabinet, [Columns("luminaire", values)])
            rows += len(values["ts"])
        began = time.perf_counter()
        raised += len(engine.tick(now))
        took += time.perf_counter() - began
    cpu = time.process_time() - cpu
    print(
        f"{rows:.0f} rows in {seconds} s of the city, {raised:.0f} alarms", flush=True
    )
    return {
        "alarm_rows_per_s": rows / took,
        "alarm_16667_cpu_percent": 100 * took / seconds * 16_667 / (rows / seconds),
        "alarm_with_live_cpu_percent": 100 * cpu / seconds,
        "alarm_over_row_by_row": rows / took / _row_by_row(batches[:50]),
    }


def _batches(live: Live, cabinets: int) -> Iterator[tuple[str, dict[str, Array]]]:
    chance = np.random.default_rng(1)
    for number in range(cabinets):
        lamps = live.luminaires[number * 100 : (number + 1) * 100]
        n = len(lamps)
        values = {q.name: np.full(n, np.nan) for q in KINDS["luminaire"]}
        watts = np.array([TYPES[lamp.type].rated_w for lamp in lamps])
        values |= {
            "device": np.array([lamp.id for lamp in lamps], dtype=object),
            "ts": np.zeros(n, dtype=np.int64),
            "quality": np.array(["good"] * n, dtype=object),
            "level_commanded_pct": np.full(n, 60.0),
            "level_in_effect_pct": np.full(n, 60.0),
            "level_actual_pct": np.full(n, 60.0),
            "power_w": 0.5 + (watts - 0.5) * 0.6 * chance.normal(1, 0.02, n),
            "voltage_v": chance.normal(230, 2, n),
            "switch_ons": np.full(n, 100.0),
            "lamp_failure": (chance.random(n) < 0.002).astype(float),
        }
        yield f"R{number:05d}", values


def _row_by_row(batches: list[tuple[str, dict[str, Array]]]) -> float:
    """Rows/s of a plain engine: a dictionary a row, a rule after another."""
    rules: dict[str, Callable[[dict[str, Any]], bool]] = {
        "lampFailure": lambda r: r["lamp_failure"] > 0 or r["power_w"] < 1.5,
        "lampUnexpectedOn": lambda r: (
            r["level_commanded_pct"] == 0 and r["power_w"] > 5
        ),
        "dimmingFailure": lambda r: (
            abs(r["level_actual_pct"] - r["level_in_effect_pct"]) > 15
        ),
        "lampPowerTooHigh": lambda r: r["power_w"] > 100,
        "lampPowerTooLow": lambda r: r["power_w"] < 5,
        "supplyVoltageTooHigh": lambda r: r["voltage_v"] > 253,
        "supplyVoltageTooLow": lambda r: r["voltage_v"] < 207,
        "highTemperature": lambda r: (r["driver_temperature_c"] or 0) > 90,
    }
    since: dict[tuple[str, str], float] = {}
    began, count = time.perf_counter(), 0
    for _, values in batches:
        names = list(values)
        for row in zip(*(values[name].tolist() for name in names), strict=True):
            reading = dict(zip(names, row, strict=True))
            count += 1
            for code, holds in rules.items():
                key = (code, reading["device"])
                if holds(reading):
                    since.setdefault(key, reading["ts"])
                else:
                    since.pop(key, None)
    return count / (time.perf_counter() - began)


def main() -> int:
    """Measure, compare with the targets, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lamps", type=int, default=1_000_000)
    options = parser.parse_args()
    found: dict[str, float] = {}

    def part(made: dict[str, float]) -> None:
        for name, value in made.items():
            show(name, value, TARGETS)
        found.update(made)

    part(compile_city(options.lamps))
    part(preview_city(17_000))
    part(evaluate())
    with tempfile.TemporaryDirectory(prefix="duha-bench-") as folder:
        part(asyncio.run(override(17_000, Path(folder))))
    part(alarms(options.lamps))
    return close(found, TARGETS)


if __name__ == "__main__":
    sys.exit(main())
