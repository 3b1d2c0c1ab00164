"""The book of alarms, and telling people: a real mail server, a real web server."""

import asyncio
import contextlib
import http.server
import json
import threading
import time
from typing import Any

import pytest
from aiosmtpd.controller import Controller as MailServer

from duha_backend.alarms.book import Book
from duha_backend.alarms.channels import Channel
from duha_backend.alarms.deliver import Deliveries, Mail
from duha_backend.alarms.engine import News
from duha_backend.alarms.office import Office
from duha_backend.errors import Invalid, NotFound, RegistryDown
from duha_backend.registry import Registry
from tests.backend.nightwatch import SUN, Town

HOUR = 3_600_000


@pytest.fixture
def registry(tmp_path):
    made = Registry.in_folder(tmp_path)
    yield made
    made.close()


@pytest.fixture
def book(registry):
    return Book(registry.engine)


def news(began=True, ts=1000, name="L1", code="lampFailure"):
    return News(code, name, "R1", began, ts, "0.5 W at 100 % asked", 1)


def taken(book, *news, queue=lambda _db, _rows: None):
    return book.take(news, queue)


def states(book, now=2000):
    return [row["state"] for row in book.page(now)]


def test_the_life_of_an_alarm(book):
    (row,) = taken(book, news())
    assert states(book) == ["unacknowledged"]
    assert book.counts(2000) == {"medium": 1}
    assert book.acknowledge([row["id"]], "eva", 1500) == 1
    assert book.acknowledge([row["id"]], "jan", 1600) == 0
    assert states(book) == ["acknowledged"]
    assert book.counts(2000) == {}
    assert book.standing() == [("lampFailure", "L1")]
    taken(book, news(began=False, ts=1800))
    assert states(book) == []
    (old,) = book.page(2000, everything=True)
    assert (old["state"], old["acknowledged_by"], old["cleared"]) == (
        "closed",
        "eva",
        1800,
    )


def test_one_that_went_before_anybody_saw_it_stays_in_sight(book):
    (row,) = taken(book, news())
    taken(book, news(began=False, ts=1500))
    assert states(book) == ["cleared"]
    assert (
        taken(book, news(ts=1700)) == []
    )  # back again: the same alarm, nobody is told twice
    (again,) = book.page(2000)
    assert (again["id"], again["times"], again["state"]) == (
        row["id"],
        2,
        "unacknowledged",
    )
    taken(book, news(began=False, ts=1800))
    book.acknowledge([row["id"]], "eva", 1900)
    assert states(book) == []
    (fresh,) = taken(book, news(ts=2000))
    assert fresh["id"] != row["id"]


def test_what_stands_is_written_down_once(book):
    assert len(taken(book, news(), news())) == 1
    assert taken(book, news(began=False, name="L9")) == []


def test_a_shelf_has_a_reason_and_an_end(book):
    (row,) = taken(book, news())
    with pytest.raises(Invalid, match="why"):
        book.shelve([row["id"]], "eva", 2000, 2000 + HOUR, "  ")
    with pytest.raises(Invalid, match="90 days"):
        book.shelve([row["id"]], "eva", 2000, 2000 + 91 * 24 * HOUR, "waiting")
    with pytest.raises(NotFound, match="no alarm 99"):
        book.shelve([99], "eva", 2000, 2000 + HOUR, "waiting")
    book.shelve([row["id"]], "eva", 2000, 2000 + HOUR, "waiting for a driver")
    assert states(book) == ["shelved"]
    assert book.counts(2000) == {}
    assert states(book, 2000 + HOUR) == ["unacknowledged"]
    book.shelve([row["id"]], "eva", 2000, 2000 + HOUR, "waiting for a driver")
    book.unshelve([row["id"]])
    assert states(book) == ["unacknowledged"]


class _Web(http.server.ThreadingHTTPServer):
    got: list[Any]
    answers: list[int]


