"""Tells people of alarms: by e-mail and webhook, again until it has worked, with a log."""

import asyncio
import logging
import smtplib
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

import httpx
import sqlalchemy as sa

from duha_backend import tables
from duha_backend.alarms.book import Row
from duha_backend.alarms.channels import Channel
from duha_backend.alarms.engine import Barrier, no_barrier
from duha_backend.database import Database
from duha_backend.errors import Invalid
from duha_backend.executors import MAIL
from duha_runtime.waiting import ended

log = logging.getLogger(__name__)

RETRY_S = (60.0, 120.0, 300.0, 900.0, 3600.0)
MOST_ATTEMPTS = 26
"""A message that has not arrived in so many attempts, about a day, is given up."""
TIMEOUT_S = 15.0
ANSWER_S = 10.0
EVERY_S = 2.0
AT_ONCE = 20
MOST_CHANNELS = 100
MOST_ANSWER = 64 * 1024
"""What is read of an answer [bytes]."""
DETAIL = 300


@dataclass(frozen=True)
class Mail:
    """A mail server; `secure` uses STARTTLS before anything is said."""

    host: str
    port: int = 587
    sender: str = ""
    user: str = ""
    password: str = ""
    secure: bool = True


class Deliveries:
    """A queue of messages in the registry's database; nothing is lost by a restart.

    Parameters
    ----------
    engine : Database
        The registry's.
    channels : callable
        Reads the channels.
    mail : Mail or None
        The mail server.
    city : str
        Named in every message.
    real_s : callable
        Real POSIX time [s]: retries do not follow a simulated clock.
    """

    def __init__(
        self,
        engine: Database,
        channels: Callable[[], Iterable[Channel]],
        mail: Mail | None,
        city: str,
        real_s: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._channels = channels
        self._mail = mail
        self._city = city
        self._real_s = real_s
        self._client: httpx.AsyncClient | None = None
        self._sending: dict[str, asyncio.Task[Any]] = {}

    def queue(self, db: sa.Connection, rows: Iterable[Row]) -> None:
        """Put messages about alarms into the queue, in the transaction that writes them."""
        if not (rows := list(rows)):
            return
        channels = list(self._channels())
        wanted = [
            {
                "alarm": row["id"],
                "channel": channel.id,
                "what": "raised" if row["cleared"] is None else "cleared",
                "ts": row["cleared"] or row["raised"],
                "state": "waiting",
                "attempts": 0,
                "due": 0.0,
                "detail": "",
            }
            for row in rows
            for channel in channels
            if channel.wants(row)
        ]
        if wanted:
            db.execute(sa.insert(tables.delivery), wanted)

    def log(self, alarm: int | None = None, limit: int = 200) -> list[Row]:
        """What has been told to whom, newest first."""
        d = tables.delivery.c
        query = sa.select(tables.delivery).order_by(d.id.desc()).limit(limit)
        if alarm is not None:
            query = query.where(d.alarm == alarm)
        with self._engine.connect() as db:
            return [dict(row) for row in db.execute(query).mappings()]

    async def run(
        self, leading: Callable[[], bool], barrier: Barrier = no_barrier
    ) -> None:
        """Send what is due, for as long as this process leads; until cancelled."""
        try:
            while True:
                if leading():
                    with barrier("deliveries"):
                        await self._begin()
                await asyncio.sleep(EVERY_S)
        finally:
            sending, self._sending = list(self._sending.values()), {}
            await ended(sending)

    async def send_due(self) -> int:
        """Send what is due now; returns how many messages have arrived."""
        begun = await self._begin()
        return sum(await asyncio.gather(*begun))

    async def _begin(self) -> list[asyncio.Task[Any]]:
        """Begin with the channels that have something due and are not busy yet."""
        failed = [t for t in self._sending.values() if t.done() and t.exception()]
        self._sending = {n: t for n, t in self._sending.items() if not t.done()}
        due = await asyncio.to_thread(self._due, self._real_s(), list(self._sending))
        known = await asyncio.to_thread(self._channels) if due else ()
        channels = {channel.id: channel for channel in known}
        begun = []
        for name, messages in due.items():
            task = asyncio.create_task(self._send_all(channels.get(name), messages))
            self._sending[name] = task
            begun.append(task)
        for task in failed:
            task.result()
        return begun

    def _due(self, now: float, busy: list[str]) -> dict[str, list[tuple[Row, Row]]]:
        """Messages that are due, with their alarms, by channel; some of each."""
        d, a = tables.delivery.c, tables.alarm
        waiting = (d.state == "waiting") & (d.due <= now)
        names = sa.select(d.channel).where(waiting, d.channel.not_in(busy)).distinct()
        found = {}
        with self._engine.connect() as db:
            for name in db.execute(names.limit(MOST_CHANNELS)).scalars().all():
                query = (
                    sa.select(tables.delivery, a)
                    .join(a, a.c.id == d.alarm)
                    .where(waiting, d.channel == name)
                    .order_by(d.id)
                    .limit(AT_ONCE)
                )
                found[name] = [
                    (
                        dict(zip(d.keys(), row[: len(d)], strict=True)),
                        dict(zip(a.c.keys(), row[len(d) :], strict=True)),
                    )
                    for row in db.execute(query)
                ]
        return found

    async def _send_all(
        self, channel: Channel | None, messages: Iterable[tuple[Row, Row]]
    ) -> int:
        """Send the messages of one channel until one does not arrive."""
        sent = 0
        for waiting, alarm in messages:
            values = await self._send(channel, waiting, alarm)
            await asyncio.to_thread(self._note, waiting["id"], values)
            if values["state"] == "waiting":
                break  # the far side is in trouble; the others are due at the next look
            sent += values["state"] == "sent"
        return sent

    async def _send(
        self, channel: Channel | None, waiting: Row, alarm: Row
    ) -> dict[str, Any]:
        """Send one message; what came of it."""
        attempts = waiting["attempts"] + 1
        if channel is None:
            detail = "the channel is gone"
            return {"attempts": attempts, "state": "given up", "detail": detail}
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._tell(channel, waiting["what"], alarm)
        except Exception as error:  # noqa: BLE001 - the far side is somebody else's
            said = " ".join(str(error).split()) or type(error).__name__
            log.warning("alarm %d to %s: %s", alarm["id"], channel.id, said[:DETAIL])
            later = self._real_s() + RETRY_S[min(attempts, len(RETRY_S)) - 1]
            state = "waiting" if attempts < MOST_ATTEMPTS else "given up"
            return {
                "attempts": attempts,
                "state": state,
                "due": later,
                "detail": said[:DETAIL],
            }
        return {"attempts": attempts, "state": "sent", "detail": ""}

    def _note(self, number: int, values: dict[str, Any]) -> None:
        here = tables.delivery.c.id == number
        with self._engine.begin() as db:
            db.execute(sa.update(tables.delivery).where(here).values(**values))

    async def _tell(self, channel: Channel, what: str, alarm: Row) -> None:
        channel.check()  # it may have been stored before the check was as it is
        if channel.kind == "webhook":
            body = {"city": self._city, "what": what, **_out(alarm)}
            await _post(await self._http(), channel.to, body)
        elif self._mail is None:
            raise Invalid("no mail server: start the backend with --smtp host:port")
        else:
            message = _message(self._city, what, alarm)
            await MAIL.run(_mail, self._mail, channel.to, message)

    async def _http(self) -> httpx.AsyncClient:
        """A client that keeps no connection; reading the authorities takes a while."""
        if self._client is None:
            self._client = await asyncio.to_thread(_client)
        return self._client


def _out(alarm: Row) -> dict[str, Any]:
    names = ("id", "code", "object", "cabinet", "severity", "detail", "affected", "raised", "cleared")  # fmt: skip
    return {name: alarm[name] for name in names}


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=httpx.Timeout(ANSWER_S),
        follow_redirects=False,  # a redirect may lead anywhere, into the house too
        limits=httpx.Limits(max_connections=MOST_CHANNELS, max_keepalive_connections=0),
        headers={"User-Agent": "duha", "Accept-Encoding": "identity"},
    )


async def _post(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> None:
    async with client.stream("POST", url, json=body) as answer:
        read = 0
        async for part in answer.aiter_raw():
            read += len(part)
            if read > MOST_ANSWER:
                break
    if not answer.is_success:
        raise Invalid(f"{answer.status_code} {answer.reason_phrase}")


def _message(city: str, what: str, alarm: Row) -> EmailMessage:
    message = EmailMessage()
    over = " is over" if what == "cleared" else ""
    subject = f"[Duha {city}] {alarm['code']} {alarm['object']}{over}"
    message["Subject"] = " ".join(subject.split())
    lines = [
        f"{alarm['code']}{over}: {alarm['object']}, cabinet {alarm['cabinet']}",
        f"severity: {alarm['severity']}",
        f"luminaires concerned: {alarm['affected']}",
        alarm["detail"],
    ]
    message.set_content("\n".join(line for line in lines if line) + "\n")
    return message


def _mail(server: Mail, to: str, message: EmailMessage) -> None:
    message["To"] = to
    message["From"] = server.sender or f"duha@{server.host}"
    with smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_S) as smtp:
        if server.secure:
            smtp.starttls(context=ssl.create_default_context())
        if server.user:
            smtp.login(server.user, server.password)
        smtp.send_message(message)
