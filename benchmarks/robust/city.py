"""A real backend with its broker, in a folder of its own, to be attacked."""

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests import servers

from benchmarks.__main__ import _rss_mib
from duha_backend.lighting.inventory import Asset
from duha_backend.registry import Registry
from duha_sim.load import controller_name, lamp_name

CITY = "plzen"
ROLES = ("viewer", "operator", "engineer", "admin")


class Died(Exception):  # noqa: N818 - what the bench counts
    """A process ended although it should go on."""


class Backend:
    """A process ``duha backend run``.

    Parameters
    ----------
    folder : Path
        Its data and its log.
    broker : int
        Port of the broker on loopback.
    more : str
        Further arguments.
    """

    def __init__(self, folder: Path, broker: int, *more: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = servers.free_port()
        self.broker = broker
        self.token = ""
        self.deaths = 0
        self._log = folder / "backend.log"
        self._command = [
            sys.executable, "-m", "duha", "backend", "run", "--data", str(self.data),
            "--port", str(self.port), "--broker", f"127.0.0.1:{broker}",
            "--requests-per-s", "100000", *more,
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_few_files,  # noqa: PLW1509 - no threads before exec
            )
        until(self.answers, 60, f"the backend does not come up, see {self._log}")  # fmt: skip
        found = re.findall(
            r"^token: (\S+)", self._log.read_text(errors="replace"), re.MULTILINE
        )
        self.token = found[-1] if found else self.token

    def stop(self) -> float:
        """End it as an operator would; returns how long that took [s]."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return time.monotonic() - began

    def check(self) -> None:
        """Count and restart a process that has ended."""
        if self.process.poll() is not None:
            self.deaths += 1
            print(f"  the backend died, status {self.process.returncode}", flush=True)
            self.start()

    @property
    def rss_mib(self) -> float:
        """Resident memory [MiB]."""
        return _rss_mib(self.process.pid)

    def answers(self) -> bool:
        """Whether ``/health`` answers at all."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.ask("GET", "/health", timeout=2)
            return True
        return False

    def ask(
        self, method: str, path: str, body: Any = None, *, timeout: float = 30,
        token: str | None = None,
    ) -> tuple[int, bytes]:  # fmt: skip
        """Status and body of one request; the path is below ``/api/v1``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            raw = None if body is None else json.dumps(body)
            connection.request(method, f"/api/v1{path}", raw, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer that must be good."""
        status, raw = self.ask(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {raw[:300]!r}")
        return json.loads(raw) if raw else None

    def new_token(self, role: str) -> str:
        """A token of a role, made on the command line."""
        made = subprocess.run(
            [sys.executable, "-m", "duha", "backend", "token", f"bench-{role}",
             "--role", role, "--data", str(self.data)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return made.stdout.split()[-1]


def _few_files() -> None:
    """Give a process the soft limit of open files that systemd gives a service."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))


@contextlib.contextmanager
def city(
    cabinets: int, lamps: int, *more: str, others: tuple[str, ...] = (),
    data: Path | None = None,
) -> Iterator[Backend]:  # fmt: skip
    """A backend with Mosquitto and an inventory; both end with the context.

    Parameters
    ----------
    cabinets, lamps : int
        How many cabinets of the load, and luminaires of each.
    others : tuple of str
        Further cabinets.
    data : Path, optional
        Where its data are, for a disk of their own.
    """
    os.environ["PATH"] += ":/usr/sbin"
    with tempfile.TemporaryDirectory(prefix="duha-robust-") as name:
        folder, port = Path(name), servers.free_port()
        (folder / "data").mkdir() if data is None else (folder / "data").symlink_to(
            data
        )
        registry = Registry.in_folder(folder / "data")
        names = [controller_name(n) for n in range(cabinets)]
        registry.put_assets(
            Asset(c, "cabinet", "", "", "", 49.7 + n * 1e-4, 13.4)
            for n, c in enumerate([*names, *others])
        )
        registry.put_assets(
            Asset(lamp_name(c, n), "luminaire", c, f"Street {k % 40}", "", 49.7 + k * 1e-4, 13.4 + n * 1e-4)
            for k, c in enumerate(names)
            for n in range(1, lamps + 1)
        )  # fmt: skip
        registry.put_assets(
            Asset(f"SR-{n:02d}", "rain_gauge", names[0], "", "", 49.7 + n * 1e-3, 13.4)
            for n in range(1, 4)
        )
        registry.close()
        limits = ("max_queued_messages 20000", "max_packet_size 262144")
        with servers.mosquitto(port, folder, *limits):
            backend = Backend(folder, port, "--city", CITY, *more)
            try:
                yield backend
            finally:
                backend.stop()


def until(true: Callable[[], object], seconds: float, what: str) -> float:
    """Wait for something; returns how long it took [s].

    Raises
    ------
    TimeoutError
        It did not come.
    """
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise TimeoutError(what)
        time.sleep(0.02)
    return time.monotonic() - began


def quantile(values: list[float], share: float) -> float:
    """A quantile; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
