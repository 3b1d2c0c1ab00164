"""InfluxDB as readings store: 1.x, 2.x and 3.x. The only module that knows it.

Written by line protocol: through influxdb-client on ``/api/v2/write`` (2.x, 3.x), on
``/write`` for 1.x, which has no other way in. Read by InfluxQL on ``/query``, the one
language that all three speak. A database (a bucket, in 2.x) for each step: `duha` as it
was read, `duha_15m` and `duha_1d`; measurements are the kinds of devices, and
`luminaire_cabinet` the lights of whole cabinets.
"""

import asyncio
import base64
import gzip
import json
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException

from duha_backend.errors import Invalid, StoreDown
from duha_backend.lines import lines
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
)
from duha_backend.validate import Array, Examined, Reject
from duha_contract.quantities import BY_NAME, KINDS, STORED

log = logging.getLogger(__name__)

MOST_LINES = 8000
"""Lines of one request: 5,000 to 10,000 is what the makers of InfluxDB advise."""
TIMEOUT_S = 30.0
EXPORT_MS = 3_600_000
_MS: Any = WritePrecision.MS  # a text, whatever the annotations of the client say
_RETRY_S = 1.0
_ALARM_S = 30.0
_HINTS = {
    401: "the token or password is not accepted",
    403: "the token may not do this",
    404: "there is no such database or bucket: run `duha backend init-influx`",
}


@dataclass(frozen=True)
class Influx:
    """Where an InfluxDB is.

    Attributes
    ----------
    token : str
        The token of 2.x and 3.x; ``user:password`` for 1.x; empty for none.
    """

    url: str
    token: str = ""
    org: str = "duha"
    database: str = "duha"

    def of(self, step: Step) -> str:
        """Database or bucket of a step."""
        return self.database if step == "raw" else f"{self.database}_{step}"


