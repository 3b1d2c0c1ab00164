"""``duha backend compare | calibrate | model``: studies without a backend, models in one."""

import argparse
import csv
import datetime as dt
import json
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from duha_backend.errors import Invalid
from duha_backend.validate import Array

CSV_HELP = "CSV of minutes: time, then a column of mm/h for each gage (or one for all)"


def add_commands(commands: Any, connected: Callable[[Any], None]) -> None:
    """Add them; `connected` adds the options of a command that asks a backend."""
    compare = commands.add_parser(
        "compare", help="the same rain over several SWMM models: table, plots, PDF"
    )
    compare.add_argument("models", nargs="+", metavar="NAME=FILE.inp")
    compare.add_argument(
        "--design", action="append", default=[], metavar="TABLE.csv:PERIOD:MINUTES",
        help="a storm of a table of design rain; again for more",
    )  # fmt: skip
    compare.add_argument(
        "--rain", action="append", default=[], type=Path, help=CSV_HELP
    )
    compare.add_argument(
        "--members", default="1", help="factors of an ensemble, as 0.8,1,1.2"
    )
    compare.add_argument(
        "--tail-h", type=float, default=80.0, help="after the rain [h]"
    )
    compare.add_argument("--out", type=Path, default=Path("comparison"))
    compare.add_argument("--title", default="")
    compare.add_argument("--language", choices=("cs", "en"), default="cs")
    compare.add_argument("--workers", type=int, default=None, help="processes here")
    compare.add_argument("--scheduler", default="", metavar="ADDRESS", help="dask")
    calibrate = commands.add_parser(
        "calibrate", help="fit a SWMM model to what was measured"
    )
    calibrate.add_argument("model", type=Path)
    calibrate.add_argument("--rain", type=Path, required=True, help=CSV_HELP)
    calibrate.add_argument(
        "--measured", type=Path, required=True,
        help="CSV: time, value; every five minutes from the start of the rain",
    )  # fmt: skip
    calibrate.add_argument("--part", choices=("node", "link"), default="node")
    calibrate.add_argument("--object", required=True, help="node or link")
    calibrate.add_argument("--what", default="inflow_l_s")
    calibrate.add_argument(
        "--parameters", default="imperviousness,width,roughness",
        help="of imperviousness, width, roughness, infiltration, pipes",
    )  # fmt: skip
    calibrate.add_argument("--runs", type=int, default=300)
    calibrate.add_argument("--out", type=Path, default=None, help="the fitted model")
    model = commands.add_parser("model", help="SWMM models of a running backend")
    does = model.add_subparsers(dest="does", required=True)
    add = does.add_parser("add", help="validate a model and run it live")
    add.add_argument("file", type=Path)
    add.add_argument("--id", default="", help="the file's name when left out")
    add.add_argument("--name", default="")
    add.add_argument(
        "--gauge", action="append", default=[], metavar="GAGE=GAUGE",
        help="which of the city's gauges feeds a gage of the model",
    )  # fmt: skip
    add.add_argument("--place", default="", metavar="LAT,LON", help="its centre")
    add.add_argument("--replay-days", type=int, default=7)
    add.add_argument("--dry-run", action="store_true", help="only validate")
    listed = does.add_parser("list", help="how models are running")
    remove = does.add_parser("remove", help="take a model away")
    remove.add_argument("id")
    rain = commands.add_parser("rain", help="rain of a running backend")
    wants = rain.add_subparsers(dest="does", required=True)
    sums = wants.add_parser("sums", help="sums of 5 minutes to 24 hours, and how rare")
    export = wants.add_parser("export", help="PI-JSON (.json) or a SWMM file (.dat)")
    export.add_argument("file", type=Path)
    for name in ("since", "until"):
        export.add_argument(f"--{name}", default="", help="as 2026-11-24T18:00Z")
    take = wants.add_parser("import", help="take PI-JSON, CSV or a SWMM file of gauges")
    take.add_argument("file", type=Path)
    again = wants.add_parser("again", help="judge rain again since a time")
    again.add_argument("since", help="as 2026-11-01T00:00Z")
    design = wants.add_parser("design", help="take a table of design rain from CSV")
    design.add_argument(
        "file", type=Path, help="duration_min,2,5,10; rows of depths [mm]"
    )
    design.add_argument("--id", default="city")
    design.add_argument("--source", required=True, help="institute, station, years")
    for parser in (add, listed, remove, sums, export, take, again, design):
        connected(parser)


