"""The border of the API: what is looked at before anything is read, and what comes back."""

import asyncio
import contextlib
import datetime as dt
import json
import time
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from duha_backend import backups
from duha_backend.api import bodies, kept
from duha_backend.api.app import SecurityHeaders, describe
from duha_backend.api.border import Border
from duha_backend.api.fields import Moment
from duha_backend.api.limits import Buckets, Limits, Slots
from duha_backend.app import Backend, Settings
from duha_backend.errors import (
    Conflict,
    Invalid,
    RegistryDown,
    Slow,
    StoreDown,
    TooLarge,
    TooMany,
)
from duha_backend.link import Broker
from duha_contract.clock import Clock
from duha_sim.sewer import sewer

ROLES = ("viewer", "operator", "engineer", "admin")


class Bordered:
    """The application of a backend that does not run, and clients of it."""

    def __init__(self, backend):
        self.backend = backend
        self.app = backend._config.app
        self.tokens = {
            role: backend.registry.new_token(role, role=role) for role in ROLES
        }
        self.transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)

    def client(self, role="engineer", **headers):
        if role is not None:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        base = "http://city.example/api/v1"
        return httpx.AsyncClient(
            transport=self.transport, base_url=base, headers=headers
        )

    async def ask(self, method, path, role="engineer", headers=None, **more):
        async with self.client(role, **(headers or {})) as client:
            return await client.request(method, path, **more)

    async def raw(self, path, headers=(), messages=(), method="POST"):
        """Status of a request, and how many messages of its body were taken."""
        left, sent = list(messages), []

        async def receive():
            return left.pop(0) if left else {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"content-type", b"application/json"), *headers], "client": ("10.0.0.9", 1),
            "server": ("city.example", 80), "scheme": "http", "http_version": "1.1", "root_path": "",
            "asgi": {"version": "3.0"},
        }  # fmt: skip
        await self.app(scope, receive, send)
        return sent[0]["status"] if sent else None, len(messages) - len(left)


@contextlib.asynccontextmanager
async def bordered(folder, **limits):
    settings = Settings(folder, Broker(port=1), limits=Limits(**limits))
    backend = Backend(settings, Clock(time.time))
    try:
        yield Bordered(backend)
    finally:
        backend.registry.close()
        await backend.readings.close()


@pytest.fixture
async def border(tmp_path):
    async with bordered(tmp_path) as made:
        yield made


def part(data=b"", *, more=True):
    return {"type": "http.request", "body": data, "more_body": more}


# -- before anything is read -------------------------------------------------------------


async def test_a_strangers_body_is_not_read(border):
    many = [part(b"1," * 500_000) for _ in range(100)]
    assert await border.raw("/api/v1/overrides", messages=many) == (401, 0)


async def test_a_body_is_counted_as_it_comes(border):
    token = (b"authorization", f"Bearer {border.tokens['engineer']}".encode())
    many = [part(b"[" + b"1," * 100_000) for _ in range(100)]
    status, taken = await border.raw("/api/v1/overrides", [token], many)
    assert (status, taken) == (413, 6)  # 1 MiB, without a word of its length before it


async def test_a_body_whose_length_is_said_is_refused_at_once(border):
    token = (b"authorization", f"Bearer {border.tokens['engineer']}".encode())
    length = (b"content-length", b"2000000")
    assert await border.raw("/api/v1/overrides", [token, length], [part()]) == (413, 0)


async def test_an_upload_is_not_read_before_the_role_is_known(border):
    token = (b"authorization", f"Bearer {border.tokens['operator']}".encode())
    for path in ("/api/v1/assets/import", "/api/v1/rain/import"):
        assert await border.raw(path, [token], [part(b"x" * 1000)]) == (403, 0)


async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path):
    async def never():
        await asyncio.sleep(60)

    with pytest.raises(Slow):
        await bodies.whole(never, 100, 0.01)
    with pytest.raises(TooLarge):
        await bodies.whole(_coming(part(b"x" * 200)), 100, 1)


def _coming(*messages):
    left = list(messages)

    async def receive():
        return left.pop(0)

    return receive


@pytest.mark.parametrize(
    ("body", "deep"),
    [
        (b"[" * 65 + b"]" * 65, 65),
        (b'{"a":' * 50_000, 50_000),
        (b'"' + b"[" * 1000 + b'"', 0),
        (b'["' + b'\\"[' * 1000 + b'"]', 1),
        (b"[]," * 1000, 1),
        (b'"\\"' * 300_000, 0),
    ],
)
def test_depth_is_known_without_parsing(body, deep):
    assert bodies.depth(body) == deep


