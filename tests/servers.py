"""Real servers for the tests, each on a free port of loopback and in a folder of its own."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import tool

_INFLUX = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  query-log-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
  {http}
[monitor]
  store-enabled = false
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(*command: str | Path, **options) -> Iterator[subprocess.Popen[bytes]]:
    """A server process; it is ended, and waited for, whatever happens."""
    running = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options,
    )  # fmt: skip
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(5)


def until_it_answers(url: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        assert time.monotonic() < deadline, f"{url} does not answer"
        time.sleep(0.05)


@contextlib.contextmanager
def influxd(folder: Path, port: int | None = None, http: str = "") -> Iterator[str]:
    """InfluxDB 1.x of Debian, with more settings of its [http] part; its URL."""
    with influxd_process(folder, port, http) as (url, _):
        yield url


@contextlib.contextmanager
def influxd_process(
    folder: Path, port: int | None = None, http: str = ""
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The same with its process, which a test may stop and let go on."""
    program = tool("influxd")
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "influxdb.conf"
    config.write_text(
        _INFLUX.format(folder=folder, port=port, rpc=free_port(), http=http)
    )
    with process(program, "-config", config) as running:
        until_it_answers(f"http://127.0.0.1:{port}/ping")
        yield f"http://127.0.0.1:{port}", running


@contextlib.contextmanager
def victoria_metrics(folder: Path) -> Iterator[str]:
    program = tool("victoria-metrics")
    port = free_port()
    with process(
        program, f"-storageDataPath={folder}", f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
    ):  # fmt: skip
        until_it_answers(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL cluster of its own; its SQLAlchemy URL."""
    program = Path(os.path.realpath(tool("postgres")))
    data = folder / "pg"
    port = free_port()
    # PostgreSQL refuses to run as root; somebody who has no other rights runs it.
    user = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
    folder.mkdir(parents=True, exist_ok=True)
    if user:
        shutil.chown(folder, user["user"], user["group"])
        for parent in folder.parents:
            if parent.stat().st_mode & 0o001 == 0 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
    subprocess.run(
        [program.parent / "initdb", "-D", data, "-U", "duha", "--auth=trust", "-E", "UTF8", "--no-sync"],
        check=True, stdout=subprocess.DEVNULL, user=user.get("user"), group=user.get("group"),
    )  # fmt: skip
    with process(
        program, "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1",
        "-c", f"unix_socket_directories={folder}", "-c", "fsync=off", **user,
    ):  # fmt: skip
        _until_connected(port)
        yield f"postgresql+psycopg://duha@127.0.0.1:{port}/postgres"


def _until_connected(port: int) -> None:
    import psycopg

    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(
                f"host=127.0.0.1 port={port} user=duha dbname=postgres"
            ).close()
            return
        assert time.monotonic() < deadline, "PostgreSQL does not answer"
        time.sleep(0.05)


@contextlib.contextmanager
def mosquitto(
    port: int, folder: Path, *lines: str
) -> Iterator[subprocess.Popen[bytes]]:
    program = tool("mosquitto")
    config = folder / "mosquitto.conf"
    base = (f"listener {port} 127.0.0.1", "allow_anonymous true", *lines)
    config.write_text("\n".join(base) + "\n")
    with process(program, "-c", config) as running:
        deadline = time.monotonic() + 10
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), 1),
            ):
                break
            assert time.monotonic() < deadline, "Mosquitto does not answer"
            time.sleep(0.02)
        yield running
