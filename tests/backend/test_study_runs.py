"""Studies of a backend: cancelled, bounded, isolated; figures are those of SWMM's own report."""

import asyncio
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyswmm.tests.data as bundled
import pytest

from duha_backend.drainage import jobs as spreading
from duha_backend.drainage.job import START
from duha_backend.drainage.jobs import all_jobs, outcomes, run_job
from duha_backend.drainage.runs import MOST_PENDING_EACH
from duha_backend.drainage.studies import Asked, DesignStorm, Happened, Studies
from duha_backend.drainage.turns import Busy, Turns
from duha_backend.errors import Invalid
from duha_backend.rain.events import DesignRain
from duha_backend.runoff.inp import adapt, describe, own_start, parse
from duha_backend.runoff.live import SwmmModel
from duha_backend.runoff.study import Rain
from duha_sim.sewer import sewer
from tests.backend.wet_city import T0, wet_city

DATA = pathlib.Path(bundled.__file__).parent
GALLON_M3 = 3.785411784e-3
STORM = Rain("storm", np.array([0.0] * 10 + [90.0] * 30 + [10.0] * 20)[:, None])
RUN = "import sys; from swmm.toolkit import solver; solver.swmm_run(*sys.argv[1:])"
TABLE = DesignRain(
    "city", "Example", (5, 15, 60, 1440), (2, 5, 10),
    ((6, 8.5, 10.2), (10.1, 14.6, 17.5), (14.8, 21.6, 26), (33, 45, 53)), "example, no city's",
)  # fmt: skip


def report_of(raw, rain, folder):
    """The report of SWMM alone about a model that has a rain as its own series."""
    inp = parse(raw)
    course = np.repeat(rain.mm_h, len(describe(inp).gauges), axis=1)
    made, _ = adapt(inp, own_start(inp, START), course)
    made.sections["REPORT"] = ["NODES ALL"]
    names = [str(folder / f"m.{end}") for end in ("inp", "rpt", "out")]
    (folder / "m.inp").write_text(made.text())
    subprocess.run([sys.executable, "-c", RUN, *names], check=True, timeout=60)
    return (folder / "m.rpt").read_text()


def table_of(report, title):
    """Rows of a summary: a name, then numbers."""
    part = report.partition(title)[2].partition("*****\n")[2]
    rows = {}
    for line in part.splitlines():
        if "*****" in line:
            break
        cells = line.split()
        if len(cells) > 3 and re.fullmatch(r"-?[\d.]+", cells[-1]):
            rows[cells[0]] = cells[1:]
    return rows


@pytest.mark.parametrize("name", ["model_weir_setting", "model_rain", "today", "steep"])
def test_extremes_are_those_of_swmms_own_report(name, tmp_path):
    """The weirs of the first one swing within seconds: samples see half of it."""
    raw = {
        "today": sewer(12, ("A",), hectares=3).encode(),
        "steep": sewer(30, ("A",), routing_s=1, hectares=5).encode(),
    }.get(name) or (DATA / f"{name}.inp").read_bytes()
    (job,) = all_jobs([(name, raw)], [STORM], 3)
    found = run_job(job)
    assert found.problem == ""
    whole = Rain("all", np.concatenate((STORM.mm_h, np.zeros((180, 1)))))
    report = report_of(raw, whole, tmp_path)
    model = describe(parse(raw))
    feet = 0.3048 if model.american else 1.0
    flow = {"CFS": 28.316846592, "CMS": 1000.0, "LPS": 1.0}[model.flow_units]
    million = GALLON_M3 * 1e6 if model.american else 1e3
    depths = table_of(report, "Node Depth Summary")
    assert len(depths) == len(found.depths)
    for node, row in depths.items():
        assert found.depths[node] == pytest.approx(float(row[2]) * feet, abs=0.006)
    flooded = table_of(report, "Node Flooding Summary")
    assert found.flooded_nodes == len(flooded)
    spilled = sum(float(row[4]) for row in flooded.values()) * million
    rounding = len(flooded) * 0.0005 * million + 1e-6
    assert found.flooding_m3 == pytest.approx(spilled, rel=2e-4, abs=rounding)
    system = table_of(report, "Outfall Loading Summary")["System"]
    assert found.outflow_peak_l_s == pytest.approx(float(system[2]) * flow, rel=2e-3)
    # SWMM's own factor between cubic feet and metres is 0.02832: a ten-thousandth off.
    volume = float(system[3]) * million
    assert found.outflow_m3 == pytest.approx(volume, rel=2e-4, abs=0.001 * million)