async def test_deep_json_is_refused_before_it_is_parsed(border):
    answer = await border.ask("POST", "/overrides", content=b"[" * 900 + b"]" * 900)
    assert answer.status_code == 422
    assert "deeper than 64" in answer.json()["detail"]


@pytest.mark.parametrize("text", [r"\u0000", r"\ud800", r"\udc00\ud800"])
async def test_text_that_no_store_takes_is_refused(border, text):
    body = f'{{"name": "{text}", "rated_w": 62}}'
    json_type = {"Content-Type": "application/json"}
    answer = await border.ask("PUT", "/types/LED", headers=json_type, content=body)
    assert answer.status_code == 422
    good = r'{"name": "\ud83d\udca1 \\u0000", "rated_w": 62}'
    answer = await border.ask("PUT", "/types/LED", headers=json_type, content=good)
    assert (answer.status_code, answer.json()["name"]) == (200, "💡 \\u0000")


@pytest.mark.parametrize("path", ["/types/a%00b", "/types/%ff", "/types/x?a=%0d%0aSet-Cookie", "/types/%ed%a0%80"])  # fmt: skip
async def test_an_address_is_text(border, path):
    assert (await border.ask("GET", path)).status_code == 400


# -- how often ---------------------------------------------------------------------------


async def test_who_asks_too_often_waits(tmp_path):
    async with bordered(tmp_path, requests_per_s=1, burst=5) as border:
        found = [await border.ask("GET", "/city", "viewer") for _ in range(7)]
        assert [a.status_code for a in found] == [200] * 5 + [429] * 2
        assert int(found[-1].headers["retry-after"]) >= 1
        assert found[-1].headers["content-type"] == "application/problem+json"
        other = await border.ask("GET", "/city", "operator")
        assert other.status_code == 200


async def test_failed_sign_ins_of_an_address_are_few_counted_and_audited(tmp_path):
    async with bordered(tmp_path, failed_sign_ins=2) as border:
        codes = []
        for token in ("guess", "guess", "guess", border.tokens["viewer"]):
            answer = await border.ask("POST", "/session", None, json={"token": token})
            codes.append(answer.status_code)
        assert codes == [401, 401, 429, 429]
        audit = (await border.ask("GET", "/audit")).json()["items"]
        assert [line["action"] for line in audit] == ["sign_in_failed"] * 2
        metrics = await border.ask("GET", "http://city.example/metrics", "admin")
        assert "duha_failed_sign_ins_total 2.0" in metrics.text


def test_a_bucket_fills_again():
    now = 100.0
    bucket = Buckets(2.0, 3.0, lambda: now)
    for _ in range(3):
        bucket.take("a")
    with pytest.raises(TooMany) as refused:
        bucket.take("a")
    assert refused.value.after_s == 0.5
    bucket.take("b")
    now += 0.5
    bucket.take("a")


def test_buckets_of_many_askers_are_forgotten():
    bucket = Buckets(1.0, 3.0, lambda: 0.0)
    for number in range(2 * Buckets.MOST):
        bucket.take(str(number))
    assert len(bucket._left) == Buckets.MOST


def test_places_are_given_back():
    slots = Slots("exports", 3)
    with slots.taken("a", 2), slots.taken("a", 2):
        with pytest.raises(TooMany), slots.taken("a", 2):
            pass
        with slots.taken("b", 2), pytest.raises(TooMany), slots.taken("c", 2):
            pass
    with slots.taken("c", 2):
        assert slots._taken == {"c": 1}


# -- who may ask from where --------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://city.example:3000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://city.example"}, 204),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://city.example"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 204),
        ({}, 204),
    ],
)
async def test_a_page_of_another_port_changes_nothing(border, headers, status):
    token = border.tokens["engineer"]
    session = border.backend.registry.new_token("e", 2**40 * 1000, "engineer")
    assert token != session
    headers = headers | {"Cookie": f"duha_session={session}"}
    assert (await border.ask("DELETE", "/session", None, headers)).status_code == status


async def test_a_session_is_no_token(border):
    answer = await border.ask("POST", "/session", None, json={"token": border.tokens["viewer"]})  # fmt: skip
    session = answer.cookies["duha_session"]
    again = await border.ask("POST", "/session", None, json={"token": session})
    assert again.status_code == 401


