"""SWMM in a process of its own: fed live it gives what a file gives, and never silently less."""

import datetime as dt
import pathlib

import numpy as np
import pyswmm.tests.data as bundled
import pytest

from duha_backend.drainage.process import Process
from duha_backend.errors import Diverged, Invalid
from duha_backend.runoff.inp import adapt, describe, parse
from duha_sim.sewer import sewer

DATA = pathlib.Path(bundled.__file__).parent
START = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
HOURS = 6


def storm(gauges, hours=HOURS, seed=4):
    """Rain of minutes [mm/h], another one for each gauge, with dry spells."""
    chance = np.random.default_rng(seed)
    rain = chance.choice([0.0, 6.0, 24.0, 90.0], (hours * 60, gauges))
    rain[:30] = 0
    rain[150:270] = 0
    return rain


@pytest.fixture
async def process():
    made = Process()
    yield made
    await made.close()


async def live(process, raw, rain_of):
    names = await process.open(raw, START.timestamp())
    rain = rain_of(len(names.gauges))
    return names, await process.run(rain, 5, 60)


def with_file_rain(raw, rain):
    """The same model with the rain as its own time series, a value each minute."""
    made, _ = adapt(parse(raw), START.replace(tzinfo=None))
    american = describe(parse(raw)).american
    lines = []
    for gauge, column in enumerate(rain.T):
        for minute, value in enumerate(column):
            rate = float(value / 25.4 if american else value)
            lines.append(f"DUHA_RAIN_{gauge} {minute // 60}:{minute % 60:02d} {rate!r}")
    kept = [line for line in made.sections["TIMESERIES"] if "DUHA_RAIN" not in line]
    made.sections["TIMESERIES"] = kept + lines
    return made.text()


READ_FILE_RUN = """
import json, sys
from pyswmm import Simulation
from swmm.toolkit import solver
from swmm.toolkit.shared_enum import NodeResult, ObjectType
rows = []
with Simulation(sys.argv[1]) as sim:
    sim.step_advance(60)
    n = solver.project_get_count(ObjectType.NODE)
    for minute, _ in enumerate(sim, 1):
        if minute % 5 == 0:
            rows.append([solver.node_get_result(i, NodeResult.TOTAL_INFLOW) for i in range(n)])
        if minute == int(sys.argv[2]):
            break
print(json.dumps(rows))
"""


async def file_run(raw, rain, folder):
    """Inflows of all nodes every five minutes, by pyswmm alone, in the model's units."""
    import asyncio
    import json
    import sys

    path = folder / "file.inp"
    path.write_text(with_file_rain(raw, rain))
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READ_FILE_RUN, str(path), str(len(rain)), stdout=-1
    )
    out, _ = await started.communicate()
    started._transport.close()  # type: ignore[attr-defined]
    return np.array(json.loads(out.splitlines()[-1]))


OWN = {name: sewer(12, ("A", "B", "C"), name).encode() for name in ("today", "gardens")}
BUNDLED = {
    name: (DATA / f"{name}.inp").read_bytes() for name in ("model_lids", "model_rain")
}
LITRES = {"CFS": 28.316846592, "LPS": 1.0, "CMS": 1000.0}


@pytest.mark.parametrize("name", [*OWN, *BUNDLED])
async def test_live_rain_gives_the_flows_of_file_rain(name, process, tmp_path):
    raw = (OWN | BUNDLED)[name]
    names, rows = await live(process, raw, storm)
    fed = np.array([row.nodes[1] for row in rows])
    read = await file_run(raw, storm(len(names.gauges)), tmp_path)
    read = read * LITRES[describe(parse(raw)).flow_units]
    assert fed.shape == read.shape
    assert fed.max() > 1
    assert np.abs(fed - read).max() <= 1e-9 * read.max()


@pytest.mark.parametrize("dry", ["00:05:00", "01:00:00", "24:00:00"])
async def test_a_model_with_long_dry_steps_loses_not_a_drop(dry, process):
    raw = OWN["today"].replace(b"DRY_STEP 01:00:00", f"DRY_STEP {dry}".encode())
    rain = np.zeros((HOURS * 60, 3))
    rain[137] = 600 / 10  # one minute of 1 mm, far from any step
    names, rows = await live(process, raw, lambda _: rain)
    assert rows[-1].injected_mm == pytest.approx(1.0, rel=1e-9)
    assert any(f"DRY_STEP: {dry} became 00:01:00" in change for change in names.changes)


