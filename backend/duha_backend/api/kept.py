"""What was kept: readings, curves, gaps, downloads, rain, events."""

import asyncio
import contextlib
import datetime as dt
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from duha_backend.api.fields import Id, Moment, PathId
from duha_backend.api.services import PREFIX, SIGNED_IN, Limit, S, Services, iso, to_ms
from duha_backend.cells import column_cells, moments
from duha_backend.errors import Invalid, NotFound
from duha_backend.parquet import ParquetFile
from duha_backend.readings import (
    Curve,
    Frame,
    Step,
    best_step,
    gaps,
    length,
    plain,
    rows_of,
)
from duha_contract.quantities import BY_NAME, KINDS, STORED

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)
Since = Annotated[Moment | None, Query(description="Start; RFC 3339.")]
Until = Annotated[Moment | None, Query(description="End; now when left out.")]
StepIn = Annotated[
    Step | Literal["auto"],
    Query(description="raw, 15m, 1d, or auto: what draws the span well."),
]
LONGEST_DOWNLOAD_DAYS = 400
LONGEST_SPAN_DAYS = 366 * 30
PIECE_ROWS = 1000


@router.get("/readings/{kind}/{device}")
async def readings(
    kind: PathId, device: PathId, services: S, since: Since = None, until: Until = None,
    step: StepIn = "raw", cursor: Annotated[str | None, Query(max_length=40)] = None, limit: Limit = 1000,
) -> dict[str, Any]:  # fmt: skip
    """Readings of a device, oldest first; the last hour when no span is given."""
    start, end = _span(services, kind, since, until, 3_600_000)
    if cursor is not None:
        start = _after(cursor)
    taken = best_step(start, end) if step == "auto" else step
    taken = taken if kind in KINDS else "raw"
    frame = await services.readings.window(kind, device, start, end, taken, limit + 1)
    rows = rows_of(frame)
    more = len(rows) > limit
    items = [row | {"ts": iso(row["ts"])} for row in rows[:limit]]
    return {"items": items, "step": taken, "cursor": items[-1]["ts"] if more else None}


@router.get("/gaps/{kind}/{device}")
async def gaps_of(
    kind: PathId, device: PathId, services: S, since: Since = None, until: Until = None,
    longest_s: Annotated[float, Query(gt=0, le=1e9)] = 300,
) -> list[dict[str, Any]]:  # fmt: skip
    """Spans without a good reading that are longer than `longest_s`."""
    start, end = _span(services, kind, since, until, 24 * 3_600_000)
    frame = await services.readings.window(kind, device, start, end)
    times = frame["ts"][frame["quality"] == "good"] if length(frame) else frame["ts"]
    return [
        {"start": iso(a), "end": iso(b), "seconds": (b - a) / 1000}
        for a, b in gaps(times, start, end, round(longest_s * 1000))
    ]


@router.get("/curve/{kind}")
async def curve(
    kind: PathId, services: S,
    quantities: Annotated[str, Query(max_length=1000)],
    cabinet: Annotated[str, Query(max_length=200)] = "", since: Since = None,
    until: Until = None, step: StepIn = "auto",
) -> dict[str, Any]:  # fmt: skip
    """Devices of a cabinet, or of the city, together: columns by quarters or days.

    Powers and energies add up, levels have a mean, failures are counted. `devices` and
    `answered` say how many stand behind each value.
    """
    if kind not in KINDS:
        raise NotFound(f"no curve of {kind!r}; there are {', '.join(KINDS)}")
    start, end = _span(services, kind, since, until, 24 * 3_600_000)
    names = tuple(quantities.split(","))
    unknown = [name for name in names if name not in BY_NAME[kind]]
    if unknown:
        raise Invalid(f"{kind} has no {', '.join(unknown)}")
    taken = best_step(start, end) if step == "auto" else step
    taken = "15m" if taken == "raw" else taken
    wanted = Curve(kind, names, cabinet)
    frame = await services.readings.curve(wanted, start, end, taken)
    return {"step": taken, "columns": {n: plain(c) for n, c in frame.items()}}


@router.get("/download/{kind}.{form}")
async def download(
    kind: PathId, form: Literal["csv", "json", "parquet"], services: S, since: Since = None,
    until: Until = None, device: Annotated[list[Id] | None, Query(max_length=1000)] = None,
) -> Response:  # fmt: skip
    """All readings of a span as a file: CSV, JSON (a row a line) or Parquet."""
    start, end = _span(services, kind, since, until, 24 * 3_600_000)
    if end - start > LONGEST_DOWNLOAD_DAYS * 24 * 3_600_000:
        raise Invalid(f"a download is {LONGEST_DOWNLOAD_DAYS} days at most")
    frames = services.readings.export(kind, start, end, device or ())
    name = f"{services.city}-{kind}-{iso(start)[:10]}.{form}"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Encoding": "identity",
    }
    bodies: dict[str, tuple[AsyncIterator[str] | AsyncIterator[bytes], str]] = {
        "csv": (_csv(frames), "text/csv; charset=utf-8"),
        "json": (_json(frames), "application/x-ndjson"),
        "parquet": (_parquet(frames), "application/vnd.apache.parquet"),
    }
    body, media = bodies[form]
    return StreamingResponse(body, media_type=media, headers=headers)


