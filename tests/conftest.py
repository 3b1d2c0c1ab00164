"""What every test is held to: no task and no socket is left open."""

import asyncio
import functools
import gc
import inspect
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("duha", deadline=None, max_examples=60)
settings.load_profile("duha")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-tools",
        action="store_true",
        help="a missing outside program is a failure",
    )


def pytest_configure(config: pytest.Config) -> None:
    global _strict_tools  # noqa: PLW0603 - set once, before any test
    _strict_tools = config.getoption("--strict-tools")


_strict_tools = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        test = getattr(item, "obj", None)
        if inspect.iscoroutinefunction(test):
            item.obj = _leaving_nothing(test)  # type: ignore[attr-defined]


def _leaving_nothing(test):
    """Fail a test that leaves a task behind, whatever else it checks."""

    @functools.wraps(test)
    async def checked(*args, **kwargs):
        before = asyncio.all_tasks()
        await test(*args, **kwargs)
        left: list[str] = []
        for _ in range(60):  # what was told to end may take a moment
            left = [t.get_name() for t in asyncio.all_tasks() - before if not t.done()]
            if not left:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"tasks left behind: {left}")

    return checked


@pytest.fixture(autouse=True)
def _no_socket_left() -> Iterator[None]:
    before = _sockets()
    yield
    left = _sockets() - before
    if left:  # perhaps only garbage that was not yet collected
        gc.collect()
        left &= _sockets()
    assert len(left) == 0, f"sockets left open: {left}"


def _sockets() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_POSTGRESQL = Path("/usr/lib/postgresql")


def tool(name: str) -> str:
    """Path of an outside program; a test that needs a missing one is skipped."""
    places = [os.environ["PATH"], "/usr/sbin", *map(str, _POSTGRESQL.glob("*/bin"))]
    found = shutil.which(name, path=":".join(places))
    if found is None:
        if _strict_tools:
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed: see `make tools`")
    return found


@pytest.fixture
def outside():
    return tool


ROOT = Path(__file__).resolve().parent.parent