READ_RUNOFF = """
import datetime, json, pathlib, sys
import numpy as np
from duha_backend.drainage.engine import Engine
model = Engine(sys.stdin.buffer.read(), datetime.datetime(2026, 7, 1), pathlib.Path(sys.argv[1]))
found = {}
for minute in range(1, 180):
    model.advance(np.array([36.0]))
    found[minute] = float(model.read_runoff()[0])
print(json.dumps(found))
"""


def test_an_impervious_hectare_runs_off_what_it_must(tmp_path):
    """Derived: 36 mm/h on 1 ha of concrete is 100 L/s; the way there by SWMM 5.2.4."""
    import json
    import subprocess
    import sys

    raw = sewer(1, ("A",)).replace("1.0 55.0 100 1.0 0", "1.0 100 100 1.0 0")
    raw = raw.replace("0.015 0.2 1.5 5 25", "0.015 0.2 0 0 0")
    done = subprocess.run(
        [sys.executable, "-c", READ_RUNOFF, str(tmp_path)],
        input=raw.encode(), capture_output=True, check=True,
    )  # fmt: skip
    flow = json.loads(done.stdout)
    expected = {5: 32.779, 10: 68.417, 15: 87.122, 30: 99.298, 60: 99.999, 179: 100.001}
    for minute, value in expected.items():
        assert flow[str(minute)] == pytest.approx(value, abs=0.0015), minute


WITH_OTHER_RAIN = """
import datetime, pathlib, sys
import numpy as np
from duha_backend.drainage.engine import Engine
from duha_backend.errors import Diverged
model = Engine(sys.stdin.buffer.read(), datetime.datetime(2026, 7, 1), pathlib.Path(sys.argv[1]))
for _ in range(10):
    model.advance(np.full(len(model.gauges), 30.0))
model.check_rain()
model.injected += 1e-6
try:
    model.check_rain()
except Diverged as error:
    print(error)
"""


def test_a_model_that_has_not_got_its_rain_is_found_out(tmp_path):
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", WITH_OTHER_RAIN, str(tmp_path)],
        input=OWN["today"], capture_output=True, check=True,
    )  # fmt: skip
    assert (
        "the model has 5.000000 mm of rain, it was given 5.000001 mm"
        in done.stdout.decode()
    )


@pytest.mark.parametrize("bad", [np.nan, -1.0, 1e10, np.inf, 401.0])
async def test_what_is_no_rain_never_reaches_the_engine(bad, process):
    await process.open(OWN["today"], START.timestamp())
    rain = np.zeros((10, 3))
    rain[5, 1] = bad
    with pytest.raises(Invalid, match=r"gage B: .* is no rain"):
        await process.run(rain, 5, 30)
    rows = await process.run(np.zeros((5, 3)), 5, 30)
    assert rows[-1].minute == 10, "five good minutes before it, and five after"
    assert rows[-1].injected_mm == 0


async def test_a_broken_model_is_refused_with_every_line(process):
    raw = OWN["today"].replace(b"K0003 CIRCULAR", b"K0003 TRIANGEL")
    raw = raw.replace(b"N0005 FLOW", b"N9999 FLOW")
    with pytest.raises(Invalid) as refused:
        await process.open(raw, START.timestamp())
    said = str(refused.value)
    assert "TRIANGEL" in said
    assert "N9999" in said
    assert said.count("ERROR") >= 2
    author = raw.decode().splitlines()
    number = next(i for i, line in enumerate(author, 1) if "TRIANGEL" in line)
    assert f"at line {number} of" in said


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", r"no \[OPTIONS\]"),
        (b"hello", "before any"),
        (b"[OPTIONS]\nFLOW_UNITS LPS\n", "no rain gage"),
        (b"\xff\xfe\x00\x01", "before any"),
    ],
)
def test_what_is_no_model_is_refused(raw, why):
    with pytest.raises(Invalid, match=why):
        describe(parse(raw))


