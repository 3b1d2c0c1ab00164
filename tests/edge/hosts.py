"""Hosts that do not behave, for lines that must bear it."""

import asyncio
import contextlib
from typing import Any


@contextlib.asynccontextmanager
async def server(converse):
    """A TCP server that does with its connections what it is told; its port."""
    serving: set[Any] = set()

    async def serve(reader, writer):
        serving.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await converse(reader, writer)
        writer.transport.abort()

    made = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()
        for task in serving:
            task.cancel()
        await asyncio.sleep(0.02)


async def babble(_reader, writer):
    """Send a byte every 10 ms for as long as the connection lasts."""
    while not writer.is_closing():
        writer.write(b"\x55")
        await asyncio.sleep(0.01)
