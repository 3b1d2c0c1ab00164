"""A town of real processes for the system tests."""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duha_sim.demo import _parser
from duha_sim.town import Town
from tests.conftest import tool

OUTAGE_S = float(os.environ.get("DUHA_TEST_OUTAGE_S", "12"))


def options(*words: str) -> argparse.Namespace:
    return _parser().parse_args(["--port", "0", *words])


class Visitor:
    """Somebody who looks at a running town."""

    def __init__(self, town: Town) -> None:
        self.town = town

    def ask(self, path: str) -> Any:
        return self.town.ask("GET", path)

    def until(
        self, what: str, condition: Callable[[], object], limit: float = 30
    ) -> float:
        """Wait for something; returns how long it took [s]."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < limit, f"{what}: not within {limit} s"
            time.sleep(0.05)
        return time.monotonic() - began


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Town]]:
    """Start towns; all of them are stopped at the end."""
    running: list[Town] = []

    def _start(*words: str) -> Town:
        if "mosquitto" in words:
            tool("mosquitto")
        folder = tmp_path / f"town{len(running)}"
        folder.mkdir()
        town = Town(options(*words), folder)
        running.append(town)
        town.start()
        return town

    yield _start
    for town in running:
        town.stop()
