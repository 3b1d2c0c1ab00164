"""Requests that an API must answer without an error of its own, made from its OpenAPI document.

Each request is one that could succeed, with real ids, in which one or two places hold a
value that nobody would send: in the path, the query, a header, a field of the body, or the
body itself.
"""

import itertools
import json
import random
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from duha_sim.sewer import sewer

STREAMS = ("/api/v1/events",)
"""Answers that do not end by themselves; they are asked for elsewhere."""


class Case(NamedTuple):
    """One request.

    Attributes
    ----------
    method, path, query : str
        Path and query are encoded as they are sent; the query without its "?".
    headers : dict of str to bytes
        Beside those that say who asks.
    body : bytes or None
        What is sent.
    """

    method: str
    path: str
    query: str
    headers: dict[str, bytes]
    body: bytes | None

    @property
    def target(self) -> str:
        """What stands in the request line."""
        return f"{self.path}?{self.query}" if self.query else self.path


class Raw(str):
    """A piece of JSON that is sent as it is written here."""

    __slots__ = ()


_DEEP = 5000
TOKENS = tuple(
    Raw(text)
    for text in (
        "Infinity", "-Infinity", "NaN", "1e308", "-1e308", "1e400", "5e-324", "-0.0",
        str(10**30), str(-(10**30)), "9" * 5000, "-1", "0", "0.5",
        "9223372036854775807", "9223372036854775808", "null", "true", "[]", "{}", '""',
        '" "', r'"\u0000"', r'"a\u0000b"', r'"\ud800"', r'"\udc00\ud800"', r'"\u202e"',
        '"=1+1"', '"../../etc/passwd"', '"+#/$"', '"\' OR 1=1 --"', '"nan"', '"inf"',
        '"1e308"', '"-1"', '"25:99"', '"sunset+1e308"', '"sunset-99999999999999999999"',
        '"0001-01-01T00:00:00Z"', '"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59Z"',
        '"9999-12-31T23:59:59-23:59"', '"2026-10-25T02:30:00"', '"1969-12-31T23:59:59Z"',
        '"0001-01-01"', '"9999-12-31"', '"2024-02-30"', '"P1D"', "253402300800", "-62135596800",
        "[null]", "[[]]", "[{}]", '{"": null}', r'{"\ud800": 1}', '{"a": {"a": {"a": {}}}}',
        "[1, 2]", "[[0, 0], [0, 0]]", "[[1e308, -1e308], [-1e308, 1e308]]",
        "[" * _DEEP + "]" * _DEEP, '{"a":' * _DEEP + "1" + "}" * _DEEP,
        "[" + "0," * 20_000 + "0]", '"' + "x" * 65 + '"', '"' + "x" * 1_000_000 + '"',
        '"' + "ž" * 300 + '"',
    )
)  # fmt: skip
"""Values for a field of a JSON body."""
WORDS = (
    "", "%00", "a%00b", "%ff", "%ed%a0%80", "%F0%9F%92%A1", "%20", "%2e%2e%2f%2e%2e", "..", "%0d%0a",
    "nan", "inf", "-inf", "1e308", "-1e308", "1e400", "5e-324", "-1", "0", str(10**30), "9" * 5000,
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "true", "null", "None",
    "*", "%25", "%27", "'%20OR%201=1--", "a%2Cb%2C%2C", "=1%2B1", "x" * 65, "x" * 9000,
    "0001-01-01T00:00:00Z", "0001-01-01T00:00:00%2B23:59", "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-23:59", "2026-10-25T02:30:00", "1969-12-31T23:59:59Z", "0001-01-01", "9999-12-31",
    "2026-01-01T00:00:00.123456789Z", "2026-02-30", "253402300800", "-62135596800000", "99999999999999",
)  # fmt: skip
"""Values for a place in a path or a query, as they are sent."""
BODIES = (
    b"", b"{", b"[", b"null", b"[]", b"{}", b"0", b"\xff\xfe", b"\x00", b'"\xed\xa0\x80"',
    b"[" * 100_000, b'{"a":' * 50_000, b"[" * 900 + b"]" * 900, b"1" * 5000, b'{"a": 1, "a": 2}',
    b'"' + b"a" * 1_100_000 + b'"', b"a=1&b=2", b'{"\\ud800": "\\ud800"}', b"\xef\xbb\xbf{}",
)  # fmt: skip
"""Bodies of any call."""
FILES = (
    *BODIES,
    b"id,kind,latitude,longitude\nL1,luminaire,49.7,13.3\n",
    b"id,kind,latitude,longitude\nL1,luminaire,nan,inf\n",
    b"id,kind,latitude,longitude\nL1,luminaire,1e308,1e400\n\x00,\x00,\x00,\x00\n",
    b'id,kind,latitude,longitude\nL1,"' + b"a" * 140_000 + b'",1,1\n',
    b"id,id,id,id\n1,2,3,4\n", b"id;kind;latitude;longitude\n;;;\n", b"\n\n\n", b'"',
    b'id,kind,latitude,longitude,floor\n"L1\nluminaire,1,1,-1',
    b'{"features": 5}', b'{"features": null}', b'{"features": {"a": 1}}', b'{"features": [null, 1, "a", []]}',
    b'{"features": [{"properties": [1]}]}', b'{"features": [{"properties": {"kind": ["street"]}}]}',
    b'{"features": [{"properties": {"kind": "street"}}]}',
    b'{"features": [{"properties": {"kind": "street"}, "geometry": 5}]}',
    b'{"features": [{"properties": {"kind": "street"}, "geometry": {"coordinates": [[NaN, 1e400], [1, 2]]}}]}',
    b'{"features": [{"geometry": {"type": "Point", "coordinates": []}, "properties": {"id": "a"}}]}',
    b'{"features": [{"geometry": {"type": "Point", "coordinates": [Infinity, NaN]},'
    b' "properties": {"id": "L9", "kind": "luminaire"}}]}',
    b'{"features": [{"geometry": [1], "properties": {"id": {"a": 1}}}]}', b'{"features": ' + b"[" * 5000,
    b'{"timeSeries": 5}', b'{"timeSeries": [null]}', b'{"timeSeries": [{"header": null}]}',
    b'{"timeZone": "1e308", "timeSeries": []}', b'{"timeZone": 24, "timeSeries": []}',
    b'{"timeZone": "nan", "timeSeries": []}', b'{"timeSeries": [{"header": {"locationId": ["a"]}, "events": 7}]}',
    b'{"timeSeries": [{"header": {"locationId": "SRA-01", "parameterId": "P"}, "events":'
    b' [{"date": "0001-01-01", "time": "00:00:00", "value": "1", "flag": "9999999999999999999999"}]}]}',
    b'{"timeSeries": [{"header": {"locationId": "SRA-01", "parameterId": "P", "units": "mm"}, "events":'
    b' [{"date": "9999-12-31", "time": "23:59:59", "value": "1e308", "flag": "0"}]}]}',
    b"SRA-01 99999999999 1 1 0 0 1\n", b"SRA-01 9999 12 31 23 59 1\n", b"SRA-01 2026 1 1 0 0 nan\n",
    b"SRA-01 2026 1 1 0 0 1e308\n", b"gauge,time,rain_mm\n", b"gauge,time,rain_mm\nSRA-01,9999-12-31T23:59:59-23:59,1\n",
    b"gauge,time,rain_mm\nSRA-01,0001-01-01,nan\n", b"gauge,time,rain_mm\nSRA-01,2026-01-01T00:00:00Z,inf\n",
    b'gauge,time,rain_mm\n"' + b"a" * 140_000 + b'",1,1\n', b"gauge,time,rain_mm\n\x00,\x00,\x00\n",
)  # fmt: skip
"""Bodies of calls that take a file."""
HEADERS: tuple[dict[str, bytes], ...] = (
    {"If-Match": b""}, {"If-Match": b"*"}, {"If-Match": b'"'}, {"If-Match": b'W/"x"'},
    {"If-Match": b"\xff\xfe"}, {"If-Match": b"a" * 7000}, {"If-Match": b'"0123456789abcdef"'},
    {"If-None-Match": b"*"}, {"Range": b"bytes=0-0,-1"}, {"Accept-Encoding": b"gzip;q=nan"},
    {"Accept-Encoding": b"identity"}, {"Accept": b"\xff"}, {"Cookie": b"duha_session=\xff; ;=;"},
    {"Cookie": b"duha_session=" + b"a" * 5000}, {"Origin": b"null"}, {"Origin": b"http://[::1"},
    {"Sec-Fetch-Site": b"cross-site"}, {"X-Forwarded-For": b"6.6.6.6"}, {"Content-Type": b"text/plain"},
    {"Content-Type": b"application/json; charset=\xff"}, {"Content-Type": b"multipart/form-data"},
    {"Content-Type": b""}, {"Host": b"[::1"}, {"Host": b"\xff"}, {"Expect": b"200-ok"},
    {"Content-Encoding": b"gzip"}, {"Forwarded": b"for=\xff"}, {"Last-Event-ID": b"\xff"},
)  # fmt: skip
"""Headers that are unusual, or wrong."""


