"""Rain as it was judged: minutes, sums, field, events, tables; to and from others."""

import asyncio
import datetime as dt
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from fastapi import APIRouter, Query, Request, Response

from duha_backend.api.bodies import uploaded
from duha_backend.api.fields import Moment, PathId, StrictBody
from duha_backend.api.services import (
    PREFIX,
    SIGNED_IN,
    S,
    Services,
    Who,
    iso,
    needs,
    record,
    to_ms,
)
from duha_backend.books import Bin
from duha_backend.drainage.rainfall import AGAIN, EARLIEST_MS, judged_minutes
from duha_backend.errors import Invalid, NotFound
from duha_backend.geo import places_of, positions
from duha_backend.rain.areal import Field, Method
from duha_backend.rain.events import DesignRain, Idf
from duha_backend.rain.exchange import (
    FILLED,
    MISSING_FLAG,
    RELIABLE,
    Series,
    from_csv,
    from_pi,
    from_swmm,
    to_pi,
    to_swmm,
)
from duha_backend.rain.quality import reasons
from duha_backend.rain.series import MINUTE_MS
from duha_backend.rain.statistics import (
    OPERATION_H,
    STATISTICS_H,
    by_day,
    event_list,
    ground,
    sums_now,
    table_of,
)
from duha_backend.readings import DAY_MS, LATE, QUARTER_MS, length
from duha_backend.validate import FUTURE_MS, Array, Columns, Examined
from duha_contract.messages import Batch
from duha_contract.quantities import BY_NAME

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)
Since = Annotated[Moment | None, Query(description="Start; RFC 3339.")]
Until = Annotated[Moment | None, Query(description="End; now when left out.")]
LONGEST_DAYS = 400
MOST_IMPORTED = 2_000_000


@router.get("/rain/minutes/{gauge}")
async def minutes(
    gauge: PathId, services: S, since: Since = None, until: Until = None
) -> dict[str, Any]:
    """Minutes of a gauge: raw, used, quality from 0 to 1, and the reasons against it.

    `quality` is good, filled (from neighbours) or missing. Raw rain is never changed.
    """
    start, end = _span(services, since, until, DAY_MS, 31)
    frame = await services.readings.window("rain", _known(services, gauge), start, end)
    if not length(frame):
        return {"gauge": gauge, "ts": [], "raw_mm": [], "rain_mm": [], "quality": [],
                "quality_index": [], "reasons": []}  # fmt: skip
    missing = frame["quality"] == "missing"
    return {
        "gauge": gauge,
        "ts": frame["ts"].tolist(),
        "raw_mm": _plain(frame["raw_mm"]),
        "rain_mm": _plain(np.where(missing, np.nan, frame["rain_mm"])),
        "quality": frame["quality"].tolist(),
        "quality_index": frame["quality_index"].tolist(),
        "reasons": [list(reasons(int(bits))) for bits in frame["flags"].tolist()],
    }


@router.get("/rain/sums")
async def sums(services: S) -> dict[str, Any]:
    """Sums of the last 5 minutes to 24 hours of every gauge, and how rare they are.

    Return periods are those of the city's table of design rain; without one there are none.
    """
    until = await _judged_until(services)
    rain, quality, names = await _rain(services, until - DAY_MS, until)
    table = await _table(services)
    daily = await _daily(services, until - 31 * DAY_MS, until)
    found = []
    for row, name in enumerate(names):
        days = daily.get(name, {})
        zone = ZoneInfo(services.control.place.zone)
        last = dt.datetime.fromtimestamp(until / 1000, zone).date()
        course = [days.get(last - dt.timedelta(days=n), 0.0) for n in range(30, -1, -1)]
        known = quality[row, -60:]
        index = float(np.nanmean(known)) if np.isfinite(known).any() else 0.0
        found.append(
            {
                "gauge": name,
                "sums": sums_now(rain[row], table),
                "quality_index": round(index, 3),
                **ground(np.array(course)),
            }
        )
    return {"until": iso(until), "design_rain": table is not None, "gauges": found}