async def test_a_forecast_is_what_then_happens_and_leaves_the_model_alone(process):
    names = await process.open(OWN["gardens"], START.timestamp())
    rain = storm(3)
    await process.run(rain[:120], 5, 60)
    ahead = {"a": rain[120:240], "zero": np.zeros((120, 3))}
    nodes = list(range(len(names.nodes)))
    told = await process.forecast(ahead, nodes, [0], 5, 60)
    rows = await process.run(rain[120:240], 5, 60)
    seen = np.array([row.nodes for row in rows])
    assert (np.array(told["a"]["nodes"]) == seen).all(), "to the last bit"
    assert (np.array(told["zero"]["nodes"])[-1, 1] <= seen[-1, 1] + 1e-9).all()
    assert told["a"]["problem"] == ""


async def test_a_forecast_that_overruns_is_ended_and_the_model_goes_on(process):
    await process.open(sewer(300, ("A",), routing_s=1).encode(), START.timestamp())
    ahead = {name: np.full((48 * 60, 1), 20.0) for name in ("a", "b", "c")}
    told = await process.forecast(ahead, [0], [0], 5, 0.3)
    assert {one["problem"] for one in told.values()} == {"not ready within 0.3 s"}
    rows = await process.run(np.zeros((5, 1)), 5, 30)
    assert rows[-1].minute == 5


async def test_two_replays_are_the_same_to_the_last_bit(process):
    _, first = await live(process, OWN["gardens"], storm)
    other = Process()
    try:
        _, second = await live(other, OWN["gardens"], storm)
    finally:
        await other.close()
    for a, b in zip(first, second, strict=True):
        assert (a.nodes == b.nodes).all()
        if a.lids is not None and b.lids is not None:
            assert (a.lids == b.lids).all()


async def test_a_process_that_dies_or_hangs_is_said_to(process):
    import os

    await process.open(OWN["today"], START.timestamp())
    os.kill(process.pid, 9)
    with pytest.raises(Diverged, match="died"):
        await process.run(np.zeros((5, 3)), 5, 30)
    await process.open(sewer(300, ("A",), routing_s=0.5).encode(), START.timestamp())
    with pytest.raises(Diverged, match=r"has not answered within 0\.2 s"):
        await process.run(np.full((24 * 60, 1), 10.0), 5, 0.2)
    assert process.pid is None


async def test_whoever_stops_listening_in_mid_answer_is_not_kept_waiting(process):
    import asyncio

    await process.open(OWN["today"], START.timestamp())
    process._process._transport.get_pipe_transport(1).pause_reading()
    async with asyncio.timeout(5):
        await process.close()
    assert process.pid is None


async def test_a_worker_ends_with_whoever_asks_and_leaves_nothing_behind(process):
    import asyncio
    import os
    import pathlib

    await process.open(OWN["today"], START.timestamp())
    pid, folder = process.pid, pathlib.Path(process._folder.name)
    assert (folder / "live.inp").exists()
    process._process.stdin.close()  # as when the backend is killed
    async with asyncio.timeout(10):
        while folder.exists():
            await asyncio.sleep(0.05)
        while pathlib.Path(f"/proc/{pid}/stat").exists():
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2]
            if state == "Z":
                break
            await asyncio.sleep(0.05)
    assert os.path.lexists(folder) is False


async def test_water_of_rain_gardens_adds_up(process):
    names, rows = await live(process, OWN["gardens"], storm)
    hours = [row.lids for row in rows if row.lids is not None]
    came, soaked, evaporated, spilled, drained, held = hours[-1] - hours[0]
    assert names.lids[0] == "S0000.0"
    assert soaked + evaporated + spilled + drained + held == pytest.approx(
        came, rel=5e-3
    )
    assert spilled.max() >= 0
    assert came.max() > 10


def test_american_models_are_read_in_metres_and_litres():
    model = describe(parse(BUNDLED["model_lids"]))
    assert model.american
    assert model.flow_units == "CFS"


def test_each_gage_has_a_series_of_its_own():
    """SWMM gives two gages with one series the rain of the first."""
    made, _ = adapt(parse(OWN["today"]), START.replace(tzinfo=None))
    series = [row[-1] for row in made.rows("RAINGAGES")]
    assert len(set(series)) == 3


