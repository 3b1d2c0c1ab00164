"""Strangers at the port: half-sent requests, large bodies, slow ones, and rubbish."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from duha_backend.registry import Registry
from tests import servers

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

HALF = int(os.environ.get("DUHA_TEST_HALF_SENT", "1100"))
MIB = int(os.environ.get("DUHA_TEST_STRANGERS_MIB", "300"))


class Served:
    def __init__(self, port, token, process, log):
        self.port = port
        self.token = token
        self.process = process
        self.log = log

    def connect(self, timeout=15):
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def page(self):
        """How long the page takes [s]."""
        begun = time.monotonic()
        url = f"http://127.0.0.1:{self.port}/"
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert b"<html" in answer.read().lower()
        return time.monotonic() - begun

    def rss_mib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def ask(self, path, **headers):
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(link):
            headers["Authorization"] = f"Bearer {self.token}"
            link.request("GET", f"/api/v1{path}", headers=headers)
            return link.getresponse().status


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("city")
    registry = Registry.in_folder(folder)
    token = registry.new_token("tester")
    registry.close()
    port = servers.free_port()
    log = folder / "log"
    command = [
        "sh", "-c", 'ulimit -Sn 1024; exec "$@"', "sh", sys.executable, "-m", "duha", "backend", "run",
        "--data", str(folder), "--port", str(port), "--broker", "127.0.0.1:1",
    ]  # fmt: skip
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:  # fmt: skip
        servers.until_it_answers(f"http://127.0.0.1:{port}/api/v1/health")
        yield Served(port, token, process, log)
        process.terminate()
        process.wait(15)


def test_half_sent_requests_do_not_keep_the_page_away(served):
    served.page()
    before = served.rss_mib()
    with contextlib.ExitStack() as stack:
        for _ in range(HALF):
            half = stack.enter_context(served.connect())
            half.sendall(b"GET /api/v1/city HTTP/1.1\r\nHost: a\r\nX-A: ")
        assert served.page() < 3
        assert served.ask("/city") == 200
        assert served.rss_mib() - before < 50


def test_a_header_that_does_not_come_is_given_up(served):
    with served.connect(20) as half:
        half.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for _ in range(15):  # a byte now and then does not help
                half.sendall(b"X")
                time.sleep(1)
        assert time.monotonic() - begun < 14
        with contextlib.suppress(ConnectionError):
            assert half.recv(1) == b""


def test_a_header_without_end_is_not_kept(served):
    before = served.rss_mib()
    header = b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"x" * (64 << 20)
    with served.connect() as one, pytest.raises(ConnectionError):
        one.sendall(header)
    assert served.rss_mib() - before < 20
    assert served.page() < 3


def test_a_large_body_of_a_stranger_costs_nothing(served):
    before, slowest = served.rss_mib(), 0.0
    ended = threading.Event()

    def send():
        with contextlib.suppress(OSError), served.connect() as one:
            one.sendall(
                b"POST /api/v1/overrides HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % (MIB << 20)
            )
            for _ in range(MIB):
                one.sendall(b"1," * (1 << 19))
        ended.set()

    sender = threading.Thread(target=send)
    sender.start()
    while not ended.is_set():
        slowest = max(slowest, served.page())
    sender.join()
    assert slowest < 3
    assert served.rss_mib() - before < 50


def test_rubbish_ends_its_own_connection_only(served):
    for rubbish in (
        b"\x16\x03\x01\x02\x00" * 50, b"\r\n" * 5000, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", b"GET http:// HTTP/1.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /api/v1/session HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/session HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /api/v1/session HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"GET /api/v1/city HTTP/1.1\r\nHost: a\r\n\r\n" * 500,
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 20_000 + b"\r\n",
    ):  # fmt: skip
        with served.connect() as one, contextlib.suppress(ConnectionError):
            one.sendall(rubbish)
            one.shutdown(socket.SHUT_WR)
            while one.recv(65_536):
                pass
        assert served.page() < 3
    assert served.process.poll() is None
    assert "Traceback" not in served.log.read_text(errors="replace")


def test_a_download_that_is_left_gives_its_place_back(served):
    """Two exports at a time are allowed to one asker."""
    request = (
        "GET /api/v1/audit.csv HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n"
    )
    for _ in range(5):
        with served.connect() as one:
            one.sendall((request % served.token).encode())
    deadline = time.monotonic() + 10
    while served.ask("/audit.csv") != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
