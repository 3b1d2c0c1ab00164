"""Child processes of a simulation: started, watched, killed, ended in order."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from duha_contract.clock import TIMELINE_VARIABLE


class TownError(Exception):
    """A part of the town did not come up, or went away."""


class Processes:
    """Child processes by name, each with a log of its own.

    Parameters
    ----------
    folder : Path
        Where everything is kept; logs go to ``logs`` in it.
    timeline : str
        What their clocks show, as `Timeline` writes it; empty for this machine's time.
    """

    def __init__(self, folder: Path, timeline: str = "") -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(exist_ok=True)
        self._scratch = folder / "tmp"  # goes with the folder, however a child ends
        self._scratch.mkdir(exist_ok=True)
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self._timeline = timeline
        self._commands: dict[str, list[str]] = {}
        self._began = time.monotonic()

    def spawn(self, name: str, *arguments: str) -> None:
        """Start a ``duha`` command."""
        self.spawn_command(name, [sys.executable, "-m", "duha", *arguments])

    def spawn_command(self, name: str, command: list[str]) -> None:
        """Start any command."""
        self._commands[name] = command
        environment = os.environ | {
            TIMELINE_VARIABLE: self._timeline,
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self._scratch),
        }
        with (self.logs / f"{name}.log").open("ab") as log:
            self.children[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=environment, start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip

    def kill(self, name: str) -> None:
        """End a process at once, as a power cut would (SIGKILL)."""
        child = self.children.pop(name)
        child.kill()
        child.wait()

    def again(self, name: str) -> None:
        """Start a process that was killed, with the command that it had."""
        self.spawn_command(name, self._commands[name])

    def check(self) -> None:
        """Raise TownError when one of them has ended."""
        for name, child in self.children.items():
            if child.poll() is not None:
                raise TownError(
                    f"{name} ended ({child.returncode}):\n{self._tail(name)}"
                )

    def until(self, what: str, ready: Callable[[], bool], limit: float = 30) -> None:
        """Wait for something, while every process is alive."""
        deadline = time.monotonic() + limit
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise TownError(
                    f"{what} did not come up in {limit:.0f} s; see {self.logs}"
                )
            time.sleep(0.1)

    def end(self, names: Iterable[str]) -> None:
        """End some processes side by side; those that do not hear are killed."""
        children = [self.children[name] for name in names if name in self.children]
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def say(self, text: str) -> None:
        """Say how far it is."""
        print(f"[{time.monotonic() - self._began:4.1f} s] {text}", flush=True)

    def _tail(self, name: str) -> str:
        text = (self.logs / f"{name}.log").read_text("utf-8", errors="replace")
        return "\n".join(text.splitlines()[-8:])


def _die_with_parent() -> None:
    """Linux ends this child when the demo itself is killed."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
