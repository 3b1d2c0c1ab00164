"""InfluxDB as readings store: 1.x, 2.x and 3.x.

Written by line protocol, on ``/api/v2/write`` (2.x, 3.x) or ``/write`` (1.x). Read by
InfluxQL on ``/query``, the one language that all three speak. A database (a bucket, in
2.x) for each step: `duha` as it was read, `duha_15m` and `duha_1d`; measurements are the
kinds of devices, and `luminaire_cabinet` the lights of whole cabinets.

Whatever takes more than a moment (lines, compression, parsing, arithmetic) is done in a
thread.
"""

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from duha_backend.errors import Invalid
from duha_backend.frames import (
    Series,
    before,
    cabinets,
    columns,
    cut,
    in_days,
    joined,
    means,
    rainy,
    readings,
    together,
    with_behind,
    with_counts,
    within,
    without_behind,
)
from duha_backend.influx_server import Influx, Server
from duha_backend.influx_setup import prepare
from duha_backend.lines import lines, packed, time_of
from duha_backend.readings import (
    DAY_MS,
    QUARTER_MS,
    STEP_MS,
    USUAL,
    Curve,
    Frame,
    Retention,
    Step,
    home,
    length,
    merged,
    slices,
)
from duha_backend.validate import Examined, Reject
from duha_contract.quantities import BY_NAME, KINDS, STORED

__all__ = ["Influx", "InfluxReadings"]
log = logging.getLogger(__name__)

MOST_LINES = 8000
"""Lines of one request: 5,000 to 10,000 is what the makers of InfluxDB advise."""
_HOUR_MS = 3_600_000
_DROPPED = re.compile(r"dropped[= ](\d+)")
_RETENTION = re.compile("(beyond|outside) retention policy")


class _Part(NamedTuple):
    """Lines of one request, and its body."""

    lines: list[str]
    body: bytes