# -- compare -----------------------------------------------------------------------------


def compare(options: argparse.Namespace) -> int:
    """Compare models under rains, and write the table, the outcomes and a PDF."""
    from duha_backend.drainage.jobs import all_jobs, run_jobs
    from duha_backend.drainage.paper import comparison
    from duha_backend.drainage.studies import members_of
    from duha_backend.runoff.study import check_models

    models = dict(_named(text) for text in options.models)
    check_models(models)
    rains = [_design(text) for text in options.design]
    rains += [_rain(path) for path in options.rain]
    if not rains:
        raise Invalid(
            "say under which rain: --design TABLE.csv:5:60 or --rain FILE.csv"
        )
    rains = members_of(rains, _numbers(options.members))
    jobs = all_jobs(models.items(), rains, options.tail_h)
    out = options.out
    outcomes = run_jobs(
        jobs, out / "runs", options.workers, options.scheduler, _progress
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "outcomes.json").write_bytes(msgspec.json.encode(outcomes))
    _write_table(out / "comparison.csv", outcomes)
    title = options.title or ", ".join(models)
    (out / "comparison.pdf").write_bytes(comparison(title, outcomes, options.language))
    for name in ("comparison.csv", "comparison.pdf", "outcomes.json"):
        print(out / name)
    return 1 if any(outcome.problem for outcome in outcomes) else 0


def _progress(done: int, of: int, last: Any) -> None:
    said = (
        last.problem
        or f"overflow {last.overflow_m3:.0f} m³, kept {100 * last.kept_share:.0f} %"
    )
    print(f"{done} of {of}: {last.model} under {last.rain}: {said}", flush=True)


def _write_table(path: Path, outcomes: Any) -> None:
    from duha_backend.runoff.study import compared

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for rain in dict.fromkeys(outcome.rain for outcome in outcomes):
            mine = [o.model for o in outcomes if o.rain == rain]
            writer.writerow(["rain", "measure", "unit", *mine, "limit"])
            for line in compared(outcomes, rain):
                values = [None if v is None else round(v, 3) for v in line.values]
                writer.writerow([rain, line.name, line.unit, *values, line.limit])


def _named(text: str) -> tuple[str, bytes]:
    name, _, file = text.rpartition("=")
    path = Path(file)
    return name or path.stem, path.read_bytes()


def _design(text: str) -> Any:
    from duha_backend.rain.events import Idf
    from duha_backend.runoff.study import Rain
    from duha_backend.runoff.watch import design_storm

    file, _, rest = text.partition(".csv:")
    period, _, minutes = rest.partition(":")
    try:
        a, length = float(period), int(minutes or 60)
    except ValueError:
        raise Invalid(
            f"{text!r} is not TABLE.csv:PERIOD:MINUTES, as rain.csv:5:60"
        ) from None
    with Path(f"{file}.csv").open(encoding="utf-8") as lines:
        table = Idf.read(lines)
    name = f"{Path(file).name}: {a:g} a, {length} min"
    return Rain(name, design_storm(table, a, length)[:, None])


def _rain(path: Path) -> Any:
    from duha_backend.runoff.study import Rain

    times, values = _columns(path)
    steps = np.diff(times)
    if len(steps) and not (steps == 60).all():
        raise Invalid(f"{path}: rain has a row for every minute")
    if (values < 0).any() or (values > 400).any() or np.isnan(values).any():
        raise Invalid(f"{path}: rain is 0 to 400 mm/h, without gaps")
    return Rain(path.stem, values)