@pytest.mark.parametrize(
    ("section", "line", "why"),
    [
        ("TIMESERIES", 'LEVEL FILE "/etc/passwd"', "series LEVEL reads a file"),
        ("TEMPERATURE", 'FILE "/etc/passwd"', "temperature reads a file"),
    ],
)
def test_a_model_reads_no_file_of_this_machine(section, line, why):
    text = OWN["today"].decode() + f"[{section}]\n{line}\n"
    with pytest.raises(Invalid, match=why):
        adapt(parse(text), START.replace(tzinfo=None))


def test_a_model_writes_no_file_of_this_machine():
    usage = "S0000 GARDEN 1 500 10 0 60 0"
    gardens = OWN["gardens"].decode()
    text = gardens.replace(usage, f'{usage} "/tmp/mine.txt"')
    with pytest.raises(
        Invalid, match=r"line \d+: GARDEN in S0000 writes a report file"
    ):
        parse(text)
    assert parse(gardens.replace(usage, f"{usage} *")).sections
    with pytest.raises(Invalid, match=r"line \d+: \[FILES\] SAVE RAINFALL"):
        parse(gardens + '[FILES]\nSAVE RAINFALL "/tmp/rain.rff"\n')


def test_names_in_quotes_and_comments():
    text = '[OPTIONS]\nFLOW_UNITS LPS ; metric\n[RAINGAGES]\n"Plzeň 1" INTENSITY 0:05 1 TIMESERIES X ;c\n'
    inp = parse(text)
    assert inp.option("FLOW_UNITS") == "LPS"
    assert inp.ids("RAINGAGES") == ("Plzeň 1",)


# -- what a model's own sections do while it runs live --------------------------------------


async def test_stored_water_is_in_cubic_metres_in_every_model(process):
    """What came in and did not go out again, by SWMM's own flows."""
    rain = np.zeros((HOURS * 60, 3))
    rain[10:40] = 60.0
    _, rows = await live(process, OWN["today"], lambda _: rain)
    outfalls = describe(parse(OWN["today"])).outfalls
    names = await process.open(OWN["today"], START.timestamp())
    out = [names.nodes.index(name) for name in outfalls]
    minutes = await process.run(rain, 1, 60)
    left = sum(row.nodes[1, out].sum() for row in minutes) * 60 / 1000
    came = minutes[-1].runoff_mm * names.area_ha * 10 + 12 * 0.3 * HOURS * 3.6
    peak = max(row.stored_m3 for row in rows)
    assert minutes[-1].stored_m3 == pytest.approx(came - left, abs=0.02 * came)
    assert 0 < peak < came


async def test_a_models_own_factors_of_rain_are_applied_live_and_said(process):
    raw = OWN["today"] + b"\n[adjustment]\nRAINFALLS 1 1 1 1 1 1 1.5 1 1 1 1 1\n"
    names, rows = await live(process, raw, lambda n: np.full((60, n), 12.0))
    assert rows[-1].injected_mm == pytest.approx(18.0)
    assert (
        "rain is multiplied by the model's factors of months: 1 1 1 1 1 1 1.5 1 1 1 1 1"
        in names.changes
    )
    names, rows = await live(process, OWN["today"], lambda n: np.full((60, n), 18.0))
    assert not any("factors" in change for change in names.changes)
    assert rows[-1].injected_mm == pytest.approx(18.0)


def test_inflows_of_past_dates_are_refused_and_those_that_end_are_said():
    series = "\n[TIMESERIES]\nRIVER {}0:00 100\nRIVER {}24:00 50\n"
    inflow = "\n[INFLOWS]\nN0001 FLOW River FLOW 1 1\n"
    own = OWN["today"].decode() + inflow
    dated = own + series.format("01/01/2020 ", "")
    start = START.replace(tzinfo=None)
    with pytest.raises(
        Invalid, match=r"inflow of N0001 .* from 01/01/2020: .* pattern"
    ):
        adapt(parse(dated), start)
    _, changes = adapt(parse(own + series.format("", "")), start)
    assert (
        "inflow of N0001: series River counts from each cold start, and gives nothing"
        " after 24:00" in changes
    )
    adapt(parse(dated), start, np.zeros((60, 3)))  # a study begins when its author says
    tide = OWN["today"].decode() + series.format("01/01/2020 ", "")
    _, changes = adapt(parse(tide), start)
    assert any("series river has dates, from 01/01/2020" in c for c in changes)


