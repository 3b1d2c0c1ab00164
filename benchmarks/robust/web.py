"""Requests that should not be, strangers that ask too much, and a city that is busy."""

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator

from tests.api_cases import STREAMS, Case, cases, furnish
from tests.mutants import CONTROLLERS

from benchmarks.robust.city import CITY, ROLES, Backend, city, quantile
from benchmarks.robust.messages import Sender
from duha_runtime.lag import UPPER_S
from duha_sim.load import Load

HALF_SENT, BODY_MIB, STRANGERS = 1100, 300, 100_000
PAGES, OVERRIDES = 20, 10


def fuzz(count: int, seed: int) -> dict[str, float]:
    """Cases made from the OpenAPI document with real ids, shared among every role."""
    with city(4, 20) as target:
        ids = furnish(target.json)
        openapi = json.loads(_get(target, "/api/openapi.json"))
        tokens = {role: target.new_token(role) for role in ROLES} | {"none": ""}
        found: dict[int, int] = {}
        worst: list[str] = []
        share = count // len(tokens) + 1
        for number, (role, token) in enumerate(tokens.items()):
            asker = Asker(target, token)
            for case, _ in zip(cases(openapi, ids, seed + number), range(share), strict=False):  # fmt: skip
                status = asker.send(case)
                found[status] = found.get(status, 0) + 1
                if status >= 500:
                    worst.append(f"{status} {role} {case.method} {case.target[:120]} {(case.body or b'')[:80]!r}")  # fmt: skip
                target.check()
            print(f"  {role}: {sum(found.values()):,} cases, {dict(sorted(found.items()))}", flush=True)  # fmt: skip
        for line in worst[:20]:
            print(f"  {line}")
        return {
            "api_cases": sum(found.values()),
            "api_5xx": sum(n for status, n in found.items() if status >= 500),
            "api_no_answer": found.get(0, 0),
            "api_deaths": target.deaths,
        }


class Asker:
    """Sends cases one after the other over one connection, waiting when it is told to."""

    def __init__(self, target: Backend, token: str) -> None:
        self._target, self._token = target, token
        self._connection: http.client.HTTPConnection | None = None

    def send(self, case: Case) -> int:
        """Status of the answer; 0 without any."""
        for _ in range(20):
            status, after = self._once(case)
            if status != 429:
                return status
            time.sleep(min(2.0, after))
        return 429

    def _once(self, case: Case) -> tuple[int, float]:
        connection = self._connection or http.client.HTTPConnection(
            "127.0.0.1", self._target.port, timeout=60
        )
        self._connection = None
        try:
            connection.putrequest(case.method, case.target)
            connection.putheader("Authorization", f"Bearer {self._token}")
            for name, value in case.headers.items():
                connection.putheader(name, value)
            if case.body is not None:
                connection.putheader("Content-Length", str(len(case.body)))
            connection.endheaders(case.body)
            answer = connection.getresponse()
            raw = b"" if case.path in STREAMS else answer.read()
            assert len(raw) < 2**31
            if not answer.will_close and case.path not in STREAMS:
                self._connection = connection
            return answer.status, float(answer.headers.get("Retry-After", 1))
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()  # a refused body may end the connection
            return 0, 0.0


def strangers(unknown: int = STRANGERS) -> dict[str, float]:
    """Half-sent requests, a body without a token, and controllers that do not exist."""
    with city(20, 20, others=CONTROLLERS) as target:
        time.sleep(2)
        before = target.rss_mib
        with _half_sent(target):
            slow = _page_s(target)
        highest = _huge_body(target)
        found = {
            "slowloris_page_s": slow,
            "unauth_300mb_rss_mib": highest - before,
            "unauth_300mb_page_s": _page_s(target),
        }
        sender = Sender(target.broker)
        now = round(time.time() * 1000)
        sender.send(
            (f"duha/v1/{CITY}/X-{n:06d}/status", b'{"v":1,"online":true,"ts":%d}' % now, False)
            for n in range(unknown)
        )  # fmt: skip
        sender.close()
        time.sleep(5)
        found |= {
            "strangers": unknown,
            "strangers_rss_mib": target.rss_mib - before,
            "strangers_tick_bytes": _tick_bytes(target),
        }
        target.check()
        return found | {"strangers_deaths": target.deaths}


@contextlib.contextmanager
def _half_sent(target: Backend) -> Iterator[None]:
    open_: list[socket.socket] = []
    for _ in range(HALF_SENT):
        with contextlib.suppress(OSError):
            one = socket.create_connection(("127.0.0.1", target.port), timeout=2)
            one.sendall(b"GET /api/v1/city HTTP/1.1\r\nHost: duha\r\nX-Slow: ")
            open_.append(one)
    try:
        yield
    finally:
        for one in open_:
            one.close()


