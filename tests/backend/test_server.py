"""The HTTP server: connections that ask for nothing, that do not end, that do not read."""

import asyncio
import contextlib
import logging
import resource
import socket
import time

import pytest
import uvicorn

from duha_backend.api.limits import Limits
from duha_backend.api.server import configured, quiet

ASK = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def answering(scope, receive, send):
    """Answer with as many bytes as the path says."""
    size = int(scope["path"].lstrip("/") or 2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})  # fmt: skip
    for start in range(0, size, 65_536):
        body = b"x" * min(65_536, size - start)
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def serving(app=answering, **limits):
    """A server with its own limits, and how to connect to it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        server = uvicorn.Server(configured(app, Limits(**limits)))
        setattr(server, "capture_signals", contextlib.nullcontext)  # noqa: B010 - pytest's signals stay
        running = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        async with contextlib.AsyncExitStack() as stack:

            async def connect(data=b""):
                reader, writer = await asyncio.open_connection(*listening.getsockname())
                stack.callback(writer.close)
                writer.write(data)
                return reader, writer

            yield connect
        server.should_exit = True
        await running


async def ended(reader, within=5.0):
    """Whether the other side closes a connection without a word."""
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), within) == b""
    return True


async def answered(reader):
    return (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200")


async def test_a_header_has_its_time_whatever_comes_of_it():
    async with serving(header_s=0.5) as connect:
        silent, _ = await connect()
        half, writer = await connect(b"GET / HTTP/1.1\r\nX-A:")
        begun = time.monotonic()
        for _ in range(8):
            writer.write(b"x")
            await asyncio.sleep(0.05)
        assert await ended(silent)
        assert await ended(half)
        assert time.monotonic() - begun < 4


async def test_the_second_request_of_a_connection_has_its_time_too():
    async with serving(header_s=0.5) as connect:
        reader, writer = await connect(ASK)
        assert await answered(reader)
        writer.write(b"GET / HT")
        assert (await asyncio.wait_for(reader.read(), 5)).endswith(b"\r\n\r\nxx")


async def test_the_oldest_that_ask_for_nothing_make_room():
    async with serving(waiting=5) as connect:
        silent = [(await connect(b"GET"))[0] for _ in range(12)]
        await asyncio.sleep(0.1)
        reader, _ = await connect(ASK)
        assert await answered(reader)
        assert all([await ended(one) for one in silent[:6]])
        with pytest.raises(TimeoutError):
            await ended(silent[-1], 0.2)


async def test_connections_of_all_addresses_together_are_few():
    async with serving(connections=5) as connect:
        silent = [(await connect())[0] for _ in range(9)]
        reader, _ = await connect(ASK)
        assert await answered(reader)
        assert all([await ended(one) for one in silent[:4]])


async def test_an_answer_that_is_not_read_is_given_up():
    async with serving(write_s=0.3) as connect:
        reader, _ = await connect(b"GET /100000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(1)
        got = 0
        with contextlib.suppress(ConnectionError):
            while part := await asyncio.wait_for(reader.read(1 << 20), 5):
                got += len(part)
        assert got < 50_000_000


async def test_many_headers_end_a_connection():
    async with serving() as connect:
        reader, _ = await connect(b"GET / HTTP/1.1\r\n" + b"X-A: bbbbbbbb\r\n" * 9000)
        assert await ended(reader)


async def test_the_server_does_not_say_what_it_is():
    async with serving() as connect:
        reader, _ = await connect(ASK)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert b"server:" not in head.lower()


async def test_accepts_that_fail_are_logged_once(caplog):
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    try:
        quiet(loop)
        with caplog.at_level(logging.WARNING):
            for _ in range(2000):
                loop.call_exception_handler({
                    "message": "socket.accept() out of system resource",
                    "exception": OSError(24, "Too many open files"),
                })  # fmt: skip
            loop.call_exception_handler({"message": "something else"})
        assert caplog.text.count("Too many open files") == 1
        assert "something else" in caplog.text
    finally:
        loop.set_exception_handler(before)


def test_a_process_may_open_as_many_files_as_the_system_lets_it():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
        configured(answering)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 65_536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("trusted", "seen"), [((), "127.0.0.1"), (("127.0.0.1",), "6.6.6.6")]
)
async def test_a_forwarded_address_is_believed_of_a_trusted_proxy_only(trusted, seen):
    addresses = []

    async def noting(scope, receive, send):
        addresses.append(scope["client"][0])
        await answering(scope, receive, send)

    async with serving(noting, trusted_proxies=trusted) as connect:
        reader, _ = await connect(
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
        )
        assert await answered(reader)
    assert addresses == [seen]