async def _open(border, path, header):
    """A request that stays, and what comes back of it, a message at a time."""
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1)
    here = asyncio.Event()

    async def receive():
        await here.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [header], "client": ("10.0.0.9", 1), "scheme": "http",
        "server": ("city.example", 80), "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0", "spec_version": "2.3"},
    }  # fmt: skip
    return asyncio.create_task(border.app(scope, receive, sent.put)), sent


async def test_two_files_at_a_time_are_written_for_one_asker(border):
    bearer = (b"authorization", f"Bearer {border.tokens['viewer']}".encode())
    path = "/api/v1/assets.csv"
    first, second = [await _open(border, path, bearer) for _ in range(2)]
    for _, sent in (first, second):
        while sent.empty():  # its header waits to be taken: the place is held
            await asyncio.sleep(0.01)
    assert (await border.ask("GET", "/audit.csv", "viewer")).status_code == 429
    assert (await border.ask("GET", "/audit.csv", "operator")).status_code == 200
    assert (await border.ask("GET", "/city", "viewer")).status_code == 200
    for task, sent in (first, second):
        while not task.done() or not sent.empty():
            await sent.get()
            await asyncio.sleep(0.01)
    assert (await border.ask("GET", "/audit.csv", "viewer")).status_code == 200


async def test_event_streams_of_a_session_are_few_and_end_with_it(border, monkeypatch):
    monkeypatch.setattr("duha_backend.api.now.ASK_EVERY_S", 0.0)
    registry, live = border.backend.registry, border.backend.live
    session = registry.new_token("e", round(time.time() * 1000) + 60_000, "viewer")
    cookie = (b"cookie", f"duha_session={session}".encode())
    streams = [await _open(border, "/api/v1/events", cookie) for _ in range(5)]
    statuses = [(await sent.get())["status"] for _, sent in streams]
    assert sorted(statuses) == [200] * 4 + [429]
    registry.drop_token(session)
    for task, sent in streams:
        while not task.done():
            await live.tick(1000)
            while not sent.empty():
                sent.get_nowait()
            await asyncio.sleep(0.01)
        assert task.exception() is None


async def test_a_dry_run_that_starts_a_process_is_audited(border):
    body = {"name": "M", "inp": sewer(2, ["SR-01"])}
    answer = await border.ask("PUT", "/models/m?dry_run=true", json=body)
    assert answer.status_code in (200, 422), answer.text
    (line,) = (await border.ask("GET", "/audit")).json()["items"]
    assert (line["action"], line["target"]) == ("try model", "m")


# -- what comes back ---------------------------------------------------------------------


async def behind(border, error):
    """The answer where what is behind the border raises an error."""

    async def failing(scope, receive, send):
        raise error

    services = border.app.state.services
    app = SecurityHeaders(Border(failing, services, Limits()))
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": f"Bearer {border.tokens['viewer']}"}
    async with httpx.AsyncClient(transport=transport, headers=headers) as client:
        return await client.get("http://city.example/api/v1/city")


async def test_an_error_that_was_not_foreseen_tells_a_number_only(border, caplog):
    answer = await behind(border, ZeroDivisionError("the inner life"))
    problem = answer.json()
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "content-security-policy" in answer.headers
    assert "inner" not in answer.text
    assert problem["number"] in caplog.text
    assert "the inner life" in caplog.text


@pytest.mark.parametrize(
    ("error", "after_s"), [(StoreDown("no room", 7.2), "8"), (RegistryDown("away"), "1")]
)  # fmt: skip
async def test_what_is_down_says_when_to_come_again(border, error, after_s):
    answer = await behind(border, error)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, after_s)


async def test_answers_are_not_kept_by_browsers(border):
    assert (await border.ask("GET", "/city")).headers["cache-control"] == "no-store"
    refused = await border.ask("GET", "/city", None)
    assert refused.headers["cache-control"] == "no-store"


async def test_large_answers_are_packed(border):
    answer = await border.ask("GET", "http://city.example/api/openapi.json")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.json()["info"]["title"] == "Duha"


# -- fields ------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1999-12-31", 1e300, "nan"])  # fmt: skip
def test_a_time_is_of_this_century(given):
    with pytest.raises(ValidationError):
        TypeAdapter(Moment).validate_python(given)