@router.get("/rain/field")
async def field(
    services: S,
    minutes: Annotated[int, Query(ge=5, le=1440)] = 60,
    method: Method = "idw",
    columns: Annotated[int, Query(ge=4, le=200)] = 40,
    last: Annotated[Moment | None, Query(alias="until")] = None,
) -> dict[str, Any]:
    """Rain between the gauges on a grid [mm]: interpolated, it is no radar picture.

    `depth_mm` has a row for each latitude, from south to north.
    """
    until = await _judged_until(services)
    if last is not None:
        until = min(until, to_ms(last) // MINUTE_MS * MINUTE_MS)
    rain, _, names = await _rain(services, until - minutes * MINUTE_MS, until)
    gauges = [services.live.assets[name] for name in names]
    fallen = np.where(
        np.isnan(rain).mean(axis=1) > 0.2, np.nan, np.nansum(rain, axis=1)
    )
    east = [gauge.longitude for gauge in gauges]
    north = [gauge.latitude for gauge in gauges]
    margin = 0.01
    x = np.linspace(min(east) - margin, max(east) + margin, columns)
    y = np.linspace(min(north) - margin, max(north) + margin, columns)
    points = positions(np.repeat(y, columns), np.tile(x, columns))
    made = await asyncio.to_thread(Field, places_of(gauges), points, method)
    depth = await asyncio.to_thread(made.at, fallen)
    return {
        "label": f"interpolated from {int(np.isfinite(fallen).sum())} gauges, not radar",
        "until": iso(until),
        "minutes": minutes,
        "method": method,
        "longitude": x.round(5).tolist(),
        "latitude": y.round(5).tolist(),
        "depth_mm": _plain(depth.round(2)),
    }


@router.get("/rain/events/{gauge}")
async def events_of(
    gauge: PathId, services: S, since: Since = None, until: Until = None,
    dry_h: Annotated[float | None, Query(gt=0, le=72)] = None,
) -> dict[str, Any]:  # fmt: skip
    """Rain events of a gauge and the return periods of their sums.

    Events are parted by 6 dry hours (statistics) and by 1.5 (operation), or by `dry_h`.
    """
    start, end = _span(services, since, until, 30 * DAY_MS, LONGEST_DAYS)
    one = [_known(services, gauge)]
    (rain,), _ = await judged_minutes(services.readings, one, start, end)
    table = await _table(services)
    ways = (
        {"given": dry_h}
        if dry_h
        else {"statistics": STATISTICS_H, "operation": OPERATION_H}
    )
    return {
        "gauge": gauge,
        **{
            name: {"dry_h": hours, "events": await asyncio.to_thread(
                event_list, rain, start, hours, table)}
            for name, hours in ways.items()
        },
    }  # fmt: skip


@router.get("/rain/table/{gauge}")
async def table(
    gauge: PathId, services: S, every: Literal["month", "year"] = "month",
    since: Since = None, until: Until = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Months or years of a gauge: depth, wet days, the wettest day (local days)."""
    start, end = _span(services, since, until, 365 * DAY_MS, 366 * 30)
    _row_of(services, gauge)
    daily = await _daily(services, start, end)
    return table_of(daily.get(gauge, {}), every)


@router.get("/rain/export.{form}")
async def export(
    form: Literal["json", "dat"], services: S, since: Since = None, until: Until = None,
    raw: bool = False,
) -> Response:  # fmt: skip
    """Rain as Delft-FEWS PI-JSON, or as a SWMM rain file (.dat).

    CSV and Parquet are at ``/download/rain.csv`` and ``/download/rain.parquet``.
    """
    start, end = _span(services, since, until, DAY_MS, 31)
    series = [one async for one in _series(services, start, end, raw=raw)]
    if form == "dat":
        return Response(to_swmm(series), media_type="text/plain")
    return Response(
        msgspec.json.encode(await asyncio.to_thread(to_pi, series)),
        media_type="application/json",
    )


@router.post("/rain/import", dependencies=[needs("engineer")])
async def take(
    request: Request, services: S, who: Who,
    form: Literal["json", "csv", "dat"] = "json",
) -> dict[str, Any]:  # fmt: skip
    """Take rain of the city's gauges; then it is judged like any other.

    PI-JSON, CSV (``gauge,time,rain_mm``, times at which sums end) or a SWMM rain file of
    minutes.
    """
    async with uploaded(request) as file, services.importing:
        raw = await asyncio.to_thread(file.read)
        series = await asyncio.to_thread(_read, form, raw)
    owners = {name: services.live.assets[name].cabinet for name in _gauges(services)}
    messages, marks = await asyncio.to_thread(
        _import, series, owners, services.now_ms()
    )
    # Marked before, since a crash may come between, and after, since a roll-up may.
    await asyncio.to_thread(services.books.mark, marks)
    await services.readings.write(messages, services.now_ms())
    await asyncio.to_thread(services.books.mark, marks)
    taken = sum(len(m.tables[0].values["ts"]) for m in messages)
    await record(
        services, who, "import rain", f"{len(series)} series", f"{taken} values"
    )
    return {"series": len(series), "values": taken}


class AgainIn(StrictBody):
    """Since when."""

    since: Moment


@router.post("/rain/again", dependencies=[needs("engineer")], status_code=202)
async def again(body: AgainIn, services: S, who: Who) -> dict[str, Any]:
    """Judge all rain since a time again, in the background, where rain is looked after."""
    start = to_ms(body.since) // QUARTER_MS * QUARTER_MS
    now = services.now_ms()
    if not now - LONGEST_DAYS * DAY_MS <= start < now:
        raise Invalid(f"rain is judged again over the last {LONGEST_DAYS} days")
    await asyncio.to_thread(services.books.mark, [(AGAIN, LATE, start)])
    await record(services, who, "judge rain again", iso(start), "")
    return {"since": iso(start)}


# -- help --------------------------------------------------------------------------------


async def _judged_until(services: Services) -> int:
    """Up to when rain is judged: of this process, or as the store says."""
    if services.rainfall.done is not None:
        return services.rainfall.done
    now = services.now_ms()
    newest = await services.readings.latest("rain", now - 2 * DAY_MS)
    if not length(newest):
        raise NotFound("no rain has been judged yet: is the role `runoff` running?")
    return int(newest["ts"].max()) + MINUTE_MS


async def _rain(services: Services, start: int, end: int) -> tuple[Any, Any, list[str]]:
    """Minutes (g, t) of all gauges, their quality, and whose they are."""
    names = _gauges(services)
    if not names:
        raise NotFound("the city has no rain gauge")
    rain, quality = await judged_minutes(services.readings, names, start, end)
    return rain, quality, names


def _gauges(services: Services) -> list[str]:
    return [a.id for a in services.live.assets.values() if a.kind == "rain_gauge"]


def _known(services: Services, gauge: str) -> str:
    return _gauges(services)[_row_of(services, gauge)]


def _row_of(services: Services, gauge: str) -> int:
    names = _gauges(services)
    if gauge not in names:
        raise NotFound(f"the city has no rain gauge {gauge!r}")
    return names.index(gauge)


async def _daily(
    services: Services, start: int, end: int
) -> dict[str, dict[dt.date, float]]:
    """Depths of local days of every gauge, from judged minutes."""
    frame = await services.readings.rain(start, end, QUARTER_MS, "rain")
    zone = services.control.place.zone
    return {
        name: by_day(frame["ts"][mine], frame["rain_mm"][mine], zone)
        for name in dict.fromkeys(frame["device"].tolist())
        if (mine := frame["device"] == name).any()
    }


async def _table(services: Services) -> Idf | None:
    """The city's table of design rain: the first there is."""
    tables = await asyncio.to_thread(services.registry.all, DesignRain)
    return tables[0].idf if tables else None


async def _series(services: Services, start: int, end: int, *, raw: bool) -> Any:
    for name in _gauges(services):
        asset = services.live.assets[name]
        frame = await services.readings.window("rain", name, start, end)
        if not length(frame):
            continue
        words = frame["quality"]
        value = (
            frame["raw_mm"]
            if raw
            else np.where(words == "missing", np.nan, frame["rain_mm"])
        )
        flags = np.select(
            [words == "good", words == "filled"], [RELIABLE, FILLED], MISSING_FLAG
        )
        yield Series(
            name, "P.obs", "mm", frame["ts"] / 1000 + 60, value, flags, name,
            asset.latitude, asset.longitude,
        )  # fmt: skip


def _import(
    series: list[Series], owners: Mapping[str, str], now_ms: int
) -> tuple[list[Examined], list[Bin]]:
    """Validate series of others; messages to store and the steps to work out again.

    Raises
    ------
    NotFound
        A gauge that the city does not have.
    Invalid
        A series whose unit, times or depths cannot be.
    """
    if sum(len(one.times) for one in series) > MOST_IMPORTED:
        raise Invalid(f"an import has {MOST_IMPORTED} values at most")
    messages, starts = [], set()
    for number, one in enumerate(series):
        if one.location not in owners:
            raise NotFound(f"the city has no rain gauge {one.location!r}")
        _check_series(one, now_ms)
        examined = _examined(one, owners[one.location] or "city", number)
        if examined is not None:
            messages.append(examined)
            starts |= set((_ms(one.times) // QUARTER_MS * QUARTER_MS).tolist())
    marks: list[Bin] = [("rain_gauge", "15m", start) for start in starts]
    return messages, marks + [("rain", LATE, start) for start in starts]


def _check_series(series: Series, now_ms: int) -> None:
    """Refuse a series that a gauge of the city could not have measured."""
    if series.unit not in ("mm", ""):
        raise Invalid(f"{series.location}: rain comes in mm, not {series.unit}")
    times, values = series.times * 1000, series.values[np.isfinite(series.values)]
    late = (times < EARLIEST_MS) | (times > now_ms + FUTURE_MS)
    if late.any():
        when = dt.datetime.fromtimestamp(float(series.times[late][0]), dt.UTC)
        raise Invalid(f"{series.location}: {when:%Y-%m-%d} is before 2000 or to come")
    high = BY_NAME["rain_gauge"]["rain_mm"].high
    if ((values < 0) | (values > high)).any():
        raise Invalid(f"{series.location}: a depth is 0 to {high:g} mm")


def _ms(times: Array) -> Array:
    return np.asarray(np.round(times * 1000).astype(np.int64))


def _examined(series: Series, controller: str, number: int) -> Examined | None:
    """A series of others as if a controller had sent it; None without any value."""
    known = np.isfinite(series.values)
    if not known.any():
        return None
    times = series.times
    step = np.diff(times, prepend=np.nan)
    usual = float(np.nanmin(step)) if len(times) > 1 else 60.0
    n = int(known.sum())
    columns: dict[str, Any] = {
        "device": [series.location] * n,
        "ts": _ms(times[known]).tolist(),
        "quality": ["good"] * n,
        "rain_mm": series.values[known].tolist(),
        "interval_s": np.where(np.isnan(step), usual, np.minimum(step, usual))[
            known
        ].tolist(),
    }
    batch = Batch(1, "import", f"import-{time.time_ns():x}", number + 1, "trusted")
    return Examined(controller, batch, [Columns.of("rain_gauge", columns)])


def _read(form: str, raw: bytes) -> list[Series]:
    if form == "json":
        return from_pi(raw)
    text = raw.decode("utf-8", "replace")
    return from_csv(text) if form == "csv" else from_swmm(text)


def _plain(column: Any) -> list[Any]:
    return [None if np.isnan(v) else v for v in column.tolist()]


def _span(
    services: Services, since: dt.datetime | None, until: dt.datetime | None,
    usual_ms: int, most_days: int,
) -> tuple[int, int]:  # fmt: skip
    end = to_ms(until) if until else services.now_ms()
    start = to_ms(since) if since else end - usual_ms
    start, end = (t // MINUTE_MS * MINUTE_MS for t in (start, end))
    if not start < end:
        raise Invalid("since is before until")
    if end - start > most_days * DAY_MS:
        raise Invalid(f"at most {most_days} days at once")
    return start, end
