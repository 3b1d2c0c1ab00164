"""An operator's evening through the real ports: CSV, calendar, preview, override, why."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time

import aiomqtt
import httpx
import pytest

from duha_backend.app import Backend, Settings
from duha_backend.lighting.inventory import Asset
from duha_backend.link import Broker
from duha_backend.registry import Registry
from duha_contract.clock import Clock
from duha_contract.messages import Batch, Desired, Table, decode, encode
from duha_contract.topics import build
from tests import servers
from tests.system.conftest import Visitor

pytestmark = [pytest.mark.drill, pytest.mark.system, pytest.mark.timeout(180)]


def lamps_csv(good=990):
    """A thousand lamps of a new district as somebody has typed them in: ten are wrong."""
    lines = ["id;kind;cabinet;latitude;longitude;street;type;stretch;floor;phase"]
    lines.append("RVO-900;cabinet;;49,75;13,40;;;;;")
    lines += [
        f"N{n:04d};luminaire;RVO-900;49,75;13,4{n:04d};Nová;LED-62;new;;L{n % 3 + 1}"
        for n in range(good)
    ]
    lines += [
        "N 1;luminaire;RVO-900;49,75;13,40;Nová;;;;",
        "N0001;luminaire;RVO-900;49,75;13,40;Nová;;;;",
        "B1;lamp;RVO-900;49,75;13,40;Nová;;;;",
        "B2;luminaire;RVO-999;49,75;13,40;Nová;;;;",
        "B3;luminaire;RVO-900;;13,40;Nová;;;;",
        "B4;luminaire;RVO-900;490;13,40;Nová;;;;",
        "B5;luminaire;RVO-900;49,75;east;Nová;;;;",
        "B6;luminaire;RVO-900;49,75;13,40;Nová;;;120;",
        "B7;luminaire;RVO-900;49,75;13,40;Nová;;;;L4",
        ";luminaire;RVO-900;49,75;13,40;Nová;;;;",
    ]
    return "\n".join(lines)


def test_an_operators_evening(start):
    town = start("--cabinets", "1", "--luminaires", "8", "--gauges", "1", "--rtu", "0", "--speed", "30")  # fmt: skip
    visitor = Visitor(town)
    file = town.folder / "lamps.csv"
    file.write_text(lamps_csv(), "utf-8")

    def duha(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "duha", "backend", *arguments],
            capture_output=True, text=True, timeout=60, check=False,
            env=os.environ | {"DUHA_URL": f"http://127.0.0.1:{town.http_port}", "DUHA_TOKEN": town.token},
        )  # fmt: skip

    # Ten bad rows are named; the others are taken when one says so.
    data = ("--data", str(town.folder / "backend"))
    tried = duha("import", str(file), "--dry-run", *data)
    assert tried.returncode == 1
    assert len(tried.stderr.splitlines()) == 10
    assert "floor 120 is not between 0 and 100" in tried.stderr
    assert duha("import", str(file), "--skip-bad", *data).returncode == 0
    visitor.until("the new lamps", lambda: len(visitor.ask("/luminaires")["id"]) == 998)

    # A calendar with a holiday: what would leave a street dark is refused with nights.
    festive = {
        "name": "Holidays",
        "active": [{}],
        "steps": [{"at": "sunset", "level": 100}, {"at": "23:00", "level": 70}],
    }
    town.ask("PUT", "/programmes/holiday", festive)
    dark = httpx.put(
        f"http://127.0.0.1:{town.http_port}/api/v1/calendars/every-night",
        json={
            "name": "x",
            "default": "residential",
            "rules": [{"programme": "nothing"}],
        },
        headers={"Authorization": f"Bearer {town.token}"},
    )
    assert dark.status_code == 409
    calendar = {
        "name": "With holidays",
        "default": "residential",
        "rules": [{"programme": "holiday", "holidays": "CZ"}],
    }
    town.ask("PUT", "/calendars/festive", calendar)
    shown = duha(
        "preview", "cabinet", "RVO-001", "--calendar", "festive", "--nights", "2"
    )
    assert "▇" in shown.stdout
    assert "8 luminaires, calendar festive" in shown.stdout
    body = {"target": {"kind": "cabinet", "id": "RVO-001"}, "calendar": "festive", "first": "2026-12-24", "nights": 1}  # fmt: skip
    course = town.ask("POST", "/preview", body)["courses"][0]["level"]
    assert min(level for level in course if level) == 70  # Christmas Eve

    # Published and watched until the controller says that it has it.
    town.ask("PUT", "/assignments/RVO-001", {"calendar": "festive"})

    def carried_out():
        (found,) = [c for c in visitor.ask("/controllers") if c["id"] == "RVO-001"]
        return found["desired_revision"] == found["reported_revision"]

    visitor.until("the new calendar is carried out", carried_out, limit=20)

    # A street by hand, and why one of its lamps is as it is.
    street = visitor.ask("/luminaires/RVO-001-L001")["street"]
    done = duha(
        "override", "street", street, "20", "--minutes", "90", "--reason", "festival"
    )
    assert done.returncode == 0, done.stderr
    assert "below their lighting class" in done.stdout
    name = done.stdout.split(":")[0]

    def state():
        return next(o["state"] for o in visitor.ask("/overrides") if o["id"] == name)

    visitor.until("applied", lambda: state() == "applied", limit=20)
    why = duha("explain", "RVO-001-L001").stdout
    assert ": 20 %" in why
    assert "override, 'festival'" in why
    assert "Residential streets" in why
    assert duha("cancel", name).returncode == 0
    visitor.until("cancelled", lambda: state() == "cancelled", limit=5)
    assert "20 %" not in duha("explain", "RVO-001-L001").stdout.splitlines()[0]


async def test_from_a_tip_to_the_light_of_another_cabinet_within_five_seconds(tmp_path):
    """The gauge's controller needs a second, the other one half: three are left for us."""

    def place(name, kind, cabinet, shift=0.0):
        return Asset(name, kind, cabinet, "d", "s", 49.7475 + shift, 13.3776)

    assets = [
        place("R1", "cabinet", ""), place("R2", "cabinet", "", 0.005),
        place("SR-01", "rain_gauge", "R1"), place("R1-L1", "luminaire", "R1"),
        place("R2-L1", "luminaire", "R2", 0.005),
    ]  # fmt: skip
    registry = Registry.in_folder(tmp_path)
    registry.put_assets(assets)
    registry.close()
    port, http = servers.free_port(), servers.free_port()
    with servers.mosquitto(port, tmp_path):
        settings = Settings(tmp_path, Broker(port=port), port=http)
        backend = Backend(settings, Clock(time.time))
        running = asyncio.create_task(backend.run())
        try:
            async with aiomqtt.Client("127.0.0.1", port) as client:
                topic = build("plzen", "R2", "desired")
                await client.subscribe(topic, qos=1)
                documents = _documents(client)
                assert not (await anext(documents)).conditions
                began = time.monotonic()
                for seq, mm in ((1, 0.0), (2, 0.2)):
                    row = ("SR-01", round(time.time() * 1000), "good", mm)
                    table = Table(
                        "rain_gauge", ("device", "ts", "quality", "rain_mm"), (row,)
                    )
                    batch = Batch(1, "b", "o", seq, "trusted", (table,))
                    await client.publish(
                        build("plzen", "R1", "data"), encode(batch), qos=1
                    )
                async for document in documents:
                    if document.conditions:
                        break
                assert time.monotonic() - began <= 3.0
                assert document.conditions[0].kind == "wet_road"
                assert document.conditions[0].detail == "SR-01"
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def _documents(client):
    async for message in client.messages:
        yield decode(bytes(message.payload), Desired)
