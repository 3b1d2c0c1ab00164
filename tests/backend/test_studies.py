"""Studies: the same rain over several models, resumed, spread, on paper; calibration."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_backend.cli import main
from duha_backend.drainage import jobs as running
from duha_backend.drainage.calibrate import Measured, calibrate, modelled
from duha_backend.drainage.jobs import all_jobs, check_threads, run_job, run_jobs
from duha_backend.drainage.paper import comparison
from duha_backend.errors import Invalid
from duha_backend.rain.events import Idf
from duha_backend.runoff.inp import describe, parse
from duha_backend.runoff.scores import kge, nse, scores
from duha_backend.runoff.study import Rain, compared, emptied_h, overflows, scaled
from duha_backend.runoff.watch import Watch, design_storm, members, reached
from duha_sim.sewer import sewer

MODELS = [
    (v, sewer(10, ("A",), v).encode()) for v in ("today", "gardens", "disconnected")
]
STORM = Rain("storm", np.array([0.0] * 10 + [45.0] * 30 + [10.0] * 20)[:, None])
TABLE = Idf(
    np.array([5.0, 15, 60, 1440]), np.array([2.0, 5, 10]),
    np.array([[6, 8.5, 10.2], [10.1, 14.6, 17.5], [14.8, 21.6, 26], [33, 45, 53]]),
)  # fmt: skip
TABLE_CSV = "duration_min,2,5,10\n5,6,8.5,10.2\n15,10.1,14.6,17.5\n60,14.8,21.6,26\n1440,33,45,53\n"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return run_jobs(all_jobs(MODELS, [STORM], 30), folder, workers=2), folder


def test_rain_gardens_keep_rain_and_the_figures_add_up(outcomes):
    today, gardens, disconnected = outcomes[0]
    assert today.rain_mm == pytest.approx(45 / 2 + 10 / 3, rel=1e-9)
    assert today.kept_share < disconnected.kept_share < gardens.kept_share
    assert gardens.overflow_m3 < 0.6 * today.overflow_m3
    assert gardens.emptying_h is not None
    assert 1 < (gardens.emptying_h or 0) < 30
    assert gardens.lids == 10
    assert today.emptying_h is None
    assert today.overflows == ("RIVER",)
    water = today.rain_m3 * (1 - today.kept_share) + 10 * 0.3 * 31 * 3.6
    assert today.outflow_m3 == pytest.approx(water, rel=0.02)
    for one in outcomes[0]:
        flow = np.sum(list(one.outfalls.values()), axis=0)
        assert one.outflow_m3 == pytest.approx(flow.sum() * 0.3, rel=1e-3)
        assert one.specific_l_s_ha == pytest.approx(one.outflow_peak_l_s / 10)


def test_a_study_that_was_interrupted_goes_on(outcomes, monkeypatch):
    found, folder = outcomes
    said = []

    def nobody(job):
        raise AssertionError(f"{job.model} is known already")

    monkeypatch.setattr(running, "run_job", nobody)
    again = run_jobs(
        all_jobs(MODELS, [STORM], 30), folder, progress=lambda *a: said.append(a[:2])
    )
    assert again == found
    assert said == [(1, 3), (2, 3), (3, 3)]
    for path in sorted(folder.glob("*.json"))[:1]:
        path.write_bytes(path.read_bytes()[:50])  # half a file
    monkeypatch.undo()
    assert run_jobs(all_jobs(MODELS, [STORM], 30), folder, workers=1) == found


def test_a_model_that_breaks_down_is_an_outcome_and_the_others_go_on():
    bad = ("bad", MODELS[0][1].replace(b"K0003 CIRCULAR", b"K0003 TRIANGEL"))
    found = run_jobs(all_jobs([bad, MODELS[0]], [STORM], 1), workers=1)
    assert "TRIANGEL" in found[0].problem
    assert found[1].problem == ""
    assert comparison("x", found, "en")[:5] == b"%PDF-"


def test_the_table_has_limits_and_the_paper_both_languages(outcomes):
    lines = {line.name: line for line in compared(outcomes[0], "storm")}
    assert lines["emptying_h"].limit == 72
    assert lines["specific_l_s_ha"].limit == 3
    assert (lines["kept_share"].values[1] or 0) > 50
    for language in ("cs", "en"):
        assert comparison("Lochotín", outcomes[0], language)[:5] == b"%PDF-"


@pytest.mark.system
def test_many_machines_by_dask_with_one_thread_each(outcomes, tmp_path):
    import distributed

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
    ) as cluster:
        found = run_jobs(
            all_jobs(MODELS, [STORM], 30), scheduler=cluster.scheduler_address
        )
    assert found == outcomes[0]


def test_workers_with_more_threads_are_refused():
    with pytest.raises(Invalid, match="has 4 threads; SWMM allows one"):
        check_threads({"tcp://x": {"nthreads": 4}})
    with pytest.raises(Invalid, match="no worker"):
        check_threads({})
    check_threads({"tcp://x": {"nthreads": 1}})


def test_overflows_are_outfalls_that_only_weirs_lead_to():
    assert overflows(MODELS[0][1]) == ["RIVER"]


def test_rain_for_other_gages_is_refused():
    two = run_job(all_jobs(MODELS[:1], [Rain("two", np.zeros((10, 2)))], 1)[0])
    assert "has 2 gauges, the model has 1" in two.problem


def test_when_devices_are_empty():
    water = np.array([[5.0, 0], [50, 9], [30, 0], [5.2, 0], [5, 0]])
    assert emptied_h(water, 5) == ((3 * 5 - 5) / 60, 0)
    assert emptied_h(water[:3], 5) == (None, 1)
    assert emptied_h(np.zeros((3, 0)), 5) == (None, 0)
    assert emptied_h(np.zeros((3, 2)), 5) == (0.0, 0)


# -- calibration -----------------------------------------------------------------------


def test_a_calibration_finds_the_factors_that_were_hidden():
    raw = MODELS[0][1].replace(b"FLOW_ROUTING DYNWAVE", b"FLOW_ROUTING KINWAVE")
    truth = {"imperviousness": 0.8, "width": 0.6}
    nothing = Measured("node", "N0000", "inflow_l_s", np.zeros(24), STORM)
    seen = modelled(raw, nothing, truth)
    event = nothing._replace(values=seen)
    found = calibrate(
        raw, [event], {"imperviousness": (0.5, 1.5), "width": (0.3, 2.0)}, most_runs=100
    )
    assert found.factors["imperviousness"] == pytest.approx(0.8, abs=0.05)
    assert (found.before[0].nse or 0) < 0.95
    assert (found.after[0].nse or 0) > 0.99
    assert abs(found.after[0].volume_pct or 0) < 3
    assert found.runs <= 160


def test_factors_change_what_they_name_and_nothing_else():
    inp = parse(MODELS[0][1])
    made = scaled(inp, {"imperviousness": 2.0, "pipes": 1.5})
    assert {row[4] for row in made.rows("SUBCATCHMENTS")} == {"100"}
    assert {row[4] for row in made.rows("CONDUITS")} == {"0.0195"}
    assert made.sections["XSECTIONS"] == inp.sections["XSECTIONS"]
    assert describe(made) == describe(inp)
    with pytest.raises(Invalid, match="nothing named 'luck'"):
        scaled(inp, {"luck": 1.0})


def test_scores_are_those_of_the_books():
    """Derived by hand: o = 1 2 3 4, m = 1 2 3 5."""
    seen, told = np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 3, 5])
    found = scores(seen, told)
    assert found.nse == pytest.approx(1 - 1 / 5)
    r = 6.5 / np.sqrt(5 * 8.75)
    alpha, beta = np.sqrt(8.75 / 5), 2.75 / 2.5
    assert found.kge == pytest.approx(
        1 - np.sqrt((r - 1) ** 2 + (alpha - 1) ** 2 + (beta - 1) ** 2)
    )
    modified = 1 - np.sqrt((r - 1) ** 2 + (alpha / beta - 1) ** 2 + (beta - 1) ** 2)
    assert found.kge_2012 == pytest.approx(modified)
    assert found.volume_pct == pytest.approx(10.0)
    assert found.peak_pct == pytest.approx(25.0)
    assert found.peak_late_steps == 0
    flat = scores(np.zeros(5), np.ones(5))
    assert (flat.nse, flat.kge, flat.volume_pct) == (None, None, None)
    assert scores(np.array([np.nan]), np.array([1.0])).n == 0


@given(st.lists(st.floats(0, 1e3), min_size=3, max_size=50))
def test_a_model_that_gives_what_was_measured_is_perfect(values):
    seen = np.array(values)
    if seen.std() > 1e-6 and seen.mean() > 1e-6:
        assert nse(seen, seen) == 1
        assert kge(seen, seen) == pytest.approx(1)


# -- rains that may come ------------------------------------------------------------------


def test_a_design_storm_has_the_depths_of_the_table():
    course = design_storm(TABLE, 5, 60)
    assert len(course) == 60
    assert course.sum() / 60 == pytest.approx(21.6)
    for minutes in (5, 15):
        sums = np.convolve(course, np.ones(minutes), "valid") / 60
        assert sums.max() == pytest.approx(TABLE.depth_of(minutes, 5), rel=0.01)
    assert int(course.argmax()) == 15, "the greatest block ends at a third"


def test_a_storm_is_even_within_the_shortest_duration_of_the_table():
    coarse = Idf(np.array([15, 60]), np.array([5]), np.array([[12.0], [20.0]]))
    course = design_storm(coarse, 5, 60)
    assert course.max() == pytest.approx(48.0)
    assert course.sum() / 60 == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("period", "minutes", "named"),
    [(100, 60, "return periods .* not 100"), (1, 60, "not 1"), (5, 2880, "durations")],
)
def test_a_storm_beyond_the_table_is_refused(period, minutes, named):
    with pytest.raises(Invalid, match=named):
        design_storm(TABLE, period, minutes)


def test_members_of_a_forecast():
    last = np.full((60, 2), 12.0)
    last[:30] = 0
    found = members(last, 180, (TABLE, 5.0))
    assert found["dry"].sum() == 0
    assert found["persistence"][:60].min() == 12.0
    assert found["persistence"][119].max() < 0.5
    assert (found["more"] == 1.5 * found["persistence"]).all()
    assert found["design"][:60].sum(axis=0) / 60 == pytest.approx([21.6, 21.6])
    assert "design" not in members(last, 180)


def test_a_stage_is_reached_by_whoever_reaches_it_first():
    watch = Watch("w", "w", "m", "node", "N", "depth_m", (0.5, 1.0, 2.0))
    courses = {"a": np.array([0.1, 0.6, 0.7]), "b": np.array([0.1, 0.2, 1.1])}
    assert [tuple(r) for r in reached(watch, courses, 5)] == [
        (1, 10.0, "a"),
        (2, 15.0, "b"),
    ]
    assert (watch.stage(0.4), watch.stage(0.5), watch.stage(9)) == (0, 1, 3)


@pytest.mark.parametrize(
    "bad",
    [{"stages": ()}, {"stages": (2.0, 1.0)}, {"stages": (-1.0,)}, {"what": "flow_l_s"}],
)
def test_a_watch_that_cannot_be_is_refused(bad):
    fields = {"part": "node", "object": "N", "what": "depth_m", "stages": (1.0,)} | bad
    with pytest.raises(Invalid):
        Watch("w", "w", "m", **fields).check()


# -- the command line ---------------------------------------------------------------------


@pytest.mark.system
def test_two_scenarios_are_compared_on_the_command_line(tmp_path, capsys):
    for name, raw in MODELS[:2]:
        (tmp_path / f"{name}.inp").write_bytes(raw)
    (tmp_path / "rain.csv").write_text(TABLE_CSV)
    arguments = [
        "compare", f"Today={tmp_path}/today.inp", f"Gardens={tmp_path}/gardens.inp",
        "--design", f"{tmp_path}/rain.csv:5:60", "--members", "1,1.2", "--tail-h", "2",
        "--out", str(tmp_path / "out"), "--workers", "2",
    ]  # fmt: skip
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "4 of 4" in said
    table = (tmp_path / "out" / "comparison.csv").read_text()
    assert "rain,measure,unit,Today,Gardens,limit" in table
    assert "5 a, 60 min × 1.2" in table
    assert (tmp_path / "out" / "comparison.pdf").read_bytes()[:5] == b"%PDF-"
    assert main(arguments) == 0, "known already"
    assert main(["compare", str(tmp_path / "today.inp")]) == 2
    assert "under which rain" in capsys.readouterr().err


@pytest.mark.system
def test_a_model_is_fitted_on_the_command_line(tmp_path, capsys):
    raw = MODELS[0][1].replace(b"FLOW_ROUTING DYNWAVE", b"FLOW_ROUTING KINWAVE")
    (tmp_path / "m.inp").write_bytes(raw)
    lines = [f"2026-07-01T00:{m:02d},{v[0]}" for m, v in enumerate(STORM.mm_h)]
    (tmp_path / "rain.csv").write_text("time,mm_h\n" + "\n".join(lines) + "\n")
    nothing = Measured("node", "N0000", "inflow_l_s", np.zeros(20), STORM)
    seen = modelled(raw, nothing, {"imperviousness": 0.7})
    rows = [
        f"2026-07-01T{(n + 1) * 5 // 60:02d}:{(n + 1) * 5 % 60:02d},{v}"
        for n, v in enumerate(seen)
    ]
    (tmp_path / "flow.csv").write_text("time,l_s\n" + "\n".join(rows) + "\n")
    status = main([
        "calibrate", str(tmp_path / "m.inp"), "--rain", str(tmp_path / "rain.csv"),
        "--measured", str(tmp_path / "flow.csv"), "--object", "N0000",
        "--parameters", "imperviousness", "--runs", "40",
    ])  # fmt: skip
    said = capsys.readouterr().out
    assert status == 0
    assert "imperviousness × 0.7" in said or "imperviousness × 0.6" in said
    assert describe(parse((tmp_path / "m.fitted.inp").read_bytes()))


@pytest.mark.system
def test_a_killed_study_leaves_no_process_behind(tmp_path):
    """Its processes end with it, in the midst of a run."""
    import os
    import time

    (tmp_path / "m.inp").write_bytes(sewer(300, ("A",), routing_s=1).encode())
    (tmp_path / "rain.csv").write_text(TABLE_CSV)
    started = subprocess.Popen(
        [sys.executable, "-c", "import sys; from duha_backend.cli import main; main(sys.argv[1:])",
         "compare", str(tmp_path / "m.inp"), "--design", f"{tmp_path}/rain.csv:5:60", "--workers", "1",
         "--out", str(tmp_path / "out"), "--tail-h", "200"],
        stdout=subprocess.DEVNULL, start_new_session=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip

    def mine():
        found = []
        for entry in os.listdir("/proc"):
            try:
                with open(f"/proc/{entry}/environ") as file:
                    if entry.isdigit() and f"TMPDIR={tmp_path}" in file.read():
                        found.append(int(entry))
            except OSError:
                continue
        return [pid for pid in found if "drainage.worker" in _command(pid)]

    deadline = time.monotonic() + 20
    while not mine():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1.5)
    started.kill()
    started.wait()
    deadline = time.monotonic() + 20
    while mine():
        assert time.monotonic() < deadline, "a process of the study lives on"
        time.sleep(0.2)
    assert not list(tmp_path.glob("duha-model-*")), "nor is any of its files left"


def _command(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""