def test_a_time_is_in_utc_with_or_without_a_zone():
    told = TypeAdapter(Moment)
    naive = told.validate_python("2026-06-01T12:00:00")
    zoned = told.validate_python("2026-06-01T14:00:00+02:00")
    assert naive == zoned
    assert naive.isoformat() == zoned.isoformat() == "2026-06-01T12:00:00+00:00"


async def test_maintenance_of_a_gauge_says_of_which_zone_its_times_are(border):
    spell = {"start": "2026-06-01T10:00:00Z", "end": "2026-06-01T13:00:00+02:00"}
    answer = await border.ask("PUT", "/gauges/SR-01", json={"maintenance": [spell]})
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["maintenance"]
    assert found["end"] == "2026-06-01T11:00:00Z"
    for name in spell:
        bad = {"maintenance": [spell | {name: "2026-06-01T10:30:00"}]}
        answer = await border.ask("PUT", "/gauges/SR-01", json=bad)
        assert answer.status_code == 422
        assert "zone" in answer.json()["detail"]


def _unbounded(document, schema, where, *, text, seen=()):
    """Every place of a schema that takes any number, any list or any text."""
    if "$ref" in schema:
        if schema["$ref"] in seen:
            return
        seen = (*seen, schema["$ref"])
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    inner = [(where, each) for each in schema.get("anyOf", ())]
    kind = schema.get("type") if not {"enum", "const"} & set(schema) else None
    keys = set(schema)
    if kind in ("integer", "number"):
        if not (keys & {"minimum", "exclusiveMinimum"} and keys & {"maximum", "exclusiveMaximum"}):  # fmt: skip
            yield where
    elif kind == "string":
        if text and not keys & {"maxLength", "format"}:
            yield where
    elif kind == "array":
        if "maxItems" not in keys:
            yield where
        inner += [(f"{where}[]", e) for e in [schema.get("items", {}), *schema.get("prefixItems", ())]]  # fmt: skip
    elif kind == "object":
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            inner.append((f"{where}.*", more))
            if "maxProperties" not in keys:
                yield where
        inner += [(f"{where}.{n}", e) for n, e in schema.get("properties", {}).items()]
    for place, each in inner:
        yield from _unbounded(document, each, place, text=text, seen=seen)


def test_every_field_and_parameter_is_bounded():
    document, found = describe(), []
    for path, item in document["paths"].items():
        for method, call in item.items():
            for one in call.get("parameters", ()):
                where = f"{method} {path} {one['name']}"
                if one["in"] != "cookie":
                    found += _unbounded(document, one["schema"], where, text=True)
            body = call.get("requestBody", {}).get("content", {})
            if "application/json" in body:
                schema = body["application/json"]["schema"]
                found += _unbounded(document, schema, f"{method} {path}", text=False)
    assert found == []


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e400", "1e308", "9" * 5000])
async def test_numbers_of_documents_are_finite(border, number):
    json_type = {"Content-Type": "application/json"}
    for path, name in (("stretches/t", "length_m"), ("types/LED", "rated_w")):
        body = f'{{"name": "x", "{name}": {number}}}'
        answer = await border.ask("PUT", f"/{path}", headers=json_type, content=body)
        assert answer.status_code in (400, 422), answer.text


# -- secrets and formulas ----------------------------------------------------------------

SECRET = "https://user:hunter2@hooks.example/in/xoxb0123456789abcdefghij?key=s3cret"


async def test_the_secrets_of_a_channel_do_not_come_out(border):
    body = {"kind": "webhook", "to": SECRET, "severities": ["high"]}
    texts = [(await border.ask("PUT", "/channels/desk", json=body)).text]
    paths = ("/channels", "/channels/desk", "/channels/desk/history", "/audit", "/audit.csv")  # fmt: skip
    texts += [(await border.ask("GET", path, "viewer")).text for path in paths]
    for text in texts:
        assert "hooks.example" in text
        for secret in ("hunter2", "s3cret", "xoxb"):
            assert secret not in text