def test_adjustments_of_rain_count_in_a_study():
    raw = sewer(3, ("A",)).encode()
    more = raw + b"\n[ADJUSTMENTS]\nRAINFALL 1 1 1 1 1 1 1.5 1 1 1 1 1\n"
    before, after = (run_job(all_jobs([("m", r)], [STORM], 1)[0]) for r in (raw, more))
    assert after.problem == ""
    # SWMM itself reads the first wet minute before it knows its month.
    assert after.rain_mm == pytest.approx(1.5 * before.rain_mm, rel=0.02)


# -- isolation -----------------------------------------------------------------------------


def workers_of(parent):
    """Pids of model processes of a process."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            ppid = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if (
                ppid == parent
                and b"drainage.worker" in (entry / "cmdline").read_bytes()
            ):
                found.append(int(entry.name))
    return found


async def workers(count=1):
    async with asyncio.timeout(20):
        while len(found := workers_of(os.getpid())) < count:
            await asyncio.sleep(0.05)
    return found


async def all_of(spread):
    return {number: outcome async for number, outcome in spread}


LONG = sewer(300, ("A",), routing_s=1).encode()
SHORT = sewer(3, ("A",)).encode()


async def test_a_job_whose_process_is_killed_takes_no_other_with_it():
    jobs = all_jobs([("long", LONG), ("short", SHORT)], [STORM], 200)
    listening = asyncio.create_task(all_of(outcomes(jobs, workers=1)))
    (pid,) = await workers()
    await asyncio.sleep(1)
    os.kill(pid, signal.SIGKILL)
    found = await asyncio.wait_for(listening, 60)
    assert "has died" in found[0].problem
    assert found[1].problem == ""
    assert workers_of(os.getpid()) == []


async def test_a_job_whose_process_hangs_is_ended_and_the_others_go_on():
    jobs = all_jobs([("long", LONG), ("short", SHORT)], [STORM], 200)
    listening = asyncio.create_task(all_of(outcomes(jobs, workers=1, limit_s=6)))
    (pid,) = await workers()
    await asyncio.sleep(2)  # it has begun
    os.kill(pid, signal.SIGSTOP)
    found = await asyncio.wait_for(listening, 60)
    assert "has not answered within" in found[0].problem
    assert found[1].problem == ""


async def test_whoever_stops_listening_ends_the_processes_at_once():
    spread = outcomes(all_jobs([("a", LONG), ("b", LONG)], [STORM], 200), workers=2)
    listening = asyncio.create_task(anext(spread))
    await workers(2)
    began = time.monotonic()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await spread.aclose()
    assert workers_of(os.getpid()) == []
    assert time.monotonic() - began < 5


async def test_outcomes_of_studies_do_not_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(spreading, "MOST_KEPT", 1)
    jobs = all_jobs([("a", SHORT)], [STORM, Rain("less", STORM.mm_h / 2)], 0)
    assert [n async for n, _ in outcomes(jobs, tmp_path, workers=1)] == [0, 1]
    assert len(list(tmp_path.glob("*.json"))) == 1


# -- studies of a backend --------------------------------------------------------------------


@pytest.fixture
async def city(tmp_path):
    async with wet_city(tmp_path) as made:
        made.registry.save(TABLE)
        made.registry.save(SwmmModel("long", "Long", LONG, running=False))
        made.registry.save(SwmmModel("short", "Short", SHORT, running=False))
        yield made


def studies_of(city):
    return Studies(
        city.runs, city.registry, city.readings, city.folder / "studies", lambda: T0
    )


def asked(model, tail_h=200.0):
    return {"name": "x", "models": [model], "design": [{"table": "city"}], "tail_h": tail_h}  # fmt: skip


async def test_a_study_is_cancelled_while_it_is_carried_out_and_the_next_one_begins(
    city,
):
    first = city.runs.ask("long", T0, asked("long"), "eva")
    second = city.runs.ask("short", T0 + 1, asked("short", 0), "eva")
    studies = studies_of(city)
    tending = asyncio.create_task(studies.tend())
    await workers()
    assert city.runs.update(first, "pending", state="cancelled", detail="by eva")
    await asyncio.wait_for(tending, 10)
    assert workers_of(os.getpid()) == []
    assert city.runs.find(first).state == "cancelled"
    assert city.runs.find(first).detail == "by eva", "nothing was written over it"
    await studies.tend()
    assert city.runs.find(second).state == "complete"
    assert not city.runs.update(second, "pending", state="cancelled")


async def test_a_study_that_is_interrupted_by_the_end_of_its_process_goes_on(city):
    run = city.runs.ask("long", T0, asked("long"), "eva")
    tending = asyncio.create_task(studies_of(city).tend())
    await workers()
    began = time.monotonic()
    tending.cancel()
    await asyncio.gather(tending, return_exceptions=True)
    assert time.monotonic() - began < 5
    assert workers_of(os.getpid()) == []
    assert city.runs.find(run).state == "pending"


async def test_studies_that_wait_have_a_quota_for_each_and_for_all(city):
    for _ in range(MOST_PENDING_EACH):
        city.runs.ask("short", T0, asked("short"), "eva")
    with pytest.raises(Busy, match="4 of them yours"):
        city.runs.ask("short", T0, asked("short"), "eva")
    assert city.runs.ask("short", T0, asked("short"), "jan")
    for number in range(3):
        for _ in range(MOST_PENDING_EACH):
            city.runs.ask("short", T0, asked("short"), f"user{number}")
    for number in range(20 - 17):
        city.runs.ask("short", T0, asked("short"), f"more{number}")
    with pytest.raises(Busy, match="20 studies wait, 0 of them yours"):
        city.runs.ask("short", T0, asked("short"), "another")


async def test_studies_that_are_over_are_forgotten_some_day(city, monkeypatch):
    monkeypatch.setitem(
        __import__("duha_backend.drainage.runs", fromlist=["KEPT"]).KEPT, "study", 3
    )
    for number in range(6):
        run = city.runs.begin("study", f"other {number}", 0, 0, T0 + number)
        city.runs.update(run, state="cancelled")
    assert len(city.runs.page("study")) == 3


async def test_runs_of_models_that_are_gone_are_forgotten_some_day(city, monkeypatch):
    monkeypatch.setattr("duha_backend.drainage.runs.MOST_RUNS", 10)
    for number in range(30):
        run = city.runs.begin("forecast", f"model {number}", 0, 0, T0 + number)
        city.runs.update(run, state="complete")
    assert len(city.runs.page("forecast", limit=100)) <= 11


def test_the_size_of_a_study_is_known_before_it_is_asked_for():
    storms = tuple(DesignStorm("city") for _ in range(26))
    with pytest.raises(Invalid, match="500 runs at most"):
        Asked("x", ("a", "b"), storms, (), (0.5,) * 10).check()
    Asked("x", ("a", "b"), storms[:25], (), (0.5,) * 10).check()
    with pytest.raises(Invalid, match="members"):
        Asked("x", ("a",), storms, (), (float("nan"),)).check()
    with pytest.raises(Invalid, match="7 days"):
        Asked("x", ("a",), (), (Happened(0, 2**62),)).check()


async def test_a_study_with_too_many_values_is_refused(city, monkeypatch):
    monkeypatch.setattr("duha_backend.drainage.studies.MOST_VALUES", 1000)
    run = city.runs.ask("short", T0, asked("short", 80), "eva")
    await studies_of(city).tend()
    assert city.runs.find(run).state == "failed"
    assert "too many" in city.runs.find(run).detail


# -- turns ----------------------------------------------------------------------------------


async def test_a_few_work_at_once_some_wait_and_more_are_refused():
    turns, working, most = Turns(2, waiting=3), 0, 0

    async def work():
        nonlocal working, most
        async with turns.turn():
            working += 1
            most = max(most, working)
            await asyncio.sleep(0.02)
            working -= 1

    done = await asyncio.gather(*(work() for _ in range(40)), return_exceptions=True)
    assert most == 2
    assert sum(isinstance(one, Busy) for one in done) == 35
    await work()
