"""A storm in which the backend and its model are killed: the water is where it would be."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from duha_backend.readings import rows_of
from duha_backend.runoff.live import SwmmModel
from duha_contract.clock import TIMELINE_VARIABLE, Timeline
from duha_sim.sewer import sewer
from tests.backend.wet_city import GAUGES, MINUTE, T0, WetCity

pytestmark = [pytest.mark.drill, pytest.mark.system, pytest.mark.timeout(180)]
RATE = 600.0
STORM = np.zeros((4, 8 * 60))
STORM[:, 90:240] = np.random.default_rng(7).choice([0.0, 0.2, 0.4, 1.0], (4, 150))
END = T0 + 7 * 60 * MINUTE


async def prepared(folder):
    """A city whose gauges have measured a storm, and a sewer with rain gardens."""
    city = WetCity(folder)
    await city.rain(STORM)
    raw = sewer(20, GAUGES[:3], "gardens").encode()
    city.registry.save(SwmmModel("sewer", "Sewer", raw, replay_days=1))
    await city.close()


class Running:
    """A backend process whose clock began at a time of the storm."""

    def __init__(self, folder, shown_ms, rate=RATE):
        timeline = Timeline(time.time(), shown_ms / 1000, rate)
        self.folder = folder
        self.environment = os.environ | {TIMELINE_VARIABLE: str(timeline)}
        self.start()

    def start(self):
        command = "import sys; from duha_backend.cli import main; sys.exit(main(sys.argv[1:]))"
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", command, "run", "--data", str(self.folder),
                 "--broker", "127.0.0.1:1", "--port", "0"],
                env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip

    def until(self, t, limit=60):
        """Wait until the model has come so far."""
        deadline = time.monotonic() + limit
        while self.reached() < t:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)

    def reached(self):
        with sqlite3.connect(self.folder / "registry.db", timeout=10) as db:
            query = "SELECT max(t0) FROM run WHERE kind = 'live' AND state = 'running' AND warm"
            return db.execute(query).fetchone()[0] or 0

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(20)


async def water(folder):
    """What the store holds of the model, up to the end of the storm."""
    city = WetCity(folder)
    found = {}
    for kind, device in (
        ("node", "sewer.OVERFLOW"),
        ("node", "sewer.RIVER"),
        ("lid", "sewer.S0000.0"),
    ):
        frame = await city.readings.window(kind, device, T0, END)
        found[device] = rows_of(frame)
    await city.close()
    return found


async def test_backend_and_model_are_killed_in_mid_storm(tmp_path):
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    for folder in (calm, rough):
        await prepared(folder)
    undisturbed = Running(calm, END)
    await asyncio.to_thread(undisturbed.until, END)
    undisturbed.end()
    running = Running(rough, T0 + 100 * MINUTE)
    await asyncio.to_thread(running.until, T0 + 130 * MINUTE)
    running.end(signal.SIGKILL)
    stopped = await water(rough)
    assert max(row["depth_m"] for row in stopped["sewer.OVERFLOW"]) > 0.3, (
        "in mid-storm"
    )
    running.start()
    await asyncio.to_thread(running.until, T0 + 200 * MINUTE)
    running.end(signal.SIGKILL)
    running.start()
    await asyncio.to_thread(running.until, END)
    running.end()
    expected, found = await water(calm), await water(rough)
    assert max(row["inflow_l_s"] for row in expected["sewer.RIVER"]) > 10
    assert found == expected, "to the last bit"
