"""Results of a live model: as they are stored, shown, and kept of a forecast. Pure."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from duha_backend.drainage.process import Names, Row
from duha_backend.lighting.inventory import Asset
from duha_backend.rain.areal import Field
from duha_backend.rain.series import FIVE, MINUTE_MS
from duha_backend.readings import Frame, length
from duha_backend.runoff.live import SwmmModel, device
from duha_backend.runoff.watch import Reached, Watch, band
from duha_backend.validate import Array


@dataclass
class Standing:
    """How a model is, for whoever asks: times [ms], levels of what is watched.

    Attributes
    ----------
    problem, forecast_problem : str
        Why it does not run, or does not look ahead; empty when it does.
    warm, wet : bool
        Whether it has been replayed up to where rain is known, and rains now.
    stages : dict
        Of each watch: value now, stage now, and what is reached in which forecast.
    """

    t: int = 0
    start: int = 0
    problem: str = ""
    forecast_problem: str = ""
    warm: bool = False
    wet: bool = False
    missing: int = 0
    run: str = ""
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Course:
    """What the runner holds of a model that is open.

    `stored`: rain [mm] of each time whose results are in the store already, as long as the
    replay has had the same. `ahead`: what the newest forecast has said of each watch, and
    whether it is likely.
    """

    names: Names
    field: Field
    nodes: list[int]
    links: list[int]
    rain: Array
    outfalls: frozenset[str] = frozenset()
    stored: dict[int, float] = dataclasses.field(default_factory=dict)
    before: tuple[float, float] = (0.0, 0.0)
    gauges: Sequence[Asset] = ()
    forecast_at: int = 0
    ahead: dict[str, list[tuple[Reached, bool]]] = dataclasses.field(
        default_factory=dict
    )
    last: Row | None = None


def look_ahead(watch: Watch, course: Course, standing: Standing) -> None:
    """What the newest forecast says of a watch, counted from now, beyond its stage now."""
    now = standing.stages.get(watch.id)
    if now is None or watch.id not in course.ahead:
        return
    passed = (standing.t - course.forecast_at) / MINUTE_MS
    for name, wanted in (("ahead", False), ("likely", True)):
        now[name] = [
            {**one._asdict(), "minutes": one.minutes - passed}
            for one, likely in course.ahead[watch.id]
            if likely is wanted and one.stage > now["stage"] and one.minutes > passed
        ]


def totals(row: Row) -> tuple[float, float]:
    """Rain that has fallen so far, and what of it ran off [mm]."""
    return row.injected_mm, row.runoff_mm


def has(watch: Watch, names: Names) -> bool:
    """Whether a model has the object that is watched."""
    return watch.object in (names.nodes if watch.part == "node" else names.links)


def now_at(watch: Watch, course: Course) -> dict[str, Any]:
    """What a watch has come to in the last five minutes, and its stage."""
    assert course.last is not None  # noqa: S101 - asked only when there is one
    names, table = (
        (course.names.nodes, course.last.peaks)
        if watch.part == "node"
        else (course.names.links, course.last.link_peaks)
    )
    value = float(table[watch.row, names.index(watch.object)])
    return {"value": value, "stage": watch.stage(value)}


def told_of(
    found: Mapping[str, dict[str, Any]], watches: Sequence[Watch], names: Names,
    nodes: list[int], links: list[int],
) -> tuple[dict[str, Any], dict[str, dict[str, Array]]]:  # fmt: skip
    """A forecast as it is kept; and the course of each watch in each member."""
    courses: dict[str, dict[str, Array]] = {}
    for watch in watches:
        rows, all_names = (
            (nodes, names.nodes) if watch.part == "node" else (links, names.links)
        )
        at = rows.index(all_names.index(watch.object))
        courses[watch.id] = {
            name: np.array([row[watch.row][at] for row in one[f"{watch.part}s"]])
            for name, one in found.items()
            if not one["problem"]
        }
    told = {
        "every_min": FIVE,
        "members": sorted(found),
        "watches": {
            name: {
                "courses": {member: c.tolist() for member, c in each.items()},
                "band": band(list(each.values())),
            }
            for name, each in courses.items()
        },
        "flooding_l_s": {name: one["flooding"] for name, one in found.items()},
    }
    return told, courses


def snapshot_of(course: Course, standing: Standing) -> dict[str, Any]:
    """All of a model now, for the map and the page."""
    last = course.last
    if last is None:
        return {}
    return {
        "t": standing.t,
        "changes": course.names.changes,
        "gauges": course.names.gauges,
        "area_ha": course.names.area_ha,
        "nodes": dict(
            zip(course.names.nodes, last.nodes.T.round(4).tolist(), strict=True)
        ),
        "links": dict(
            zip(course.names.links, last.links.T.round(4).tolist(), strict=True)
        ),
        "stages": standing.stages,
        "missing_min": standing.missing,
        "wet": standing.wet,
        "injected_mm": last.injected_mm,
        "stored_m3": last.stored_m3,
    }


def frames_of(
    model: SwmmModel,
    course: Course,
    rows: list[Row],
    times: list[int],
    before: tuple[float, float],
) -> dict[str, Frame]:
    """Results as they are stored, by kind."""
    names, nodes, links = course.names, course.nodes, course.links
    node = np.array([row.nodes[:, nodes] for row in rows])
    link = np.array([row.links[:, links] for row in rows])
    full = np.array(names.full_m)[links]
    filling = np.clip(link[:, 1] / np.where(full > 0, full, np.nan), 0, 1)
    hourly = [
        (t, row.lids)
        for t, row in zip(times, rows, strict=True)
        if row.lids is not None
    ]
    lid = np.array([lids for _, lids in hourly]).reshape(
        len(hourly), 6, len(names.lids)
    )
    injected = np.array([row.injected_mm for row in rows])
    # What ran off in each row's time [mm on so many ha], as a mean flow [L/s].
    ran = np.diff([row.runoff_mm for row in rows], prepend=before[1])
    out = [i for i, name in enumerate(names.nodes) if name in course.outfalls]
    whole = {
        "rain_mm": np.diff(injected, prepend=before[0]),
        "runoff_l_s": np.maximum(0.0, ran) * names.area_ha * 10_000 / (FIVE * 60),
        "outflow_l_s": np.array([row.nodes[1, out].sum() for row in rows]),
        "flooding_l_s": np.array([row.nodes[2].sum() for row in rows]),
        "stored_m3": np.array([row.stored_m3 for row in rows]),
    }
    found = {}
    found["node"] = _frame(
        [device(model.id, names.nodes[i]) for i in nodes], times, model.id,
        {n: node[:, k] for k, n in enumerate(("depth_m", "inflow_l_s", "flooding_l_s"))},
    )  # fmt: skip
    found["conduit"] = _frame(
        [device(model.id, names.links[i]) for i in links], times, model.id,
        {"flow_l_s": link[:, 0], "depth_m": link[:, 1], "filling": filling},
    )  # fmt: skip
    parts = (
        "inflow_mm", "infiltrated_mm", "evaporated_mm", "spilled_mm", "drained_mm",
        "stored_mm",
    )  # fmt: skip
    found["lid"] = _frame(
        [device(model.id, name) for name in names.lids], [t for t, _ in hourly], model.id,
        {name: lid[:, k] for k, name in enumerate(parts)},
    )  # fmt: skip
    # The model itself comes last: where it is stored, all of its parts are.
    found["model"] = _frame([model.id], times, model.id, whole)
    return {kind: frame for kind, frame in found.items() if length(frame)}


def _frame(
    devices: list[str], times: list[int], model: str, values: Mapping[str, Array]
) -> Frame:
    n, count = len(devices), len(times)
    return {
        "device": np.tile(np.array(devices, dtype=object), count),
        "ts": np.repeat(np.array(times, dtype=np.int64), n),
        "controller": np.full(n * count, model, dtype=object),
        "quality": np.full(n * count, "good", dtype=object),
        **{name: np.asarray(v, dtype=float).reshape(-1) for name, v in values.items()},
    }
