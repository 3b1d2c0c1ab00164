"""Requests that nobody would send, of every role: no answer is an error of the API's own."""

import asyncio
import http.client
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duha_backend.assets import parse
from duha_backend.duck import DuckReadings
from duha_backend.registry import Registry, Role
from duha_backend.validate import Columns, Examined
from duha_contract.messages import Batch
from duha_contract.quantities import KINDS
from duha_sim.streets import generate, geojson
from tests import servers
from tests.api_cases import STREAMS, cases, furnish

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

CASES = int(os.environ.get("DUHA_TEST_API_CASES", "1500"))
ROLES: tuple[Role | None, ...] = ("engineer", "admin", "operator", "viewer", None)


class City:
    """A running backend, and a token of each role."""

    def __init__(self, port, tokens, process, log):
        self.port = port
        self.tokens = tokens
        self.process = process
        self.log = log
        self._link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def send(self, role, method, target, headers, body):
        """Status, headers and body of an answer; a connection may end after one."""
        for attempt in range(2):
            try:
                return self._send(role, method, target, dict(headers), body)
            except (OSError, http.client.HTTPException):
                self._link.close()
                if attempt:
                    raise
        raise AssertionError

    def _send(self, role, method, target, headers, body):
        if role is not None:
            headers["Authorization"] = f"Bearer {self.tokens[role]}".encode()
        if body is None and method in ("POST", "PUT"):
            body = b""
        self._link.putrequest(
            method, target, skip_host="Host" in headers, skip_accept_encoding=True
        )
        if body is not None:
            headers["Content-Length"] = b"%d" % len(body)
        for name, value in headers.items():
            self._link.putheader(name, value)
        self._link.endheaders(body)
        answer = self._link.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    def ask(self, method, path, body):
        raw = None if body is None else json.dumps(body).encode()
        json_type = {"Content-Type": b"application/json"}
        status, _, text = self.send("admin", method, f"/api/v1{path}", json_type, raw)
        assert status < 300, (method, path, text)
        return json.loads(text) if text else None

    def document(self):
        return json.loads(self.send(None, "GET", "/api/openapi.json", {}, None)[2])


async def fill(folder, assets):
    """Two hours of readings of everything."""
    store = DuckReadings(folder / "readings.duckdb")
    now = round(time.time() * 1000) // 60_000 * 60_000
    times = list(range(now - 120 * 60_000, now, 60_000))
    for number, asset in enumerate(assets):
        names = [quantity.name for quantity in KINDS.get(asset.kind, ())]
        values = {name: [1.0 + number] * len(times) for name in names}
        whose = {"device": [asset.id] * len(times), "ts": times, "quality": ["good"] * len(times)}  # fmt: skip
        batch = Batch(1, "boot", asset.id, 1, "trusted")
        table = Columns.of(asset.kind, whose | values)
        if names:
            await store.write([Examined(asset.cabinet or "RVO-001", batch, [table])], now)  # fmt: skip
    await store.close()


@pytest.fixture
def city(running):
    yield running
    running._link.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("city")
    registry = Registry.in_folder(folder)
    found = parse(json.dumps(geojson(generate(2, 5, 2))).encode())
    registry.put_assets(found.assets, found.streets)
    asyncio.run(fill(folder, found.assets))
    tokens = {role: registry.new_token(role, role=role) for role in ROLES if role}
    registry.close()
    port = servers.free_port()
    command = [
        sys.executable, "-m", "duha", "backend", "run", "--data", str(folder), "--port", str(port),
        "--broker", "127.0.0.1:1", "--requests-per-s", "100000",
    ]  # fmt: skip
    with (folder / "log").open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:  # fmt: skip
        servers.until_it_answers(f"http://127.0.0.1:{port}/api/v1/health")
        made = City(port, tokens, process, folder / "log")
        try:
            yield made
        finally:
            process.terminate()
            process.wait(20)


def test_no_request_is_answered_with_an_error_of_ours(city):
    ids, document = furnish(city.ask), city.document()
    codes: Counter[int] = Counter()
    wrong = []
    asked = itertools.islice(cases(document, ids, 20), CASES)
    for case, role in zip(asked, itertools.cycle(ROLES), strict=False):
        status, headers, text = city.send(
            role, case.method, case.target, case.headers, case.body
        )
        codes[status] += 1
        if status >= 500:
            wrong.append((case.method, case.target[:200], (case.body or b"")[:200], text[:200]))  # fmt: skip
        elif status >= 400 and case.path.startswith("/api/"):
            assert headers["content-type"] == "application/problem+json"
        if role is None and case.path not in ("/api/v1/health", "/api/v1/session"):
            assert 400 <= status < 500, case
    assert wrong == [], f"{len(wrong)} of {CASES}"
    assert city.process.poll() is None
    assert codes[200] > CASES / 10  # they are near to what could be right
    assert codes[422] > CASES / 20


def test_no_request_of_a_generator_that_knows_the_document_is_either(city):
    schemathesis, requests = map(pytest.importorskip, ("schemathesis", "requests"))
    schema = schemathesis.openapi.from_dict(city.document())
    calls = [
        found.ok() for found in schema.get_all_operations() if found.ok().path not in STREAMS
    ]  # fmt: skip

    @settings(
        max_examples=max(100, CASES // 10), deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.sampled_from(calls).flatmap(lambda call: call.as_strategy()))
    def asked(case):
        given = case.as_transport_kwargs(base_url=f"http://127.0.0.1:{city.port}")
        request = requests.Request(**given).prepare()
        target = request.url.split(str(city.port), 1)[1]
        body = request.body.encode() if isinstance(request.body, str) else request.body
        headers = {k: v for k, v in request.headers.items() if k != "Content-Length"}
        status, _, text = city.send("engineer", request.method, target, headers, body)
        assert status < 500, text[:300]

    asked()
