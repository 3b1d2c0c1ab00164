"""SIGTERM ends the agent in time, whatever hangs."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

SITE = """
[site]
city = "plzen"
controller = "RVO-001"
latitude = 49.7475
longitude = 13.3776
zone = "Europe/Prague"
period_s = 1
data = "{folder}/agent"
[broker]
port = {broker}
password_file = "{folder}/password"
[[bus]]
name = "line1"
type = "tcp"
host = "127.0.0.1"
port = {line}
timeout_s = 60
[[device]]
id = "L1"
bus = "line1"
unit = 1
profile = "luminaire-generic"
writes = ["level_in_effect_pct"]
"""
WITHIN_S = 10.0


def silent(stack):
    """A port that takes connections and never answers."""
    port = socket.create_server(("127.0.0.1", 0))
    stack.append(port)
    return port.getsockname()[1]


@pytest.fixture
def agent(tmp_path):
    """An agent whose line and broker never answer; started until it says so."""
    ports: list[socket.socket] = []
    (tmp_path / "password").write_text("secret", "utf-8")
    text = SITE.format(folder=tmp_path, broker=silent(ports), line=silent(ports))
    (tmp_path / "site.toml").write_text(text, "utf-8")
    command = [sys.executable, "-m", "duha", "edge", "run", str(tmp_path / "site.toml")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert running.stderr is not None
    assert b"controller RVO-001" in running.stderr.readline()
    try:
        yield running, ports
    finally:
        running.kill()
        running.wait()
        running.stderr.close()
        for port in ports:
            port.close()


def stopped(running, number=signal.SIGTERM):
    """How long a process takes to end [s], and its status."""
    began = time.monotonic()
    running.send_signal(number)
    status = running.wait(3 * WITHIN_S)
    return time.monotonic() - began, status


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_agent_whose_line_and_broker_are_silent_ends_as_it_should(agent, number):
    running, _ = agent
    time.sleep(1.0)
    took, status = stopped(running, number)
    assert (took < WITHIN_S, status) == (True, 0)


@pytest.mark.system
def test_an_agent_with_a_file_that_hangs_ends_all_the_same(agent, tmp_path):
    """A thread that waits for a share that is gone cannot be ended, the process can."""
    running, ports = agent
    (tmp_path / "password").unlink()
    os.mkfifo(tmp_path / "password")
    for port in ports:  # the link comes again, and reads its password
        port.close()
    time.sleep(10.0)
    took, status = stopped(running)
    assert (took < WITHIN_S, status) == (True, 1)


@pytest.mark.system
def test_a_process_whose_event_loop_hangs_ends_all_the_same():
    code = """
import asyncio, time
from duha_edge.shutdown import ShutdownSignals
async def main():
    ShutdownSignals(stop_s=0.5).on_shutdown(asyncio.get_running_loop(), lambda: None)
    print("ready", flush=True)
    time.sleep(600)
asyncio.run(main())
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        took, status = stopped(running)
    assert (took < WITHIN_S, status) == (True, 1)
