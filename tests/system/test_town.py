"""The whole line from register to API, with outside tools as witnesses."""

import re
import subprocess
import time

import msgspec
import pytest

from duha_contract.messages import Batch, decode
from tests.conftest import tool
from tests.system.conftest import Visitor

pytestmark = [pytest.mark.drill, pytest.mark.system, pytest.mark.timeout(180)]
SMALL = ("--cabinets", "2", "--luminaires", "8", "--gauges", "2", "--now")


def register(town, cabinet, unit, address=0):
    """What mbpoll, an outside tool, reads from a simulated device."""
    port = msgspec.json.decode((town.folder / "devices" / "ports.json").read_bytes())[
        f"{cabinet}/line1"
    ]
    out = subprocess.run(
        [tool("mbpoll"), "-1", "-0", "-o", "1", "-t", "4", "-m", "tcp", "-p", port, "-a", str(unit),
         "-r", str(address), "127.0.0.1"],
        capture_output=True, text=True, timeout=20, check=False,
    ).stdout  # fmt: skip
    match = re.search(r"\[\d+\]:\s+(\d+)", out)
    assert match, out
    return int(match[1])


def test_an_override_reaches_the_drivers_register_and_ends_by_itself(start):
    town = start(*SMALL)
    visitor = Visitor(town)
    level = 37
    visitor.until(
        "a first level",
        lambda: visitor.ask("/luminaires/RVO-001-L003")["commanded"] is not None,
    )
    before = register(town, "RVO-001", 3)
    assert before != level
    body = {
        "target": {"kind": "cabinet", "id": "RVO-001"},
        "level": level,
        "minutes": 0.2,
    }
    given = time.monotonic()
    made = town.ask("POST", "/overrides", body)
    took = visitor.until(
        "the register", lambda: register(town, "RVO-001", 3) == level, limit=5
    )
    assert took < 2.0
    assert register(town, "RVO-001", 8) == level

    def shown():
        found = visitor.ask("/luminaires/RVO-001-L003")
        return (found["commanded"], found["in_effect"], found["actual"]) == (
            level,
            level,
            level,
        )

    visitor.until("all three levels", shown, limit=11)
    assert visitor.ask("/overrides")[0]["state"] == "applied"
    assert register(town, "RVO-001", 3) == level
    visitor.until(
        "the end of it", lambda: register(town, "RVO-001", 3) == before, limit=20
    )
    assert 11.5 < time.monotonic() - given < 16
    assert visitor.ask("/overrides")[0]["state"] == "expired"
    assert made["state"] == "pending"


def test_a_gone_agent_is_stale_within_two_cycles_and_a_gone_backend_leaves_the_lights_on(
    start,
):
    town = start(*SMALL, "--broker", "mosquitto")
    visitor = Visitor(town)
    town.kill("RVO-002")
    took = visitor.until(
        "stale",
        lambda: visitor.ask("/system")["figures"]["stale"] == ["RVO-002"],
        limit=12,
    )
    assert (
        took <= 2 * 3.0 + 0.5
    )  # two cycles of three seconds, and this test's own look
    controller = visitor.ask("/controllers")[1]
    assert controller["stale"]
    assert 4.5 < controller["age_s"] < 12
    states = visitor.ask("/luminaires/RVO-002-L001")["state"]
    assert states == "stale"

    # An override goes to the agent, then the backend goes; the agent ends it alone.
    before = register(town, "RVO-001", 1)
    town.ask(
        "POST", "/overrides", {"target": {"kind": "city"}, "level": 44, "minutes": 0.15}
    )
    visitor.until("the override", lambda: register(town, "RVO-001", 1) == 44, limit=5)
    town.kill("backend")
    visitor.until(
        "the programme again", lambda: register(town, "RVO-001", 1) == before, limit=20
    )
    town.again("backend")


def test_mosquitto_sub_prints_readable_batches(start):
    listener = tool("mosquitto_sub")
    town = start(*SMALL, "--broker", "mosquitto")
    out = subprocess.run(
        [listener, "-p", str(town.broker_port), "-t", "duha/v1/plzen/RVO-001/data", "-C", "3", "-W", "20"],
        capture_output=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    batches = [decode(line, Batch) for line in out.splitlines()]
    assert len(batches) == 3
    kinds = {table.kind for batch in batches for table in batch.tables}
    assert kinds <= {"luminaire", "meter", "rain_gauge"}
    numbers = [batch.seq for batch in batches]
    assert len(set(numbers)) == 3


def test_troubles_are_seen_and_told_apart(start):
    town = start(
        "--cabinets", "1", "--rtu", "1", "--luminaires", "8", "--gauges", "1", "--now"
    )
    visitor = Visitor(town)
    from duha_sim.trouble import change

    path = town.folder / "devices" / "trouble.json"
    change(path, "RVO-001-L002", "dead")
    change(path, "RVO-001-L005", "burnt_out")

    # By day without a programme lamps are off, and a burnt-out one says so all the same.
    def state_of(device):
        return visitor.ask(f"/luminaires/RVO-001-{device}")["state"]

    visitor.until("a dead unit", lambda: state_of("L002") == "no_answer", limit=25)
    visitor.until(
        "a burnt-out lamp", lambda: state_of("L005") == "lamp_failure", limit=25
    )
    assert visitor.ask("/luminaires/RVO-001-L003")["state"] in {"lit", "off"}
    change(path, "RVO-001-L005", None)
    visitor.until(
        "mended",
        lambda: visitor.ask("/luminaires/RVO-001-L005")["state"] in {"lit", "off"},
        limit=15,
    )


def test_the_evening_of_the_demo(start):
    """Lights come on at dusk, dim, and rise again as the road gets wet."""
    town = start(
        "--cabinets",
        "1",
        "--luminaires",
        "6",
        "--gauges",
        "1",
        "--rtu",
        "0",
        "--speed",
        "60",
    )
    visitor = Visitor(town)

    def levels():
        found = visitor.ask("/luminaires/RVO-001-L001")
        return found["actual"], found["reason"][0]["code"]

    visitor.until(
        "full light after dusk", lambda: levels() == (100.0, "programme"), limit=40
    )
    visitor.until("dimmed", lambda: (levels()[0] or 0) < 60, limit=40)
    visitor.until("raised by rain", lambda: levels() == (100.0, "wet_road"), limit=60)
    rain = visitor.ask("/rain?hours=3")["gauges"]["SR-01"]
    assert sum(mm for _, mm in rain) > 0


def test_nothing_is_left_behind(tmp_path):
    """Ctrl-C, even twice, stops everything: no process, no file."""
    import os
    import signal
    import sys

    environment = os.environ | {"TMPDIR": str(tmp_path)}
    demo = subprocess.Popen(
        [sys.executable, "-m", "duha", "demo", "--cabinets", "1", "--luminaires", "3", "--rtu", "0", "--port", "0"],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    assert any("#token=" in line for line in lines)
    children = subprocess.run(
        ["pgrep", "-P", str(demo.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    assert len(children) == 4
    demo.send_signal(signal.SIGINT)
    time.sleep(0.05)
    demo.send_signal(signal.SIGINT)  # somebody is impatient
    assert demo.wait(20) == 0
    demo.stdout.close()
    assert not any(os.path.exists(f"/proc/{child}") for child in children)
    assert list(tmp_path.iterdir()) == []
