"""The baseline of `benchmarks.ingest`: the pipeline that one would write first.

One JSON message a reading, aiomqtt, a `Point` for each, written 500 at a time through
influxdb-client. Run as ``python -m benchmarks.plain PORT URL``; on SIGTERM it prints how
many readings it has written, and in which time [s].
"""

import asyncio
import contextlib
import json
import signal
import sys
import time
from typing import Any

import aiomqtt
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.client.write.point import Point

WRITE = 500


async def pipeline(port: int, url: str) -> None:
    """Write readings until told to stop."""
    written, points = 0, []
    began = last = 0.0
    async with (
        InfluxDBClientAsync(url, "token", org="duha") as influx,
        aiomqtt.Client("127.0.0.1", port) as client,
    ):
        await client.subscribe("plain/reading")
        print("ready", flush=True)
        write = influx.write_api().write
        with contextlib.suppress(asyncio.CancelledError):
            async for message in client.messages:
                began = began or time.perf_counter()
                reading = json.loads(message.payload)
                point: Any = Point("luminaire")  # type: ignore[no-untyped-call]
                point = point.tag("device", reading.pop("device"))
                point = point.time(reading.pop("ts"), "ms")
                for name, value in reading.items():
                    point = point.field(name, value)
                points.append(point)
                if len(points) == WRITE:
                    await write("duha", record=points)
                    written, last = written + len(points), time.perf_counter()
                    points = []
    print(written, last - began, flush=True)


async def main() -> None:
    """Run until SIGTERM."""
    task = asyncio.create_task(pipeline(int(sys.argv[1]), sys.argv[2]))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


if __name__ == "__main__":
    asyncio.run(main())
