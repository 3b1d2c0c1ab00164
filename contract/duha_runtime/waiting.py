"""Waiting for an event, or for some time."""

import asyncio
from collections.abc import Iterable


async def heard(event: asyncio.Event, within_s: float | None) -> bool:
    """Wait until an event is set, at most `within_s` [s] (None: for ever).

    ``asyncio.wait_for`` of Python 3.11 swallows a cancellation that comes at the same
    moment as the event: a task would go on that was told to end.
    """
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def ended(tasks: Iterable[asyncio.Task[None]], again_s: float = 1.0) -> None:
    """Cancel tasks and wait until they are over.

    A library may swallow a cancellation (``asyncio.wait_for`` of Python 3.11 within a
    connect does): whoever still runs after a while is cancelled again.
    """
    all_of_them = list(tasks)
    pending = set(all_of_them)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_s)
    await asyncio.gather(*all_of_them, return_exceptions=True)
