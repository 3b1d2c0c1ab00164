"""systemd hears from the agent for as long as its parts get on."""

import socket
import subprocess

import pytest
from tests.conftest import ROOT

from duha_edge.pulse import Pulse, notify, watchdog_s


def test_a_part_that_does_not_get_on_is_stuck():
    now = [0.0]
    pulse = Pulse(lambda: now[0])
    pulse.beat("line1", 10)
    pulse.beat("control", 60)
    now[0] = 11
    assert pulse.stuck() == ["line1"]
    pulse.beat("line1", 10)
    assert pulse.stuck() == []
    now[0] = 30
    pulse.forget("line1")
    assert pulse.stuck() == []


def test_systemd_is_told_by_a_datagram(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert notify("WATCHDOG=1")
        assert systemd.recv(100) == b"WATCHDOG=1"
    assert not notify("WATCHDOG=1")  # nobody listens any more


@pytest.mark.parametrize(("said", "seconds"), [("60000000", 30), ("", None)])
def test_the_watchdog_is_fed_twice_in_its_time(monkeypatch, said, seconds):
    monkeypatch.setenv("WATCHDOG_USEC", said)
    assert watchdog_s() == seconds


def test_the_unit_file_is_one_that_systemd_takes(outside, tmp_path):
    unit = (ROOT / "deploy/systemd/duha-edge.service").read_text("utf-8")
    assert "Type=notify" in unit
    assert "WatchdogSec=" in unit
    here = tmp_path / "duha-edge.service"
    here.write_text(unit.replace("/opt/duha/bin/duha", "/bin/true"), "utf-8")
    done = subprocess.run(
        [outside("systemd-analyze"), "verify", here], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "duha-edge.service" not in done.stderr  # no complaint about a line of it
