"""Waiting for an event, or for some time."""

import asyncio


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