class InfluxReadings:
    """Readings in an InfluxDB."""

    def __init__(self, place: Influx, retention: Retention = USUAL) -> None:
        self._place = place
        self._retention = retention
        self._session: aiohttp.ClientSession | None = None
        self._client: InfluxDBClientAsync | None = None
        self._old: bool | None = None

    # -- writing -----------------------------------------------------------------

    async def write(
        self, messages: Sequence[Examined], received_ms: int
    ) -> list[Reject]:
        """Store the readings of messages; what the server refuses for good is returned."""
        rejects: list[Reject] = []
        for kind, frame in merged(messages).items():
            fresh, old = _split(frame, self._oldest(received_ms))
            reason = f"older than readings are kept ({self._retention.raw} days)"
            rejects += _rejected(kind, old, reason)
            rejects += await self._put("raw", kind, fresh)
        return rejects

    def _oldest(self, now_ms: int) -> int:
        """Time before which the server would refuse a reading [ms]."""
        days = self._retention.raw
        return 0 if days is None else now_ms - days * DAY_MS

    async def _put(self, step: Step, measurement: str, frame: Frame) -> list[Reject]:
        if not length(frame):
            return []
        rejects: list[Reject] = []
        made = lines(measurement, frame)
        for start in range(0, len(made), MOST_LINES):
            part = made[start : start + MOST_LINES]
            rejects += await self._post(step, part)
        return rejects

    async def _post(self, step: Step, part: list[str]) -> list[Reject]:
        """Write lines; what is too much, or partly wrong, is written in halves."""
        status, said, headers = await self._send(self._place.of(step), part)
        if status < 300:
            return []
        if status in (400, 413, 422):
            if len(part) == 1:
                return [_refused(part[0], f"InfluxDB: {status} {said}")]
            half = len(part) // 2
            return [
                *await self._post(step, part[:half]),
                *await self._post(step, part[half:]),
            ]
        hint = _HINTS.get(status, said or "no answer")
        raise StoreDown(
            f"InfluxDB at {self._place.url}: {status}: {hint}",
            after_s=_patience(status, headers),
        )

    async def _send(
        self, database: str, part: list[str]
    ) -> tuple[int, str, dict[str, str]]:
        """Status, sentence and headers of one write."""
        if await self._is_old():
            body = await asyncio.to_thread(
                gzip.compress, "\n".join(part).encode(), compresslevel=1
            )
            return await self._ask(
                "POST", "/write", {"db": database, "precision": "ms"}, body,
                {"Content-Encoding": "gzip"},
            )  # fmt: skip
        try:
            await (
                self._v2()
                .write_api()
                .write(
                    database,
                    self._place.org,
                    "\n".join(part),
                    write_precision=_MS,
                )
            )
        except ApiException as error:
            return error.status or 0, _said(str(error.body)), dict(error.headers or {})
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._down(error) from None
        return 204, "", {}

    async def put(self, kind: str, frame: Frame) -> None:
        """Store what was worked out; the last that is put stands."""
        for reject in await self._put(home(kind), kind, frame):
            log.warning("store: %s: %s", kind, reject.reason)

    # -- reading -----------------------------------------------------------------

    async def latest(self, kind: str, since_ms: int) -> Frame:
        """The last reading of every device of a kind since a time [ms]."""
        found = await self._query(
            home(kind),
            f"SELECT * FROM {kind} WHERE time >= {since_ms}ms"
            " GROUP BY device, controller ORDER BY time DESC LIMIT 1",
        )
        return _frame(kind, found)

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
            return _frame(kind, found)
        rolled = await self._rolled_until(kind)
        quarters = await self._steps("15m", kind, where, since_ms, until_ms)
        first = max(rolled, since_ms // QUARTER_MS * QUARTER_MS)
        tail = await self._quarters(kind, first, until_ms, where)
        known = _joined([_before(quarters, rolled), tail])
        if step == "15m":
            frame = _within(known, since_ms)
        else:
            today = max(rolled - QUARTER_MS, since_ms) // DAY_MS * DAY_MS
            rest = await self._steps("15m", kind, where, today, since_ms)
            known = _within(_joined([rest, known]), today)
            days = await self._steps("1d", kind, where, since_ms, until_ms)
            frame = _joined([_before(days, today), _in_days(kind, known)])
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
        frame = _columns(found, names)
        return _together(curve.kind, frame, frame["ts"], curve.quantities)

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
        return _rainy(_columns(found, ("rain_mm",)), ("device", "ts"))

    async def rain_readings(self, since_ms: int) -> Frame:
        """Every reading with rain since a time [ms], oldest first."""
        found = await self._query(
            "raw",
            f"SELECT rain_mm FROM rain_gauge WHERE time >= {since_ms}ms AND rain_mm > 0"
            " GROUP BY device",
        )
        return _rainy(_columns(found, ("rain_mm",)), ("ts", "device"))

    async def export(
        self, kind: str, since_ms: int, until_ms: int, devices: Sequence[str] = ()
    ) -> AsyncIterator[Frame]:
        """All readings of a span, an hour at a time."""
        wanted = " OR ".join(f"device = '{_id(device)}'" for device in devices)
        whose = f" AND ({wanted})" if wanted else ""
        for start in range(since_ms, until_ms, EXPORT_MS):
            end = min(until_ms, start + EXPORT_MS)
            found = await self._query(
                home(kind), f"SELECT * FROM {kind} WHERE {_span(start, end)}{whose}"
            )
            frame = _frame(kind, found)
            if length(frame):
                yield frame

    async def quarters(
        self, kind: str, since_ms: int, until_ms: int
    ) -> AsyncIterator[Frame]:
        """Quarters of every device that are worked out, an hour at a time."""
        for start in range(since_ms, until_ms, EXPORT_MS):
            end = min(until_ms, start + EXPORT_MS)
            frame = await self._steps("15m", kind, "n > 0", start, end)
            if length(frame):
                yield frame

    async def counts(self) -> dict[str, int]:
        """How many rows each kind holds."""
        found = {}
        for kind in STORED:
            query = f"SELECT count(quality) AS n FROM {kind}"
            frame = _columns(await self._query(home(kind), query), ("n",))
            found[kind] = int(frame["n"].sum())
        return found

    # -- keeping house -------------------------------------------------------------

    async def roll(self, kind: str, step: Step, start_ms: int) -> None:
        """Work out a step anew, cabinet by cabinet, so that memory stays bounded."""
        width = STEP_MS[step]
        until = start_ms + width
        if step == "15m":
            await self._keep("15m", kind, await self._quarters(kind, start_ms, until))
            await self._mark(kind, until)
            return
        names = await self._query(
            "15m", f'SHOW TAG VALUES FROM {kind} WITH KEY = "controller"'
        )
        for controller in sorted({row[1] for s in names for row in s["values"]}):
            where = f"controller = '{_id(controller)}'"
            quarters = await self._steps("15m", kind, where, start_ms, until)
            await self._keep("1d", kind, _in_days(kind, quarters))

    async def _keep(self, step: Step, kind: str, frame: Frame) -> None:
        """Write a step, of the devices and of their cabinets."""
        if not length(frame):
            return
        await self._put(step, kind, frame)
        answered = frame | {
            "devices": np.ones(length(frame)),
            "answered": (frame["n"] > 0).astype(float),
        }
        for controller in dict.fromkeys(frame["controller"].tolist()):
            mine = frame["controller"] == controller
            part = {name: column[mine] for name, column in answered.items()}
            cabinet = _together(kind, part, part["ts"], list(BY_NAME[kind]))
            cabinet["controller"] = np.full(length(cabinet), controller, dtype=object)
            await self._put(step, f"{kind}_cabinet", cabinet)

    async def _mark(self, kind: str, until_ms: int) -> None:
        """Remember up to where quarters are worked out."""
        if until_ms > await self._rolled_until(kind):
            await self._post("15m", [f"rolled until_{kind}={float(until_ms)!r} 0"])

    async def _rolled_until(self, kind: str) -> int:
        found = await self._query("15m", f"SELECT last(until_{kind}) AS u FROM rolled")
        frame = _columns(found, ("u",))
        return int(frame["u"].max()) if length(frame) else 0

    async def expire(self, retention: Retention, now_ms: int) -> None:
        """Nothing to do: the server itself deletes, by its databases' durations."""

    async def backup(self, folder: Path) -> str | None:
        """None: an InfluxDB is backed up by its own tools."""
        del folder
        return None

    async def prepare(self, retention: Retention) -> list[str]:
        """Make or adjust databases, or buckets, with their durations; says what it did."""
        kept: dict[Step, int | None] = {
            "raw": retention.raw,
            "15m": retention.quarters,
            "1d": retention.days,
        }
        old = await self._is_old()
        done = []
        for step, days in kept.items():
            name = self._place.of(step)
            await (self._database(name, days) if old else self._bucket(name, days))
            done.append(f"{name}: kept {f'{days} days' if days else 'for ever'}")
        return done

    async def _database(self, name: str, days: int | None) -> None:
        duration = f"{days}d" if days else "INF"
        for query in (
            f'CREATE DATABASE "{name}"',
            f'ALTER RETENTION POLICY "autogen" ON "{name}" DURATION {duration}',
        ):
            await self._influxql({"q": query})

    async def _bucket(self, name: str, days: int | None) -> None:
        rules = [{"type": "expire", "everySeconds": days * 86_400}] if days else []
        org = await self._json("GET", "/api/v2/orgs", {"org": self._place.org})
        found = await self._json("GET", "/api/v2/buckets", {"name": name})
        bucket: dict[str, Any] = {"name": name, "retentionRules": rules}
        if found.get("buckets"):
            path = f"/api/v2/buckets/{found['buckets'][0]['id']}"
            await self._json("PATCH", path, {}, bucket)
        else:
            bucket["orgID"] = org["orgs"][0]["id"]
            await self._json("POST", "/api/v2/buckets", {}, bucket)

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.close()  # type: ignore[no-untyped-call]
        if self._session is not None:
            await self._session.close()

    # -- help ----------------------------------------------------------------------

    async def _quarters(
        self, kind: str, since_ms: int, until_ms: int, where: str = ""
    ) -> Frame:
        """Quarters of every device, from the raw readings."""
        if since_ms >= until_ms:
            return {}
        ways = ", ".join(f"{q.over_time}({q.name}) AS {q.name}" for q in KINDS[kind])
        bounds = _span(since_ms, until_ms) + (f" AND {where}" if where else "")
        rest = f" FROM {kind} WHERE {bounds}"
        group = " GROUP BY time(15m), device, controller fill(none)"
        values = _columns(
            await self._query("raw", f"SELECT {ways}{rest}{group}"), BY_NAME[kind]
        )
        counted = _columns(
            await self._query(
                "raw",
                f"SELECT count(quality) AS n{rest} AND quality = 'good'{group}",
            ),
            ("n",),
        )
        return _with_counts(kind, values, counted)

    async def _steps(
        self, step: Step, kind: str, where: str, since_ms: int, until_ms: int
    ) -> Frame:
        if since_ms >= until_ms:
            return {}
        found = await self._query(
            step, f"SELECT * FROM {kind} WHERE {where} AND {_span(since_ms, until_ms)}"
        )
        return _columns(found, ("n", *BY_NAME[kind]))

    async def _query(self, step: Step, query: str) -> list[dict[str, Any]]:
        """Series of an InfluxQL query."""
        return await self._influxql(
            {"db": self._place.of(step), "q": query, "epoch": "ms"}
        )

    async def _influxql(self, parameters: dict[str, str]) -> list[dict[str, Any]]:
        method = "GET" if parameters["q"].startswith(("SELECT", "SHOW")) else "POST"
        status, body, _ = await self._ask(method, "/query", parameters)
        if status >= 300:
            hint = _HINTS.get(status, body)
            raise StoreDown(f"InfluxDB at {self._place.url}: {status}: {hint}")
        (result,) = json.loads(body)["results"]
        if "error" in result:
            raise StoreDown(f"InfluxDB: {result['error']}")
        return result.get("series", [])  # type: ignore[no-any-return]

    async def _json(
        self, method: str, path: str, parameters: dict[str, str], body: Any = None
    ) -> dict[str, Any]:
        raw = None if body is None else json.dumps(body).encode()
        status, said, _ = await self._ask(method, path, parameters, raw)
        if status == 404:
            return {}
        if status >= 300:
            raise StoreDown(f"InfluxDB: {method} {path}: {status} {said}")
        return json.loads(said or "{}")  # type: ignore[no-any-return]

    async def _ask(
        self, method: str, path: str, parameters: dict[str, str],
        body: bytes | None = None, headers: dict[str, str] | None = None,
    ) -> tuple[int, str, dict[str, str]]:  # fmt: skip
        """Status, text and headers of one request."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(TIMEOUT_S), headers=self._credentials()
            )
        url = self._place.url.rstrip("/") + path
        try:
            async with self._session.request(
                method, url, params=parameters, data=body, headers=headers
            ) as answer:
                text = await answer.text()
                said = _said(text) if answer.status >= 300 else text
                return answer.status, said, dict(answer.headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._down(error) from None

    def _credentials(self) -> dict[str, str]:
        token = self._place.token
        if not token:
            return {}
        if ":" in token:
            basic = base64.b64encode(token.encode()).decode()
            return {"Authorization": f"Basic {basic}"}
        return {"Authorization": f"Token {token}"}

    async def _is_old(self) -> bool:
        """Whether this is a 1.x, which says so itself."""
        if self._old is None:
            status, _, headers = await self._ask("GET", "/ping", {})
            if status >= 500:
                raise StoreDown(f"InfluxDB at {self._place.url}: {status}")
            version = headers.get("X-Influxdb-Version", "").lstrip("v")
            self._old = version.startswith("1.")
            log.info("store: InfluxDB %s at %s", version or "2 or 3", self._place.url)
        return self._old

    def _v2(self) -> InfluxDBClientAsync:
        if self._client is None:
            self._client = InfluxDBClientAsync(
                self._place.url, self._place.token, self._place.org,
                timeout=round(TIMEOUT_S * 1000), enable_gzip=True,
            )  # fmt: skip
        return self._client

    def _down(self, error: Exception) -> StoreDown:
        why = str(error) or type(error).__name__
        return StoreDown(f"InfluxDB at {self._place.url}: {why}")


def _patience(status: int, headers: dict[str, str]) -> float:
    """How long to wait before the next attempt [s]: as told, or until somebody helps."""
    told = next((v for k, v in headers.items() if k.lower() == "retry-after"), "")
    if told.isdigit():
        return float(told)
    return _ALARM_S if status in (401, 403, 404) else _RETRY_S


def _said(body: str) -> str:
    """The sentence in an error document."""
    try:
        found = json.loads(body)
        return str(found.get("message") or found.get("error") or body)
    except (ValueError, AttributeError):
        return body.strip()[:200]


def _id(name: str) -> str:
    """A name that may stand in a query."""
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise Invalid(f"{name!r} is no id")
    return name


def _span(since_ms: int, until_ms: int) -> str:
    return f"time >= {int(since_ms)}ms AND time < {int(until_ms)}ms"


def _columns(series: list[dict[str, Any]], names: Iterable[str]) -> Frame:
    """Series as one frame of ts, tags and the named fields, ordered by time."""
    parts: dict[str, list[Any]] = {}
    wanted = ("device", "controller", "quality", *names)
    found = {column for s in series for column in (*s["columns"], *s.get("tags", ()))}
    for one in series:
        columns = dict(
            zip(one["columns"], zip(*one["values"], strict=True), strict=True)
        )
        n = len(one["values"])
        parts.setdefault("ts", []).extend(columns["time"])
        for name in wanted:
            if name in found:
                given = (one.get("tags", {}).get(name),) * n
                parts.setdefault(name, []).extend(columns.get(name, given))
    order = np.argsort(np.array(parts.get("ts", ()), dtype=np.int64), kind="stable")
    text = ("device", "controller", "quality")
    frame = {"ts": np.array(parts.get("ts", ()), dtype=np.int64)[order]}
    for name in wanted:
        if name in text and name not in parts:
            continue
        kind: Any = object if name in text else np.float64
        values = parts.get(name, [None] * len(order))
        frame[name] = np.array(values, dtype=kind)[order]
    return frame


def _frame(kind: str, series: list[dict[str, Any]]) -> Frame:
    """Raw readings in the order of columns that every store has."""
    frame = _columns(series, BY_NAME[kind])
    lead = [n for n in ("device", "ts", "controller", "quality") if n in frame]
    return {name: frame[name] for name in (*lead, *BY_NAME[kind])}


def _with_counts(kind: str, values: Frame, counted: Frame) -> Frame:
    """Quarters with how many readings were good; those without any value too."""
    both = _joined([values, counted])
    if not length(both):
        return {}
    keys = [both[name] for name in ("device", "controller")]
    groups = _groups(both["ts"], *keys)
    frame: Frame = {name: both[name][groups.first] for name in ("device", "controller")}
    frame["ts"] = both["ts"][groups.first]
    frame["n"] = groups.sum(both["n"])
    for name in BY_NAME[kind]:
        frame[name] = groups.sum(
            both[name]
        )  # there is one value in each group, or none
    return frame


def _in_days(kind: str, quarters: Frame) -> Frame:
    """Quarters in days; means are weighed by the readings behind them."""
    if not length(quarters):
        return {}
    day = quarters["ts"] // DAY_MS * DAY_MS
    groups = _groups(day, quarters["device"])
    first = groups.first
    frame: Frame = {
        "device": quarters["device"][first],
        "ts": day[first],
        "controller": quarters["controller"][first],
        "n": groups.sum(quarters["n"]),
    }
    for q in KINDS[kind]:
        values = quarters[q.name]
        if q.over_time == "mean":
            frame[q.name] = groups.mean(values, quarters["n"])
        else:
            frame[q.name] = getattr(groups, q.over_time)(values)
    return frame


def _together(
    kind: str, frame: Frame, times: Array, quantities: Iterable[str]
) -> Frame:
    """Devices together at each time: powers add up, levels have a mean."""
    if not length(frame):
        return frame
    groups = _groups(times)
    found: Frame = {
        "ts": times[groups.first],
        "devices": groups.sum(frame["devices"]),
        "answered": groups.sum(frame["answered"]),
    }
    for name in quantities:
        if BY_NAME[kind][name].over_devices == "sum":
            found[name] = groups.sum(frame[name])
        else:
            found[name] = groups.mean(frame[name], frame["devices"])
    return found


class _groups:  # noqa: N801 - a function with several results
    """Rows that share their keys, in the order of the keys."""

    def __init__(self, *keys: Array) -> None:
        codes = [np.unique(key.astype(str) if key.dtype == object else key, return_inverse=True)[1] for key in keys]  # fmt: skip
        table = np.stack(codes, axis=1)
        _, self.first, self._of = np.unique(
            table, axis=0, return_index=True, return_inverse=True
        )
        self._n = len(self.first)

    def sum(self, values: Array) -> Array:
        """Sum of each group; NaN where it has no value at all."""
        known = ~np.isnan(values)
        found = np.bincount(self._of[known], values[known], self._n).astype(float)
        found[np.bincount(self._of[known], minlength=self._n) == 0] = np.nan
        return found

    def mean(self, values: Array, weights: Array) -> Array:
        """Weighted mean of each group."""
        known = ~np.isnan(values)
        total = self.sum(np.where(known, values * weights, np.nan))
        weight = self.sum(np.where(known, weights, np.nan))
        found: Array = np.divide(
            total, weight, out=np.full(self._n, np.nan), where=weight > 0
        )
        return found

    def last(self, values: Array) -> Array:
        """Last value of each group; rows are ordered by time."""
        known = np.flatnonzero(~np.isnan(values))
        found = np.full(self._n, np.nan)
        found[self._of[known]] = values[known]
        return found

    def max(self, values: Array) -> Array:
        """Largest value of each group."""
        found = np.full(self._n, np.nan)
        np.fmax.at(found, self._of, values)
        return found


def _joined(parts: list[Frame]) -> Frame:
    """Frames one after the other; a column that one lacks has no values there."""
    parts = [part for part in parts if length(part)]
    if not parts:
        return {}
    names = list(dict.fromkeys(name for part in parts for name in part))
    return {
        name: np.concatenate(
            [p[name] if name in p else np.full(length(p), np.nan) for p in parts]
        )
        for name in names
    }


def _before(frame: Frame, until_ms: int) -> Frame:
    return _where(frame, lambda ts: ts < until_ms)


def _within(frame: Frame, since_ms: int) -> Frame:
    return _where(frame, lambda ts: ts >= since_ms)


def _where(frame: Frame, test: Any) -> Frame:
    if not length(frame):
        return frame
    kept = test(frame["ts"])
    return {name: column[kept] for name, column in frame.items()}


def _rainy(frame: Frame, order: tuple[str, str]) -> Frame:
    """Rows with rain, in order."""
    if "device" not in frame:
        return {"device": np.array([], dtype=object), "ts": np.array([], dtype=np.int64), "rain_mm": np.array([])}  # fmt: skip
    wet = frame["rain_mm"] > 0
    kept = {name: frame[name][wet] for name in ("device", "ts", "rain_mm")}
    index = np.lexsort([kept[name] for name in reversed(order)])
    return {name: column[index] for name, column in kept.items()}


def _split(frame: Frame, oldest_ms: int) -> tuple[Frame, Frame]:
    return _within(frame, oldest_ms), _before(frame, oldest_ms)


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