async def test_a_channel_that_comes_back_as_it_was_shown_keeps_its_address(border):
    body = {"kind": "webhook", "to": SECRET}
    await border.ask("PUT", "/channels/desk", json=body)
    shown = (await border.ask("GET", "/channels/desk")).json()["to"]
    put = {"kind": "webhook", "to": shown, "severities": ["low"]}
    assert (await border.ask("PUT", "/channels/desk", json=put)).status_code == 200
    from duha_backend.alarms.channels import Channel

    found = border.backend.registry.find(Channel, "desk")
    assert (found.to, found.severities) == (SECRET, ("low",))
    other = {"kind": "webhook", "to": "https://***@elsewhere.example/"}
    assert (await border.ask("PUT", "/channels/desk", json=other)).status_code == 422


async def test_no_cell_of_the_audit_log_is_a_formula(border):
    border.backend.registry.record(0, "=cmd|' /C calc'!A0", "a", "@t", "-1", why="+1+1")
    line = (await border.ask("GET", "/audit.csv")).text.splitlines()[1].split(",")
    assert line[1].startswith("'=cmd")
    assert line[4:6] == ["'@t", "-1"]
    assert line[-1] == "'+1+1"


async def test_files_are_written_in_small_pieces():
    n = 12_000
    frame = {"device": np.array(["=L1"] * n, dtype=object), "ts": np.arange(n) * 1000, "power_w": np.full(n, np.nan)}  # fmt: skip

    async def frames():
        yield frame

    parts = [part async for part in kept._csv(frames())]
    assert [part.count("\n") for part in parts] == [1, *[1000] * 12]
    assert parts[1].startswith("'=L1,1970-01-01T00:00:00.000Z,\r\n")
    lines = b"".join([part async for part in kept._json(frames())]).splitlines()
    assert len(lines) == n
    assert json.loads(lines[-1]) == {"device": "=L1", "ts": "1970-01-01T03:19:59.000Z", "power_w": None}  # fmt: skip


# -- backups -----------------------------------------------------------------------------


async def test_a_backup_has_a_manifest_with_digests(border):
    answer = await border.ask("POST", "/backups", "admin")
    assert answer.status_code == 201
    (folder,) = (border.backend.settings.data / "backups").iterdir()
    told = json.loads((folder / backups.MANIFEST).read_text())
    assert set(told["files"]) == {"readings.duckdb", "registry.db"}
    assert all(len(one["sha256"]) == 64 and one["bytes"] for one in told["files"].values())  # fmt: skip


async def test_a_backup_that_failed_leaves_nothing_and_does_not_count(tmp_path):
    async def half(folder):
        (folder / "readings.duckdb").write_bytes(b"half")
        return "readings.duckdb"

    async def full(_):
        raise OSError(28, "No space left on device")

    begun = dt.datetime.now(dt.UTC)
    with pytest.raises(StoreDown, match="No space left"):
        await backups.make(tmp_path, begun, (half, full))
    assert list(tmp_path.iterdir()) == []
    assert backups.last(tmp_path) is None
    (
        tmp_path / "20260101T000000000000Z"
    ).mkdir()  # as one that broke off was left before
    assert backups.last(tmp_path) is None
    folder, files = await backups.make(tmp_path, begun, (half,))
    assert (files, backups.last(tmp_path)) == (["readings.duckdb"], begun)
    assert folder.is_dir()


async def test_where_there_is_nothing_to_copy_there_is_no_backup(tmp_path):
    async def none(_):
        return None

    begun = dt.datetime.now(dt.UTC)
    with pytest.raises(Conflict, match="nothing to copy"):
        await backups.make(tmp_path, begun, (none,))
    assert list(tmp_path.iterdir()) == []


async def test_what_a_backup_left_that_was_killed_goes_at_the_next_start(tmp_path):
    part = tmp_path / "backups" / "20260101T000000000000Z.part"
    part.mkdir(parents=True)
    async with bordered(tmp_path):
        assert not part.exists()


# -- times and numbers that overflow -----------------------------------------------------


@pytest.mark.parametrize("name", ["minutes", "until"])
async def test_an_override_ends_within_reason(border, name):
    value = {"minutes": 1e308, "until": "9999-12-31T23:59:59Z"}[name]
    body = {"target": {"kind": "city", "id": ""}, "level": 5, name: value}
    assert (await border.ask("POST", "/overrides", json=body)).status_code == 422


def test_a_moment_of_an_explanation_is_of_this_century():
    with pytest.raises(ValidationError):
        TypeAdapter(Moment).validate_python("9999-12-31")


async def test_a_row_that_examine_cannot_read_names_what_is_wrong():
    with pytest.raises(Invalid, match="NUL"):
        await bodies.examine(b"\x00" * (1 << 17))
