"""Parts of one whole that run side by side and end together."""

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any

from duha_runtime.waiting import ended


async def side_by_side(parts: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Run parts until one of them ends, then end the others; raise what ended it.

    A task group would cancel each of the others once; a library that swallows a
    cancellation makes a second one necessary (`ended`).

    Parameters
    ----------
    parts : mapping of str to coroutine
        By the names of their tasks.
    """
    tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        while not all(task.done() for task in tasks):
            # The whole may be cancelled again meanwhile; its parts end first.
            with suppress(asyncio.CancelledError):
                await ended(tasks)