class _Hook(http.server.BaseHTTPRequestHandler):
    server: _Web

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status == 200:
            self.server.got.append(json.loads(body))
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def hook():
    server = _Web(("127.0.0.1", 0), _Hook)
    server.got, server.answers = [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Clock:
    now = 1000.0


def deliveries(registry, channels, mail=None):
    clock = Clock()
    made = Deliveries(
        registry.engine, lambda: channels, mail, "Plzeň", lambda: clock.now
    )
    return made, clock


async def test_a_webhook_is_told_again_until_it_has_worked(registry, book, hook):
    hook.answers = [500, 503]
    url = f"http://127.0.0.1:{hook.server_address[1]}/alarms"
    made, clock = deliveries(registry, [Channel("h", "webhook", url, when_over=True)])
    taken(book, news(), queue=made.queue)
    assert await made.send_due() == 0
    assert await made.send_due() == 0  # not yet due again
    (waiting,) = made.log()
    assert (waiting["state"], waiting["attempts"]) == ("waiting", 1)
    assert "500" in waiting["detail"]
    clock.now += 61
    assert await made.send_due() == 0
    clock.now += 121
    assert await made.send_due() == 1
    taken(book, news(began=False, ts=5000), queue=made.queue)
    assert await made.send_due() == 1
    assert [(got["what"], got["code"], got["object"]) for got in hook.got] == [
        ("raised", "lampFailure", "L1"),
        ("cleared", "lampFailure", "L1"),
    ]
    assert hook.got[0]["city"] == "Plzeň"
    assert {row["state"] for row in made.log()} == {"sent"}


async def test_an_address_where_nobody_listens_is_given_up_after_a_day(registry, book):
    made, clock = deliveries(registry, [Channel("h", "webhook", "http://127.0.0.1:1/")])
    taken(book, news(), queue=made.queue)
    for _ in range(40):
        await made.send_due()
        clock.now += 3601
    (row,) = made.log()
    assert row["state"] == "given up"
    assert 24 <= row["attempts"] <= 26


async def test_a_channel_is_told_of_what_it_asked_for(registry, book, hook):
    url = f"http://127.0.0.1:{hook.server_address[1]}/"
    channels = [
        Channel("high", "webhook", url, severities=("high",)),
        Channel("doors", "webhook", url, codes=("cabinetDoorOpen",)),
    ]
    made, _ = deliveries(registry, channels)
    three = (news(), news(code="supplyLoss"), news(code="cabinetDoorOpen"))
    taken(book, *three, queue=made.queue)
    taken(book, news(began=False, code="supplyLoss", ts=2000), queue=made.queue)
    assert sorted((row["channel"], row["what"]) for row in made.log()) == [
        ("doors", "raised"),
        ("high", "raised"),
    ]


class _Box:
    def __init__(self):
        self.got = []

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
        self.got.append(envelope)
        return "250 OK"


async def test_a_mail_says_what_where_and_how_many(registry, book, free_port):
    box = _Box()
    server = MailServer(box, hostname="127.0.0.1", port=free_port)
    server.start()
    try:
        mail = Mail("127.0.0.1", free_port, "duha@example.org", secure=False)
        channels = [Channel("m", "email", "dispatch@example.org")]
        made, _ = deliveries(registry, channels, mail)
        taken(book, news(code="segmentFailure", name="R1/F2"), queue=made.queue)
        assert await made.send_due() == 1
    finally:
        server.stop()
    (envelope,) = box.got
    assert envelope.rcpt_tos == ["dispatch@example.org"]
    text = envelope.content.decode()
    assert "segmentFailure R1/F2" in text
    assert "From: duha@example.org" in text


async def test_without_a_mail_server_the_log_says_so(registry, book):
    made, _ = deliveries(registry, [Channel("m", "email", "dispatch@example.org")])
    taken(book, news(), queue=made.queue)
    assert await made.send_due() == 0
    assert "--smtp" in made.log()[0]["detail"]


@pytest.mark.parametrize(
    "channel",
    [
        Channel("c", "email", "nobody"),
        Channel("c", "webhook", "ftp://example.org"),
        Channel("c", "webhook", "file:///etc/passwd"),
        Channel("c", "email", "a@b", severities=("loud",)),
        Channel("c", "email", "a@b\r\nBcc: c@d"),
        Channel("c", "email", "a@b, c@d"),
        Channel("c", "webhook", "http://alarms.example.org:80a/hook"),
        Channel("c", "webhook", "http://example.org:99999/"),
        Channel("c", "webhook", "http://[bad"),
        Channel("c", "webhook", "https:///hook"),
        Channel("c", "webhook", "https://example.org/a b"),
        Channel("c", "webhook", f"https://{'x' * 64}.example.org/"),
        Channel("c", "webhook", "https://example.org/\r\nX: y"),
    ],
)
def test_a_channel_that_cannot_be_is_refused(channel):
    with pytest.raises(Invalid, match="channel c"):
        channel.check()


def test_an_alarm_and_who_is_told_of_it_are_written_together(book):
    def crash(_db, _rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taken(book, news(), queue=crash)
    assert book.standing() == []  # it is found again, and told then


ANSWERS = {
    "no HTTP": b"hello\r\n\r\n",
    "nothing": b"",
    "half a header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    "a false length": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@contextlib.asynccontextmanager
async def web(answer, hang=asyncio.Event):
    """A server that answers whatever it likes, or (None) never."""
    never = hang()

    async def serve(reader, writer):
        with contextlib.suppress(OSError):
            await reader.read(1000)
            if answer is None:
                await never.wait()
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        never.set()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("what", ANSWERS)
async def test_whatever_a_web_server_answers_fails_its_own_message_only(
    registry, book, hook, what
):
    good = f"http://127.0.0.1:{hook.server_address[1]}/"
    async with web(ANSWERS[what]) as bad:
        channels = [Channel("bad", "webhook", bad), Channel("good", "webhook", good)]
        made, _ = deliveries(registry, channels)
        taken(book, news(), queue=made.queue)
        assert await made.send_due() == 1
    states = {row["channel"]: (row["state"], row["detail"]) for row in made.log()}
    assert states["good"] == ("sent", "")
    assert states["bad"][0] == "waiting"
    assert states["bad"][1]


async def test_an_answer_without_end_is_not_read_to_its_end(registry, book):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 200_000
    async with web(answer) as url:
        made, _ = deliveries(registry, [Channel("h", "webhook", url)])
        taken(book, news(), queue=made.queue)
        assert await made.send_due() == 1


async def test_an_address_that_was_stored_before_it_was_checked_ends_nothing(
    registry, book
):
    channels = [
        Channel("a", "webhook", "http://x:80a/"),
        Channel("b", "email", "a@b\nBcc: c@d"),
    ]
    made, _ = deliveries(registry, channels, Mail("127.0.0.1", 1))
    taken(book, news(), queue=made.queue)
    assert await made.send_due() == 0
    assert {row["state"] for row in made.log()} == {"waiting"}


async def test_a_web_server_that_hangs_delays_no_other_channel(registry, book, hook):
    good = f"http://127.0.0.1:{hook.server_address[1]}/"
    async with web(None) as bad:
        channels = [Channel("bad", "webhook", bad), Channel("good", "webhook", good)]
        made, _ = deliveries(registry, channels)
        running = asyncio.create_task(made.run(lambda: True))
        try:
            for name in ("L1", "L2"):
                taken(book, news(name=name), queue=made.queue)
                deadline = time.monotonic() + 10  # the hanging one takes longer
                while not [g for g in hook.got if g["object"] == name]:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.05)
            assert {r["state"] for r in made.log() if r["channel"] == "bad"} == {
                "waiting"
            }
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_an_alarm_outlives_a_registry_that_is_away_and_a_standby_keeps_nothing(
    registry, monkeypatch
):
    """What was found while the registry could not write is written when it can."""
    town = Town("2026-11-24T19:00+01:00")
    office = Office(
        registry,
        town.live,
        town.roads,
        SUN,
        lambda: town.desired,
        None,
        "x",
        lambda: 0.0,
    )
    town.engine = office._engine
    await office.tick(round(town.now * 1000), leading=True)
    await town.run(120)
    town.raised.clear()
    ms = round(town.now * 1000)
    monkeypatch.setattr(office._engine, "tick", lambda _now: [news()])
    take = office.book.take

    def away(_news, _queue):
        raise RegistryDown("away")

    monkeypatch.setattr(office.book, "take", away)
    with pytest.raises(RegistryDown):
        await office.tick(ms, leading=True)
    monkeypatch.setattr(office.book, "take", take)
    monkeypatch.setattr(office._engine, "tick", lambda _now: [])
    await office.tick(ms + 1000, leading=True)
    assert office.book.standing() == [("lampFailure", "L1")]
    await office.tick(ms + 2000, leading=False)
    await town.poll()
    assert town.live._fresh == {}