@router.get("/rain")
async def rain(
    services: S,
    hours: Annotated[float, Query(gt=0, le=24 * 31)] = 3,
    bin_minutes: Annotated[int, Query(ge=1, le=1440)] = 5,
) -> dict[str, Any]:
    """Rain of every gauge in bins [mm]; a bin without an entry had none."""
    now = services.now_ms()
    width = bin_minutes * 60_000
    start = (now - round(hours * 3_600_000)) // width * width
    rows = rows_of(await services.readings.rain(start, now + 1, width))
    gauges: dict[str, list[list[float]]] = {gauge: [] for gauge in services.live.rain}
    for row in rows:
        if (
            row["device"] in gauges
        ):  # what nobody has registered is no gauge of the city
            gauges[row["device"]].append([row["ts"], row["rain_mm"]])
    ages = {gauge: services.live.age_ms(gauge, now) for gauge in gauges}
    return {
        "start": start,
        "end": now,
        "bin_ms": width,
        "gauges": gauges,
        "age_ms": ages,
    }


@router.get("/log")
async def log_of_events(
    services: S, since: Since = None, until: Until = None,
    controller: Annotated[str | None, Query(max_length=200)] = None, limit: Limit = 200,
) -> list[dict[str, Any]]:  # fmt: skip
    """Events that controllers have reported, newest first: resets, clocks, losses."""
    end = to_ms(until) if until else services.now_ms() + 60_000
    start = to_ms(since) if since else end - 7 * 24 * 3_600_000
    rows = await asyncio.to_thread(services.books.events, start, end, controller, limit)
    return [row | {"at": iso(row["ts"])} for row in rows]


def _span(
    services: Services,
    kind: str,
    since: dt.datetime | None,
    until: dt.datetime | None,
    usual_ms: int,
) -> tuple[int, int]:
    """The span that was asked for [ms); raises NotFound when there is no such kind."""
    if kind not in STORED:
        raise NotFound(f"no kind {kind!r}; there are {', '.join(STORED)}")
    end = to_ms(until) if until else services.now_ms() + 1
    start = to_ms(since) if since else end - usual_ms
    if start > end:
        raise Invalid("since is after until")
    if end - start > LONGEST_SPAN_DAYS * 24 * 3_600_000:
        raise Invalid(f"at most {LONGEST_SPAN_DAYS} days at once")
    return start, end


def _after(cursor: str) -> int:
    try:
        return to_ms(dt.datetime.fromisoformat(cursor)) + 1
    except (ValueError, OverflowError):
        raise Invalid(f"{cursor!r} is no cursor") from None


def _rows(frame: Frame) -> list[list[Any]]:
    """Rows of a frame with times as text."""
    columns = [
        moments(column) if name == "ts" else plain(column)
        for name, column in frame.items()
    ]
    return [list(row) for row in zip(*columns, strict=True)]


async def _pieces(frames: AsyncIterator[Frame]) -> AsyncIterator[Frame]:
    """Frames of a few rows: written in one go, each holds up nothing."""
    async for frame in frames:
        for start in range(0, length(frame), PIECE_ROWS):
            yield {n: column[start : start + PIECE_ROWS] for n, column in frame.items()}


def _lines(frame: Frame) -> str:
    """Lines of CSV, made column by column: a thread that works in Python delays the loop."""
    columns = [
        moments(column) if name == "ts" else column_cells(column)
        for name, column in frame.items()
    ]
    return "".join(f"{line}\r\n" for line in map(",".join, zip(*columns, strict=True)))


async def _csv(frames: AsyncIterator[Frame]) -> AsyncIterator[str]:
    first = True
    async for piece in _pieces(frames):
        if first:
            yield ",".join(piece) + "\r\n"
            first = False
        yield await asyncio.to_thread(_lines, piece)


async def _json(frames: AsyncIterator[Frame]) -> AsyncIterator[bytes]:
    def encoded(piece: Frame) -> bytes:
        rows = (dict(zip(piece, row, strict=True)) for row in _rows(piece))
        return msgspec.json.Encoder().encode_lines(list(rows))

    async for piece in _pieces(frames):
        yield await asyncio.to_thread(encoded, piece)


async def _parquet(frames: AsyncIterator[Frame]) -> AsyncIterator[bytes]:
    """Parquet ends with its directory, so it is written to a file first."""
    with tempfile.TemporaryDirectory(prefix="duha-") as folder:
        path = Path(folder) / "readings.parquet"
        with contextlib.closing(ParquetFile(Path(folder))) as file:
            async for frame in frames:
                await asyncio.to_thread(file.add, frame)
            await asyncio.to_thread(file.write, path)
        with path.open("rb") as written:
            while chunk := await asyncio.to_thread(written.read, 1 << 20):
                yield chunk