async def test_daily_patterns_act_by_the_clock_that_the_model_is_given(process):
    hours = " ".join("10" if hour == 7 else "0" for hour in range(24))
    lines = [hours[:0] + " ".join(hours.split()[n : n + 6]) for n in range(0, 24, 6)]
    pattern = "\n[PATTERNS]\n" + "\n".join(
        f"DAY {'HOURLY ' if n == 0 else ''}{line}" for n, line in enumerate(lines)
    )
    raw = OWN["today"].decode().replace("FLOW 0.3", "FLOW 0.3 DAY") + pattern + "\n"
    names = await process.open(raw.encode(), START.timestamp() + 2 * 3600)
    rows = await process.run(np.zeros((8 * 60, 3)), 5, 60)
    inflow = [row.nodes[1, names.nodes.index("N0011")] for row in rows]
    wet = [row.minute for row, q in zip(rows, inflow, strict=True) if q > 1]
    assert 5 * 60 <= min(wet) <= 5 * 60 + 10, "7 h by its clock, two hours ahead of UTC"
    assert max(wet) <= 6 * 60 + 10


async def test_what_is_flooded_live_is_what_left_in_every_routing_step(process):
    """The weirs of this model swing within seconds: samples of five minutes see half."""
    raw = (DATA / "model_weir_setting.inp").read_bytes()
    rain = np.zeros((180, 1))
    rain[:30] = 100.0
    names = await process.open(raw, START.timestamp())
    rows = [
        (await process.run(rain[n : n + 5], 5, 60))[-1] for n in range(0, len(rain), 5)
    ]
    minutes = Process()
    try:
        await minutes.open(raw, START.timestamp())
        fine = await minutes.run(rain, 1, 60)
    finally:
        await minutes.close()
    whole = np.array([row.nodes[2] for row in rows]).sum(axis=0) * 0.3
    parts = np.array([row.nodes[2] for row in fine]).sum(axis=0) * 0.06
    assert whole.sum() > 1
    assert whole == pytest.approx(parts), "m³, however often they are read"
    deepest = np.array([row.peaks[0] for row in rows]).max(axis=0)
    sampled = np.array([row.nodes[0] for row in rows]).max(axis=0)
    by_minutes = np.array([row.nodes[0] for row in fine]).max(axis=0)
    assert (deepest >= by_minutes - 1e-9).all()
    at = names.nodes.index("J2")
    assert deepest[at] > sampled[at] + 0.1


READ_STATISTICS = """
import datetime, json, pathlib, sys
import numpy as np
from swmm.toolkit import solver
from duha_backend.drainage.engine import Engine
model = Engine(sys.stdin.buffer.read(), datetime.datetime(2026, 7, 1), pathlib.Path(sys.argv[1]))
for _ in range(60):
    model.advance(np.full(len(model.gauges), 90.0))
nodes, links = model._statistics.nodes(), model._statistics.links()
same = []
for i in range(len(model.nodes)):
    one = solver.node_get_stats(i)
    same.append([one.maxDepth, one.maxInflow, one.maxOverflow, one.volFlooded, one.timeFlooded]
        == [float(column[i]) for column in nodes])
for i in range(len(model.links)):
    one = solver.link_get_stats(i)
    same.append([one.maxFlow, one.maxDepth] == [float(column[i]) for column in links])
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
for _ in range(100):
    model.read()
before = resident()
for _ in range(5000):
    model.read()
print(json.dumps({"same": all(same), "count": len(same), "grown": resident() - before}))
"""


def test_statistics_are_those_of_the_toolkit_and_cost_no_memory(tmp_path):
    import json
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", READ_STATISTICS, str(tmp_path)],
        input=OWN["today"], capture_output=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same"]
    assert found["count"] > 20
    assert found["grown"] < 4e6
