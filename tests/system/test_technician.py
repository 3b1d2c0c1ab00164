"""From an empty directory to a checked site, with the commands that a technician types."""

import json
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.drill, pytest.mark.system, pytest.mark.timeout(120)]


def duha(folder, *words, expect=0):
    done = subprocess.run(
        [sys.executable, "-m", "duha", *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def line(tmp_path):
    """A simulated cabinet on a serial line."""
    command = [sys.executable, "-m", "duha", "sim", "city", str(tmp_path / "sim"), "--cabinets", "1",
               "--luminaires", "3", "--gauges", "1", "--rtu", "1"]  # fmt: skip
    devices = subprocess.Popen(command)
    ports = tmp_path / "sim" / "ports.json"
    for _ in range(100):
        if ports.exists():
            break
        time.sleep(0.1)
    yield json.loads(ports.read_text())["RVO-001/line1"]
    devices.terminate()
    devices.wait(10)


def test_a_site_from_an_empty_directory(tmp_path, line):
    site = tmp_path / "site.toml"
    said = duha(tmp_path, "edge", "init", "site.toml", "--controller", "RVO-009")
    assert "written" in said
    assert "stays as it is" in duha(tmp_path, "edge", "init", "site.toml", expect=2)
    text = (
        site.read_text("utf-8")
        .replace("/dev/ttyUSB0", line)
        .replace('"8E1"', '"8N1"')
        .replace("19200", "38400")
    )
    site.write_text(text, "utf-8")
    said = duha(tmp_path, "edge", "scan", "site.toml", "--units", "1-5", "--add")
    assert "unit   1: luminaire-generic" in said
    assert "3 units answered" in said
    assert "3 devices added" in said
    again = duha(tmp_path, "edge", "scan", "site.toml", "--units", "1-5", "--add")
    assert "0 devices added" in again
    text = site.read_text("utf-8").replace("RVO-009-line1-U00", "L")
    site.write_text(text, "utf-8")
    assert "3 devices, 3 requests a cycle" in duha(
        tmp_path, "edge", "check", "site.toml"
    )
    assert "230.4 V" in duha(tmp_path, "edge", "read", "site.toml", "L2")
    assert "confirmed" in duha(
        tmp_path, "edge", "write", "site.toml", "L2", "level_in_effect_pct", "35"
    )
    said = duha(tmp_path, "edge", "read", "site.toml", "L2")
    assert "35 %" in said
    assert "does not let" in duha(
        tmp_path, "edge", "write", "site.toml", "L2", "power_w", "1", expect=2
    )
    said = duha(
        tmp_path, "edge", "commission", "site.toml", "L2", "--report", "found.txt"
    )
    assert "1 luminaires, 0 with a fault" in said
    assert "in order" in (tmp_path / "found.txt").read_text("utf-8")
    site.write_text(text.replace("unit = 3", "unit = 3\ncolour = 5"), "utf-8")
    said = duha(tmp_path, "edge", "check", "site.toml", expect=2)
    assert "unknown key `colour`" in said
    assert "site.toml:" in said