def cases(
    openapi: dict[str, Any], ids: dict[str, list[str]], seed: int
) -> Iterator[Case]:
    """Requests without end: each call of the API in turn, each time another way.

    Parameters
    ----------
    openapi : dict
        The document of the API.
    ids : dict
        Real ids by the name of a parameter or field, or by the part of the path before it.
    seed : int
        The same requests come of the same seed.
    """
    chance = random.Random(seed)
    maker = _Maker(openapi, ids, chance)
    calls = [
        (method, path)
        for path, item in openapi["paths"].items()
        for method in item
        if path not in STREAMS
    ]
    for turn in itertools.count():
        chance.shuffle(calls)
        for method, path in calls:
            # What is there stays for a while, so that the others find it.
            if method != "delete" or turn % 8 == 7:
                yield maker.case(method, path, plain=turn == 0)


class _Maker:
    """Makes requests of a document."""

    def __init__(
        self, openapi: dict[str, Any], ids: dict[str, list[str]], chance: random.Random
    ) -> None:
        self._openapi = openapi
        self._ids = ids
        self._chance = chance

    def case(self, method: str, path: str, *, plain: bool) -> Case:
        """A request of a call; `plain`: one that is as it should be."""
        call = self._openapi["paths"][path][method]
        parameters = [self._resolved(one) for one in call.get("parameters", ())]
        places = {
            p["name"]: self._word(p["schema"], p["name"], path)
            for p in parameters
            if p["in"] == "path"
        }
        asked = {
            p["name"]: self._word(p["schema"], p["name"], path)
            for p in parameters
            if p["in"] == "query" and (p.get("required") or self._chance.random() < 0.3)
        }
        headers: dict[str, bytes] = {}
        body, is_file = self._body(call, method, path)
        if not plain:
            named = [p["name"] for p in parameters if p["in"] == "query"]
            for _ in range(self._chance.choice((1, 1, 1, 2))):
                body = self._spoil(places, asked, named, headers, body, is_file=is_file)
        filled = path
        for name, word in places.items():
            filled = filled.replace("{" + name + "}", word or "%20")
        query = "&".join(f"{name}={word}" for name, word in asked.items())
        if isinstance(body, bytes) or body is None:
            return Case(method.upper(), filled, query, headers, body)
        headers.setdefault("Content-Type", b"application/json")
        return Case(
            method.upper(),
            filled,
            query,
            headers,
            dumped(body).encode("utf-8", "surrogatepass"),
        )

    def _body(self, call: dict[str, Any], method: str, path: str) -> tuple[Any, bool]:
        """A body that could be right, and whether it is a file."""
        content = call.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            return self.value(content["application/json"]["schema"], "", path), False
        if method == "post" and path.endswith("/import"):
            return self._chance.choice(FILES), True
        return None, False

    def _spoil(
        self, places: dict[str, str], asked: dict[str, str], named: list[str],
        headers: dict[str, bytes], body: Any, *, is_file: bool,
    ) -> Any:  # fmt: skip
        """Put a value that nobody would send somewhere; returns the body."""
        ways = ["header"]
        ways += ["path"] * (2 * bool(places)) + ["query"] * (3 * bool(named))
        if body is not None:
            ways += ["whole"] + ["field"] * 6
        way = self._chance.choice(ways)
        if way == "path":
            places[self._chance.choice(list(places))] = self._chance.choice(WORDS)
        elif way == "query":
            asked[self._chance.choice(named)] = self._chance.choice(WORDS)
        elif way == "header":
            headers |= self._chance.choice(HEADERS)
        elif way == "whole" or is_file or isinstance(body, bytes):
            body = self._chance.choice(FILES if is_file else BODIES)
        else:
            body = self._spoiled(body)
        return body

    def _spoiled(self, body: Any) -> Any:
        """A body with one of its values, at any depth, replaced."""
        spots = list(_spots(body))
        if not spots or self._chance.random() < 0.03:
            return self._chance.choice(TOKENS)
        holder, key = self._chance.choice(spots)
        if isinstance(holder, dict) and self._chance.random() < 0.1:
            odd = self._chance.choice(
                ("", "\x00", "\ud800", "x" * 2000, "id", "__class__")
            )
            holder[odd] = holder[key]
        elif isinstance(holder, dict) and self._chance.random() < 0.1:
            del holder[key]
        else:
            holder[key] = self._chance.choice(TOKENS)
        return body

    def _word(self, schema: dict[str, Any], name: str, path: str) -> str:
        value = self.value(schema, name, path)
        text = value if isinstance(value, str) else json.dumps(value)
        return urllib.parse.quote(text.strip("[]"), safe="")

    def value(self, schema: dict[str, Any], name: str, path: str) -> Any:
        """A value of a schema that could be right, with real ids where it names something."""
        schema = self._resolved(schema)
        if real := self._real(name, path, schema):
            return real
        for key in ("enum", "examples"):
            if schema.get(key):
                return _copied(self._chance.choice(schema[key]))
        if "const" in schema:
            return schema["const"]
        if "example" in schema and self._chance.random() < 0.5:
            return _copied(schema["example"])
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return self.value(self._chance.choice(schema[key]), name, path)
        make = getattr(self, f"_{schema.get('type', 'any')}", None)
        return make(schema, name, path) if make else None

    def _real(self, name: str, path: str, schema: dict[str, Any]) -> Any:
        if schema.get("type") != "string" or {"enum", "const", "format"} & set(schema):
            return None
        placed = "{" + name + "}"
        before = path.split(f"/{placed}", maxsplit=1)[0].rsplit("/", 1)[-1]
        keys = (
            [before] if placed in path and name in ("name", "device", "target") else []
        )
        for key in (*keys, name, f"{name}s"):
            if self._ids.get(key):
                return self._chance.choice(self._ids[key])
        return None

    def _object(self, schema: dict[str, Any], name: str, path: str) -> dict[str, Any]:
        if set(schema.get("properties", ())) == {"kind", "id"}:
            kind, thing = self._chance.choice(self._ids["targets"]).split(" ")
            return {"kind": kind, "id": thing}
        needed = schema.get("required", ())
        made = {
            key: self.value(each, key, path)
            for key, each in schema.get("properties", {}).items()
            if key in needed or self._chance.random() < 0.6
        }
        more = schema.get("additionalProperties")
        if isinstance(more, dict) and not made:
            key = self._chance.choice(self._ids.get(name, ["example"]))
            made[key] = self.value(more, name, path)
        return made

    def _array(self, schema: dict[str, Any], name: str, path: str) -> list[Any]:
        if "prefixItems" in schema:
            return [self.value(each, "", path) for each in schema["prefixItems"]]
        n = max(schema.get("minItems", 0), self._chance.choice((0, 1, 1, 3)))
        return [self.value(schema.get("items", {}), name, path) for _ in range(n)]

    def _string(self, schema: dict[str, Any], name: str, _: str) -> str:
        if schema.get("format") == "date":
            return self._chance.choice(("2026-11-20", "2026-03-29", "2024-02-29"))
        if schema.get("format") == "date-time":
            return self._chance.choice(
                ("2026-11-26T00:00:00Z", "2026-11-25T22:00:00+01:00")
            )
        if schema.get("minLength", 0) > 1:
            return "x" * int(schema["minLength"])
        return self._chance.choice((name or "x", "x", "ž", "22:00", "M4"))

    def _number(self, schema: dict[str, Any], _: str, __: str) -> float:
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 100))
        low = max(low, 0)
        return round(self._chance.uniform(low, min(high, low + 100)), 3) or 1

    def _integer(self, schema: dict[str, Any], name: str, path: str) -> int:
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        return max(int(self._number(schema, name, path)), int(low))

    def _boolean(self, *_: Any) -> bool:
        return self._chance.random() < 0.5

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            found: Any = self._openapi
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema


def dumped(value: Any) -> str:
    """JSON with its `Raw` pieces as they are."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)}:{dumped(each)}" for key, each in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(dumped(each) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _spots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a value: what holds it, and its key there."""
    keys = (
        value
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else ()
    )
    for key in list(keys):
        yield value, key
        yield from _spots(value[key])


def _copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


# -- a city to ask for -------------------------------------------------------------------

Ask = Callable[[str, str, Any], Any]
"""Method, path without ``/api/v1``, body; gives the answer's JSON."""

_DOCUMENTS: dict[str, dict[str, Any]] = {
    "programmes/evening": {"name": "Evening", "active": [{}], "steps": [{"at": "sunset", "level": 80}]},
    "calendars/city": {"name": "City", "default": "evening"},
    "groups/pair": {"name": "Pair", "rule": {"phase": ["L1"]}},
    "stretches/first": {"name": "First", "normal": "M4", "levels": {"M4": 80}, "length_m": 200, "width_m": 6},
    "types/LED62": {"name": "LED 62 W", "rated_w": 62},
    "tariffs/energy": {"price_per_kwh": 4.5, "source": "contract"},
    "quiet/day": {},
    "channels/desk": {"kind": "webhook", "to": "http://127.0.0.1:9/alarms"},
    "rain-rules/city": {"thresholds": {}},
    "catchments/hill": {"name": "Hill", "latitude": 49.7, "longitude": 13.3, "area_ha": 12},
    "design-rain/city": {
        "name": "Example", "source": "example", "durations_min": [5, 60, 1440], "periods_a": [2, 5],
        "depth_mm": [[6, 8], [15, 21], [33, 45]],
    },
}  # fmt: skip