def _page_s(target: Backend) -> float:
    """How long the page's first document takes [s]; 60 when it does not come."""
    began = time.monotonic()
    while time.monotonic() - began < 60:
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=10)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/")
            if connection.getresponse().status == 200:
                return time.monotonic() - began
        connection.close()
        time.sleep(0.05)
    return 60.0


def _huge_body(target: Backend) -> float:
    """Send a body without a token; the highest resident memory meanwhile [MiB]."""
    highest, done = target.rss_mib, threading.Event()

    def send() -> None:
        place = ("127.0.0.1", target.port)
        with (
            contextlib.suppress(OSError),
            socket.create_connection(place, timeout=10) as to,
        ):
            to.sendall(
                b"POST /api/v1/overrides HTTP/1.1\r\nHost: duha\r\n"
                b"Content-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n[" % (BODY_MIB * 2**20)
            )
            for _ in range(BODY_MIB * 4):
                to.sendall(b"1," * 131_072)
        done.set()

    sending = threading.Thread(target=send)
    sending.start()
    while not done.wait(0.05):
        highest = max(highest, target.rss_mib)
    sending.join()
    return max(highest, target.rss_mib)


def _events(target: Backend) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=30)
    connection.request(
        "GET", "/api/v1/events", headers={"Authorization": f"Bearer {target.token}"}
    )
    return connection.getresponse()


def _tick_bytes(target: Backend) -> float:
    """Size of the largest of a few ticks [bytes]."""
    stream = _events(target)
    sizes: list[int] = []
    while len(sizes) < 3:
        line = stream.readline()
        if line.startswith(b"data:"):
            sizes.append(len(line))
    stream.close()
    return max(sizes)


# -- a busy city ---------------------------------------------------------------------------


def busy(seconds: float) -> dict[str, float]:
    """17,000 luminaires, ten overrides of the whole city, twenty pages and an export."""
    with city(170, 100) as target:
        load = Load(target.broker, 170, 100, city=CITY, outbox="busy")
        load.at_rate(20_000, 3)
        for n in range(OVERRIDES):
            body = {
                "target": {"kind": "city", "id": ""},
                "level": 30 + n,
                "minutes": 60,
            }
            target.json("POST", "/overrides", body)
        done = threading.Event()
        helpers = [threading.Thread(target=_page, args=(target, done)) for _ in range(PAGES)]  # fmt: skip
        helpers.append(threading.Thread(target=_export, args=(target, done)))
        for one in helpers:
            one.start()
        time.sleep(5)
        before = _lags(target)
        load.at_rate(1700, seconds)
        after = _lags(target)
        done.set()
        for one in helpers:
            one.join()
        load.drain(30)
        found = {
            "loop_p99_ms": 1000 * _p99(before, after),
            "busy_ack_p99_s": quantile(load.lags, 0.99),
            "busy_unacked": load.waiting,
        }
        load.close()
        target.check()
        return found


def _page(target: Backend, done: threading.Event) -> None:
    """An open page: reads its stream, and asks for what pages ask for, as often."""
    stream, seen, number = _events(target), -1, 0
    while not done.is_set():
        line = stream.readline()
        if not line.startswith(b"data:"):
            continue
        number += 1
        tick = json.loads(line[5:])
        if tick["overrides"] != seen:
            seen = tick["overrides"]
            target.ask("GET", "/overrides")
        for path, every in (("/controllers", 2), ("/headline", 5), ("/alarms", 5)):
            if number % every == 0:
                target.ask("GET", path)
    stream.close()


def _export(target: Backend, done: threading.Event) -> None:
    while not done.is_set():
        target.ask("GET", "/download/luminaire.csv", timeout=120)


def _get(target: Backend, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=10)
    who = {"Authorization": f"Bearer {target.token}"}
    connection.request("GET", path, headers=who)
    body = connection.getresponse().read()
    connection.close()
    return body


def _lags(target: Backend) -> dict[float, float]:
    """Cumulative counts of the loop's delays by their upper end [s], from ``/metrics``."""
    text = _get(target, "/metrics").decode()
    pattern = r'duha_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)'
    found = {float(le): float(n) for le, n in re.findall(pattern, text)}
    if len(found) != len(UPPER_S):
        raise RuntimeError("the backend does not report the latency of its loop")
    return found


def _p99(before: dict[float, float], after: dict[float, float]) -> float:
    """Upper end of the bucket that holds the 0.99 quantile [s]."""
    counts = {upper: after[upper] - before[upper] for upper in sorted(after)}
    whole = counts[float("inf")]
    return next(upper for upper, n in counts.items() if n >= 0.99 * whole)