class InfluxReadings:
    """Readings in an InfluxDB."""

    linger_s = 0.2

    def __init__(self, place: Influx, retention: Retention = USUAL) -> None:
        self._place = place
        self._retention = retention
        self._server = Server(place)
        self.reused: Counter[str] = Counter()
        """None: a point with the same tags and time is the same point, whoever sends it."""

    # -- writing -----------------------------------------------------------------------

    async def write(
        self, messages: Sequence[Examined], received_ms: int
    ) -> list[Reject]:
        """Store the readings of messages; what the server refuses for good is returned."""
        rejects, parts = await asyncio.to_thread(
            _prepared, messages, self._oldest(received_ms), self._retention.raw
        )
        for part in parts:
            rejects += await self._post("raw", part)
        return rejects

    def _oldest(self, now_ms: int) -> int:
        """Time before which the server would refuse a reading [ms]."""
        days = self._retention.raw
        return 0 if days is None else now_ms - days * DAY_MS

    async def _put(self, step: Step, measurement: str, frame: Frame) -> list[Reject]:
        rejects: list[Reject] = []
        for part in await asyncio.to_thread(_parts, measurement, frame):
            rejects += await self._post(step, part)
        return rejects

    async def _post(self, step: Step, part: _Part) -> list[Reject]:
        """Write lines; what is too much, or partly wrong, is written in halves."""
        database, place = self._place.of(step), self._place
        path, parameters = "/write", {"db": database, "precision": "ms"}
        if not await self._server.is_old():
            path = "/api/v2/write"
            parameters = {"org": place.org, "bucket": database, "precision": "ms"}
        packing = {"Content-Encoding": "gzip"}
        answer = await self._server.ask("POST", path, parameters, part.body, packing)
        if answer.status < 300:
            return []
        if answer.status not in (400, 413, 422):
            raise self._server.refused(answer)
        said = f"InfluxDB: {answer.status} {answer.text}"
        rejects = await asyncio.to_thread(_given_up, part.lines, said)
        if rejects:
            return rejects
        half = len(part.lines) // 2
        for some in (part.lines[:half], part.lines[half:]):
            body = await asyncio.to_thread(packed, some)
            rejects += await self._post(step, _Part(some, body))
        return rejects

    async def put(self, kind: str, frame: Frame) -> None:
        """Store what was worked out; the last that is put stands."""
        for reject in await self._put(home(kind), kind, frame):
            log.warning("store: %s: %s", kind, reject.reason)

    # -- reading -----------------------------------------------------------------------

    async def latest(self, kind: str, since_ms: int) -> Frame:
        """The last reading of every device of a kind since a time [ms]."""
        found = await self._query(
            home(kind),
            f"SELECT * FROM {kind} WHERE time >= {since_ms}ms"
            " GROUP BY device, controller ORDER BY time DESC LIMIT 1",
        )
        return await self._server.worked(readings, kind, found)

    async def window(
        self, kind: str, device: str, since_ms: int, until_ms: int,
        step: Step = "raw", limit: int | None = None,
    ) -> Frame:  # fmt: skip
        """Readings of a device in a span [ms), oldest first."""
        where = f"device = '{_id(device)}'"
        if step == "raw":
            last = f" ORDER BY time LIMIT {int(limit)}" if limit is not None else ""
            found = await self._query(
                home(kind),
                f"SELECT * FROM {kind} WHERE {where} AND {_span(since_ms, until_ms)}{last}",
            )  # fmt: skip
            return await self._server.worked(readings, kind, found)
        rolled = await self._rolled_until(kind)
        quarters = await self._steps("15m", kind, where, since_ms, until_ms)
        first = max(rolled, since_ms // QUARTER_MS * QUARTER_MS)
        tail = await self._quarters(kind, first, until_ms, where)
        known = joined([before(quarters, rolled), tail])
        if step == "15m":
            frame = without_behind(kind, within(known, since_ms))
        else:
            today = max(rolled - QUARTER_MS, since_ms) // DAY_MS * DAY_MS
            rest = await self._steps("15m", kind, where, today, since_ms)
            known = within(joined([rest, known]), today)
            days = await self._steps("1d", kind, where, since_ms, until_ms)
            frame = joined([before(days, today), in_days(kind, known)])
            frame = without_behind(kind, frame)
        return {name: column[:limit] for name, column in frame.items()}

    async def curve(
        self, curve: Curve, since_ms: int, until_ms: int, step: Step
    ) -> Frame:
        """Readings of many devices together, step by step."""
        step = "15m" if step == "raw" else step
        names = ("devices", "answered", *curve.quantities)
        whose = f" AND controller = '{_id(curve.cabinet)}'" if curve.cabinet else ""
        found = await self._query(
            step,
            f"SELECT {', '.join(names)} FROM {curve.kind}_cabinet"
            f" WHERE {_span(since_ms, until_ms)}{whose}",
        )

        def summed() -> Frame:
            frame = columns(found, names)
            return together(curve.kind, frame, frame["ts"], curve.quantities)

        return await self._server.worked(summed)

    async def rain(
        self, since_ms: int, until_ms: int, bin_ms: int, kind: str = "rain_gauge"
    ) -> Frame:
        """Rain of every device in bins that have any."""
        found = await self._query(
            home(kind),
            f"SELECT sum(rain_mm) AS rain_mm FROM {kind}"
            f" WHERE {_span(since_ms, until_ms)}"
            f" GROUP BY time({bin_ms}ms), device fill(none)",
        )
        frame = await self._server.worked(columns, found, ("rain_mm",))
        return rainy(frame, ("device", "ts"))

    async def rain_readings(self, since_ms: int) -> Frame:
        """Every reading with rain since a time [ms], oldest first."""
        found = await self._query(
            "raw",
            f"SELECT rain_mm FROM rain_gauge WHERE time >= {since_ms}ms AND rain_mm > 0"
            " GROUP BY device",
        )
        frame = await self._server.worked(columns, found, ("rain_mm",))
        return rainy(frame, ("ts", "device"))

    async def export(
        self, kind: str, since_ms: int, until_ms: int, devices: Sequence[str] = ()
    ) -> AsyncIterator[Frame]:
        """All readings of a span, in frames of bounded size."""
        wanted = " OR ".join(f"device = '{_id(device)}'" for device in devices)
        whose = f" AND ({wanted})" if wanted else ""
        every = DAY_MS if devices or kind != "luminaire" else _HOUR_MS
        async for found in self._slices(
            home(kind), kind, "quality", since_ms, until_ms, every, whose
        ):
            for frame in cut(await self._server.worked(readings, kind, found)):
                yield frame

    async def quarters(
        self, kind: str, since_ms: int, until_ms: int
    ) -> AsyncIterator[Frame]:
        """Quarters of every device that are worked out, in frames of bounded size."""
        names = ("n", *BY_NAME[kind])
        async for found in self._slices(
            "15m", kind, "n", since_ms, until_ms, _HOUR_MS, " AND n > 0"
        ):
            for frame in cut(await self._server.worked(columns, found, names)):
                yield frame

    async def _slices(
        self, step: Step, kind: str, counted: str, since_ms: int, until_ms: int,
        every_ms: int, whose: str,
    ) -> AsyncIterator[Series]:  # fmt: skip
        """Series of a span, in pieces whose size is known before they are asked for."""
        for start in range(since_ms, until_ms, every_ms):
            end = min(until_ms, start + every_ms)
            bins = columns(
                await self._query(
                    step,
                    f"SELECT count({counted}) AS n FROM {kind}"
                    f" WHERE {_span(start, end)}{whose} GROUP BY time(1m) fill(none)",
                ),
                ("n",),
            )
            for first, last in slices(bins, start, end):
                query = f"SELECT * FROM {kind} WHERE {_span(first, last)}{whose}"
                async for series in self._server.stream(self._place.of(step), query):
                    yield series

    async def counts(self) -> dict[str, int]:
        """How many rows each kind holds."""
        found = {}
        for kind in STORED:
            query = f"SELECT count(quality) AS n FROM {kind}"
            frame = columns(await self._query(home(kind), query), ("n",))
            found[kind] = int(frame["n"].sum())
        return found

    # -- keeping house -----------------------------------------------------------------

    async def roll(self, kind: str, step: Step, start_ms: int) -> None:
        """Work out a step anew; days cabinet by cabinet, so that memory stays bounded."""
        until = start_ms + STEP_MS[step]
        if step == "15m":
            await self._keep("15m", kind, await self._quarters(kind, start_ms, until))
            await self._mark(kind, until)
            return
        names = await self._query(
            "15m", f'SHOW TAG VALUES FROM {kind} WITH KEY = "controller"'
        )
        for controller in sorted({row[1] for s in names for row in s.values}):
            where = f"controller = '{_id(controller)}'"
            quarters = await self._steps("15m", kind, where, start_ms, until)
            await self._keep(
                "1d", kind, await self._server.worked(in_days, kind, quarters)
            )

    async def _keep(self, step: Step, kind: str, frame: Frame) -> None:
        """Write a step, of the devices and of their cabinets."""
        if not length(frame):
            return
        await self._put(step, kind, frame)
        whole = await self._server.worked(cabinets, kind, frame)
        await self._put(step, f"{kind}_cabinet", whole)

    async def _mark(self, kind: str, until_ms: int) -> None:
        """Remember up to where quarters are worked out."""
        if until_ms > await self._rolled_until(kind):
            made = [f"rolled until_{kind}={float(until_ms)!r} 0"]
            await self._post("15m", _Part(made, packed(made)))

    async def _rolled_until(self, kind: str) -> int:
        found = await self._query("15m", f"SELECT last(until_{kind}) AS u FROM rolled")
        frame = columns(found, ("u",))
        return int(frame["u"].max()) if length(frame) else 0

    async def expire(self, retention: Retention, now_ms: int) -> None:
        """Nothing to do: the server itself deletes, by its databases' durations."""

    async def backup(self, folder: Path) -> str | None:
        """None: an InfluxDB is backed up by its own tools."""
        del folder
        return None

    async def prepare(self, retention: Retention) -> list[str]:
        """Make or adjust databases, or buckets, with their durations; says what it did."""
        return await prepare(self._server, retention)

    async def close(self) -> None:
        """Close every connection."""
        await self._server.close()

    # -- help --------------------------------------------------------------------------

    async def _quarters(
        self, kind: str, since_ms: int, until_ms: int, where: str = ""
    ) -> Frame:
        """Quarters of every device, from the raw readings."""
        if since_ms >= until_ms:
            return {}
        ways = [f"{q.over_time}({q.name}) AS {q.name}" for q in KINDS[kind]]
        ways += [f"count({name}) AS {name}_n" for name in means(kind)]
        bounds = _span(since_ms, until_ms) + (f" AND {where}" if where else "")
        rest = f" FROM {kind} WHERE {bounds}"
        group = " GROUP BY time(15m), device, controller fill(none)"
        values = await self._query("raw", f"SELECT {', '.join(ways)}{rest}{group}")
        counted = await self._query(
            "raw", f"SELECT count(quality) AS n{rest} AND quality = 'good'{group}"
        )

        def both() -> Frame:
            names = with_behind(kind)[1:]
            return with_counts(kind, columns(values, names), columns(counted, ("n",)))

        return await self._server.worked(both)

    async def _steps(
        self, step: Step, kind: str, where: str, since_ms: int, until_ms: int
    ) -> Frame:
        if since_ms >= until_ms:
            return {}
        found = await self._query(
            step, f"SELECT * FROM {kind} WHERE {where} AND {_span(since_ms, until_ms)}"
        )
        return await self._server.worked(columns, found, with_behind(kind))

    async def _query(self, step: Step, query: str) -> Series:
        """Series of an InfluxQL query."""
        return await self._server.series(self._place.of(step), query)


def _prepared(
    messages: Sequence[Examined], oldest_ms: int, days: int | None
) -> tuple[list[Reject], list[_Part]]:
    """What is too old to be kept, and the requests that write the rest."""
    rejects: list[Reject] = []
    parts: list[_Part] = []
    for kind, frame in merged(messages).items():
        reason = f"older than readings are kept ({days} days)"
        rejects += _rejected(kind, before(frame, oldest_ms), reason)
        parts += _parts(kind, within(frame, oldest_ms))
    return rejects, parts


def _parts(measurement: str, frame: Frame) -> list[_Part]:
    """Requests that write a frame."""
    if not length(frame):
        return []
    made = lines(measurement, frame)
    some = [made[n : n + MOST_LINES] for n in range(0, len(made), MOST_LINES)]
    return [_Part(part, packed(part)) for part in some]


def _given_up(part: list[str], said: str) -> list[Reject]:
    """Lines that the server has dropped, as the rows that they were."""
    return [_refused(line, said) for line in _dropped(part, said)]


def _dropped(part: list[str], said: str) -> list[str]:
    """Lines that the server has dropped while it wrote the others; none if it is not said.

    It says how many, not which. Those that are older than it keeps readings are the
    oldest; and where it has dropped all, it is all.
    """
    if len(part) == 1:
        return part
    told = _DROPPED.search(said)
    n = int(told[1]) if told else 0
    if n == len(part):
        return part
    if n and _RETENTION.search(said) and "upper bound" not in said.lower():
        return sorted(part, key=time_of)[:n]
    return []


def _id(name: str) -> str:
    """A name that may stand in a query."""
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise Invalid(f"{name!r} is no id")
    return name


def _span(since_ms: int, until_ms: int) -> str:
    return f"time >= {int(since_ms)}ms AND time < {int(until_ms)}ms"


def _rejected(kind: str, frame: Frame, reason: str) -> list[Reject]:
    """Readings as refused rows, in the form in which they came."""
    names = [name for name in frame if name != "controller"]
    found = []
    for i in range(length(frame)):
        row = {n: frame[n].item(i) for n in names}
        kept = {n: v for n, v in row.items() if v == v}  # noqa: PLR0124 - NaN is no value
        raw = json.dumps(kept).encode()
        found.append(Reject(frame["controller"][i], reason, raw, kind))
    return found


def _refused(line: str, reason: str) -> Reject:
    """One line that the server refuses for good, as the row that it was."""
    head, fields, ts = line.rsplit(" ", 2)
    kind, *tags = head.split(",")
    row: dict[str, Any] = dict(tag.split("=", 1) for tag in tags) | {"ts": int(ts)}
    controller = row.pop("controller", "")
    for name, value in (field.split("=", 1) for field in fields.split(",")):
        row[name] = value.strip('"') if name == "quality" else float(value)
    return Reject(controller, reason, json.dumps(row).encode(), kind)
