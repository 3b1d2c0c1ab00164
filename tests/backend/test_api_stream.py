"""The page's stream: it ends with its session, and a slow reader costs nothing."""

import asyncio
import time

import httpx

from duha_backend.api.now import _ticks
from duha_backend.live import Live
from tests.backend.test_api import api, city_folder, now_ms  # noqa: F401

T0 = 1_800_000_000_000


async def test_a_stream_ends_within_two_seconds_of_its_session(api):  # noqa: F811
    async with httpx.AsyncClient(base_url=api.client.base_url) as page:
        await page.post("/session", json={"token": api.token})
        async with page.stream("GET", "/events", timeout=10) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines)
            began = time.monotonic()
            async with httpx.AsyncClient(base_url=api.client.base_url, cookies=page.cookies) as other:  # fmt: skip
                assert (await other.delete("/session")).status_code == 204
            async for _ in lines:
                assert time.monotonic() - began < 5
        assert time.monotonic() - began < 4  # two seconds, and this machine's load


async def test_a_stream_goes_on_while_the_registry_cannot_say_who_asks():
    live = Live([])

    def away():
        raise OSError("the registry is away")

    stream = _ticks(live, away)
    for n in range(3):
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(1.0 if n == 1 else 0)
        await live.tick(T0 + n)
        assert b"id: %d\n" % (n + 1) in await waiting
    await stream.aclose()


async def test_a_slow_page_gets_the_newest_tick_and_all_pages_the_same_bytes():
    live = Live([])
    pages = [_ticks(live, lambda: True) for _ in range(3)]
    first = [asyncio.create_task(anext(page)) for page in pages]
    await asyncio.sleep(0)
    await live.tick(T0)
    assert len({id(event) for event in await asyncio.gather(*first)}) == 1
    for n in range(100):
        await live.tick(T0 + n)
    assert b"id: 101\n" in await anext(pages[0])
    for page in pages:
        await page.aclose()