def furnish(ask: Ask) -> dict[str, list[str]]:
    """Give a city a document of most kinds; returns the ids by which `cases` asks.

    Its assets are there already: luminaires, cabinets and a gauge at the least.
    """
    for path, body in _DOCUMENTS.items():
        ask("PUT", f"/{path}", body)
    target = {"kind": "city", "id": ""}
    ask("PUT", "/assignments/*", {"calendar": "city"})
    override = ask("POST", "/overrides", {"target": target, "level": 50, "minutes": 60})
    items = ask("GET", "/assets", None)["items"]
    of_kind: dict[str, list[str]] = {}
    for item in items:
        of_kind.setdefault(item["kind"], []).append(item["id"])
    lamps, cabinets, gauges = (
        of_kind.get(kind, [])[:5] for kind in ("luminaire", "cabinet", "rain_gauge")
    )
    ask(
        "PUT",
        "/models/sewer",
        {"name": "Sewer", "inp": sewer(5, gauges[:1]), "running": False},
    )
    watch = {
        "name": "Overflow",
        "model": "sewer",
        "object": "OVERFLOW",
        "stages": [0.8, 1.2],
    }
    ask("PUT", "/watches/overflow", watch)
    study = {
        "name": "Both",
        "models": ["sewer"],
        "design": [{"table": "city", "minutes": 10}],
        "tail_h": 0,
    }
    made = ask("POST", "/studies", study)
    ids = {path.split("/")[0]: [path.split("/")[1]] for path in _DOCUMENTS}
    return ids | {
        "luminaires": lamps, "cabinets": cabinets, "cabinet": cabinets, "gauge": gauges, "gauges": gauges,
        "overrides": [override["id"]], "device": lamps + gauges, "members": lamps, "controller": cabinets,
        "target": ["*", *lamps[:1], *cabinets[:1]], "assignments": ["*", *lamps[:1]], "id": lamps + cabinets,
        "kind": ["luminaire", "rain_gauge", "meter", "rain", "luminaire", "roof"],
        "targets": ["city ", *(f"luminaire {name}" for name in lamps), *(f"cabinet {name}" for name in cabinets)], "programme": ["evening"],
        "quantities": ["power_w", "level_actual_pct,power_w"], "default": ["evening"], "calendar": ["city"],
        "table": ["city"], "model": ["sewer", "unknown"], "models": ["sewer"], "watches": ["overflow"],
        "runs": [made["id"]], "studies": [made["id"]], "thing": lamps, "object": lamps,
        "only": cabinets, "inp": [sewer(5, gauges[:1])], "zone": ["Europe/Prague"],
    }  # fmt: skip