def _columns(path: Path) -> tuple[Array, Array]:
    """Times [s] and columns of numbers of a CSV file with a header."""
    times, values = [], []
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        for number, row in enumerate(rows, 2):
            try:
                times.append(dt.datetime.fromisoformat(row[0]).timestamp())
                values.append([float(text) for text in row[1:]])
            except (ValueError, IndexError):
                raise Invalid(f"{path}, row {number}: a time, then numbers") from None
    if not values or len({len(row) for row in values}) != 1 or not values[0]:
        raise Invalid(f"{path}: rows have a time and the same number of values")
    return np.array(times), np.array(values)


def _numbers(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise Invalid(f"{text!r} are no factors, as 0.8,1,1.2") from None
    if any(not 0 < factor <= 5 for factor in found):
        raise Invalid("factors are over 0, and 5 at most")
    return found


# -- calibrate ---------------------------------------------------------------------------


def calibrate(options: argparse.Namespace) -> int:
    """Fit a model, say how well, and write it."""
    from duha_backend.drainage.calibrate import USUAL_BOUNDS, Measured
    from duha_backend.drainage.calibrate import calibrate as fit
    from duha_backend.runoff.inp import parse
    from duha_backend.runoff.study import scaled

    _, values = _columns(options.measured)
    raw = options.model.read_bytes()
    event = Measured(
        options.part, options.object, options.what, values[:, 0], _rain(options.rain)
    )
    names = options.parameters.split(",")
    bounds = {name: USUAL_BOUNDS.get(name, (0.5, 2.0)) for name in names}

    def progress(runs: int, best: float) -> None:
        if runs % 20 == 0:
            print(f"{runs} runs, NSE {best:.3f}", flush=True)

    found = fit(raw, [event], bounds, most_runs=options.runs, progress=progress)
    for name, factor in found.factors.items():
        print(f"{name} × {factor}")
    for title, scored in (("before", found.before[0]), ("after", found.after[0])):
        print(f"{title}: {json.dumps(scored._asdict())}")
    out = options.out or options.model.with_suffix(".fitted.inp")
    out.write_text(scaled(parse(raw), found.factors).text(), "utf-8")
    print(out)
    return 0


# -- models of a backend -----------------------------------------------------------------


def model(options: argparse.Namespace) -> int:
    """Models of a running backend."""
    return _MODEL[options.does](options)


def _add(options: argparse.Namespace) -> int:
    from duha_backend.asking import ask

    latitude, _, longitude = options.place.partition(",")
    gauges = dict(text.partition("=")[::2] for text in options.gauge)
    body = {
        "name": options.name or options.file.stem,
        "inp": options.file.read_bytes().decode("utf-8", "replace"),
        "gauges": {gage: {"gauge": gauge} for gage, gauge in gauges.items()},
        "latitude": float(latitude) if latitude else None,
        "longitude": float(longitude) if longitude else None,
        "replay_days": options.replay_days,
    }
    name = urllib.parse.quote(options.id or options.file.stem)
    dry = "?dry_run=true" if options.dry_run else ""
    found = ask(options, "PUT", f"/models/{name}{dry}", body)
    for change in found["changes"]:
        print(f"  {change}")
    print(
        f"{name}: {found['subcatchments']} subcatchments, {found['nodes']} nodes,"
        f" {found['links']} links, {found['area_ha']:g} ha;"
        f" {'nothing taken' if options.dry_run else 'it runs now'}"
    )
    return 0


def _list(options: argparse.Namespace) -> int:
    from duha_backend.asking import ask

    for one in ask(options, "GET", "/models"):
        run = one["run"]
        state = f"{run['state']}, up to {run['t0']}" if run else "not begun"
        print(f"{one['id']}: {one['name']}: {state}")
        for watch in one["watches"]:
            value = watch.get("value")
            shown = "–" if value is None else f"{value:.2f}"
            ahead = ", ".join(
                f"SPA {'I' * a['stage']} in {a['minutes']:.0f} min ({a['member']})"
                for a in watch.get("ahead", [])
            )
            unit = "m" if watch["what"] == "depth_m" else "L/s"
            print(f"  {watch['name']}: {shown} {unit}; {ahead or 'nothing ahead'}")
        if run and run["detail"]:
            print(f"  {run['detail']}", file=sys.stderr)
    return 0


def _remove(options: argparse.Namespace) -> int:
    from duha_backend.asking import ask

    ask(options, "DELETE", f"/models/{urllib.parse.quote(options.id)}")
    print(f"{options.id}: taken away")
    return 0


# -- rain of a backend --------------------------------------------------------------------


def rain(options: argparse.Namespace) -> int:
    """Rain of a running backend."""
    return _RAIN[options.does](options)


def _sums(options: argparse.Namespace) -> int:
    from duha_backend.asking import ask

    found = ask(options, "GET", "/rain/sums")
    minutes = [one["duration_min"] for one in found["gauges"][0]["sums"]]
    print(f"until {found['until']}, sums of so many minutes [mm], return period [a]")
    print(f"{'gauge':12}" + "".join(f"{m:>14}" for m in minutes))
    for gauge in found["gauges"]:
        cells = [
            "–" if one["depth_mm"] is None
            else f"{one['depth_mm']:.1f}" + (f" ({one['period']})" if one["period"] else "")
            for one in gauge["sums"]
        ]  # fmt: skip
        print(f"{gauge['gauge']:12}" + "".join(f"{cell:>14}" for cell in cells))
    return 0


def _export(options: argparse.Namespace) -> int:
    from duha_backend.asking import fetch

    form = options.file.suffix.lstrip(".")
    if form not in ("json", "dat"):
        raise Invalid(f"{options.file}: ends in .json (PI-JSON) or .dat (SWMM)")
    span = {n: getattr(options, n) for n in ("since", "until") if getattr(options, n)}
    query = f"?{urllib.parse.urlencode(span)}" if span else ""
    options.file.write_bytes(fetch(options, "GET", f"/rain/export.{form}{query}"))
    print(options.file)
    return 0


def _import(options: argparse.Namespace) -> int:
    from duha_backend.asking import ask

    form = options.file.suffix.lstrip(".")
    if form not in ("json", "csv", "dat"):
        raise Invalid(f"{options.file}: ends in .json (PI-JSON), .csv or .dat (SWMM)")
    raw = options.file.read_bytes()
    found = ask(options, "POST", f"/rain/import?form={form}", raw)
    print(f"{options.file}: {found['series']} series, {found['values']} values")
    return 0


def _again(options: argparse.Namespace) -> int:
    from duha_backend.asking import ask

    found = ask(options, "POST", "/rain/again", {"since": options.since})
    print(f"rain since {found['since']} is judged again, in the background")
    return 0


def _design_rain(options: argparse.Namespace) -> int:
    from duha_backend.asking import ask
    from duha_backend.rain.events import Idf

    with options.file.open(encoding="utf-8-sig") as lines:
        table = Idf.read(lines)
    body = {
        "name": options.file.stem, "source": options.source,
        "durations_min": table.durations.tolist(), "periods_a": table.periods.tolist(),
        "depth_mm": table.depth.tolist(),
    }  # fmt: skip
    ask(options, "PUT", f"/design-rain/{urllib.parse.quote(options.id)}", body)
    print(
        f"{options.id}: {len(table.durations)} durations, {len(table.periods)} periods"
    )
    return 0


_RAIN = {
    "sums": _sums, "export": _export, "import": _import, "again": _again,
    "design": _design_rain,
}  # fmt: skip
_MODEL = {"add": _add, "list": _list, "remove": _remove}
COMMANDS = {"compare": compare, "calibrate": calibrate, "model": model, "rain": rain}
