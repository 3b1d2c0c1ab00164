import asyncio

import pytest

from duha_runtime.waiting import ended, heard


async def test_an_event_is_heard_or_not():
    event = asyncio.Event()
    assert not await heard(event, 0.01)
    event.set()
    assert await heard(event, None)


@pytest.mark.parametrize("steps", range(5))
async def test_a_task_that_is_told_to_end_as_the_event_comes_ends(steps):
    """Python 3.11's own wait_for goes on here, and the agent did not stop."""
    event = asyncio.Event()

    async def work():
        while True:
            await heard(event, 5)
            event.clear()

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    event.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=0.5)
    assert task.cancelled()


async def test_a_task_that_swallows_its_cancellation_is_cancelled_again():
    swallowed = 0

    async def stubborn():
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 2:
                    raise

    async def failing():
        await asyncio.sleep(0)
        raise ValueError

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(failing())]
    await asyncio.sleep(0.01)
    await ended(tasks, again_s=0.05)
    assert all(task.done() for task in tasks)
    assert swallowed == 2
    await ended([])
