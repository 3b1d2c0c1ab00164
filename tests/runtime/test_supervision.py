"""Supervision: one part that fails is restarted, the others do not notice."""

import asyncio
import itertools

import pytest

from duha_runtime.supervision import Failure, Fatal, Supervisor, describe


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def forever(runs: list[str]) -> None:
    runs.append("other")
    await asyncio.Event().wait()


async def test_a_failing_part_is_restarted_and_the_others_go_on(caplog):
    runs: list[str] = []

    async def fails() -> None:
        runs.append("bad")
        raise KeyError("device L17")

    changes: list[Failure] = []
    async with Supervisor(
        changes.append, first_pause_s=0.001, longest_pause_s=0.002
    ) as parts:
        parts.start("bad", fails)
        parts.start("other", lambda: forever(runs))
        while runs.count("bad") < 5:
            await asyncio.sleep(0.001)
        (failing,) = parts.failing
        assert failing.part == "bad"
        assert failing.count >= 4
        assert "L17" in failing.error
    assert runs.count("other") == 1
    assert [change.part for change in changes] == ["bad"]
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1, (
        "logged once"
    )


async def test_a_part_that_returns_counts_as_failed():
    async def returns() -> None:
        return

    async with Supervisor(first_pause_s=10) as parts:
        parts.start("short", returns)
        await asyncio.sleep(0.01)
        assert "ended although" in parts.failing[0].error


async def test_back_off_doubles_up_to_its_limit_and_ends_when_healthy():
    began: list[float] = []
    loop = asyncio.get_running_loop()

    async def fails() -> None:
        began.append(loop.time())
        raise OSError("no")

    async with Supervisor(first_pause_s=0.02, longest_pause_s=0.08) as parts:
        parts.start("line", fails)
        while len(began) < 5:
            await asyncio.sleep(0.005)
    pauses = [b - a for a, b in itertools.pairwise(began)]
    assert pauses[0] >= 0.019
    assert pauses[1] >= 0.039
    assert pauses[2] >= 0.079
    assert pauses[3] >= 0.079


async def test_a_restarted_part_is_healthy_again_after_a_while():
    runs = 0

    async def fails_once() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise OSError("first")
        await asyncio.Event().wait()

    changes: list[str] = []
    async with Supervisor(
        lambda f: changes.append(f.error), first_pause_s=0.001, healthy_s=0.02
    ) as parts:
        parts.start("link", fails_once)
        while len(changes) < 2:
            await asyncio.sleep(0.001)
        assert changes == ["OSError: first", ""]
        assert parts.failing == []
        assert parts.failures == {"link": 1}


async def test_a_fatal_setting_ends_the_process_with_its_sentence():
    async def fatal() -> None:
        raise Fatal("tls_ca: no such file")

    async with Supervisor() as parts:
        parts.start("link", fatal)
        with pytest.raises(Fatal, match="tls_ca"):
            await parts.wait()


async def test_a_barrier_counts_and_recovers_and_lets_cancellation_pass():
    parts = Supervisor()
    for _ in range(3):
        with parts.barrier("alarms"):
            raise IndexError("index 7")
    assert parts.failures == {"alarms": 3}
    with parts.barrier("alarms"):
        pass
    assert parts.failing == []
    with pytest.raises(asyncio.CancelledError), parts.barrier("alarms"):
        raise asyncio.CancelledError
    with pytest.raises(Fatal), parts.barrier("alarms"):
        raise Fatal("port is taken")


async def test_a_stopped_part_ends_and_is_forgotten():
    async def fails() -> None:
        raise OSError("no")

    async with Supervisor(first_pause_s=10) as parts:
        parts.start("line a", fails)
        await asyncio.sleep(0.01)
        await parts.stop("line a")
        assert parts.failing == []
        assert parts.parts == []
        parts.start("line a", fails)
        with pytest.raises(ValueError, match="runs already"):
            parts.start("line a", fails)


def test_names_of_failures_are_bounded():
    parts = Supervisor()
    for number in range(3000):
        parts.failed(f"document {number}", ValueError("bad"))
    assert len(parts.failures) <= 1001
    assert sum(parts.failures.values()) == 3000


def test_a_group_is_described_by_its_first_cause():
    group = ExceptionGroup(
        "several", [ExceptionGroup("inner", [OSError("disk\nfull")])]
    )
    assert describe(group) == "OSError: disk full"
