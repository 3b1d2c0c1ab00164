"""Tells people of alarms: by e-mail and webhook, again until it has worked, with a log."""

import asyncio
import json
import logging
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

import sqlalchemy as sa

from duha_backend import tables
from duha_backend.alarms.book import Row
from duha_backend.alarms.channels import Channel
from duha_backend.database import Database
from duha_backend.errors import Invalid

log = logging.getLogger(__name__)

RETRY_S = (60.0, 120.0, 300.0, 900.0, 3600.0)
GIVE_UP_MS = 24 * 3_600_000
TIMEOUT_S = 15.0
EVERY_S = 2.0
AT_ONCE = 100


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
        Gives the channels.
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

    def queue(self, rows: Iterable[Row]) -> None:
        """Put messages about alarms into the queue."""
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
            with self._engine.begin() as db:
                db.execute(sa.insert(tables.delivery), wanted)

    def log(self, alarm: int | None = None, limit: int = 200) -> list[Row]:
        """What has been told to whom, newest first."""
        d = tables.delivery.c
        query = sa.select(tables.delivery).order_by(d.id.desc()).limit(limit)
        if alarm is not None:
            query = query.where(d.alarm == alarm)
        with self._engine.connect() as db:
            return [dict(row) for row in db.execute(query).mappings()]

    async def run(self, leading: Callable[[], bool]) -> None:
        """Send what is due, for as long as this process leads; until cancelled."""
        while True:
            if leading():
                try:
                    await asyncio.to_thread(self.send_due)
                except sa.exc.SQLAlchemyError as error:
                    log.warning("deliveries: %s", str(error).splitlines()[0])
            await asyncio.sleep(EVERY_S)

    def send_due(self) -> int:
        """Send what is due now; returns how many messages have arrived."""
        d, a = tables.delivery.c, tables.alarm
        now = self._real_s()
        query = (
            sa.select(tables.delivery, a)
            .join(a, a.c.id == d.alarm)
            .where(d.state == "waiting", d.due <= now)
            .order_by(d.id)
            .limit(AT_ONCE)
        )
        with self._engine.connect() as db:
            due = [(row[: len(d)], row[len(d) :]) for row in db.execute(query)]
        channels = {channel.id: channel for channel in self._channels()}
        sent = 0
        for told, alarm in due:
            waiting = dict(zip(d.keys(), told, strict=True))
            row = dict(zip(a.c.keys(), alarm, strict=True))
            sent += self._send(channels.get(waiting["channel"]), waiting, row, now)
        return sent

    def _send(
        self, channel: Channel | None, waiting: Row, alarm: Row, now: float
    ) -> bool:
        attempts = waiting["attempts"] + 1
        values: dict[str, Any] = {"attempts": attempts, "state": "sent", "detail": ""}
        if channel is None:
            values |= {"state": "given up", "detail": "the channel is gone"}
        else:
            try:
                self._tell(channel, waiting["what"], alarm)
            except (OSError, smtplib.SMTPException, Invalid) as error:
                log.warning("alarm %d to %s: %s", alarm["id"], channel.id, error)
                values |= {"state": "waiting", "detail": str(error)[:300]}
                values["due"] = now + RETRY_S[min(attempts, len(RETRY_S)) - 1]
                if attempts * RETRY_S[-1] * 1000 > GIVE_UP_MS:
                    values["state"] = "given up"
        here = tables.delivery.c.id == waiting["id"]
        with self._engine.begin() as db:
            db.execute(sa.update(tables.delivery).where(here).values(**values))
        return bool(values["state"] == "sent")

    def _tell(self, channel: Channel, what: str, alarm: Row) -> None:
        if channel.kind == "webhook":
            _post(channel.to, {"city": self._city, "what": what, **_out(alarm)})
        elif self._mail is None:
            raise Invalid("no mail server: start the backend with --smtp host:port")
        else:
            _mail(self._mail, channel.to, _message(self._city, what, alarm))


def _out(alarm: Row) -> dict[str, Any]:
    names = ("id", "code", "object", "cabinet", "severity", "detail", "affected", "raised", "cleared")  # fmt: skip
    return {name: alarm[name] for name in names}


def _post(url: str, body: dict[str, Any]) -> None:
    request = urllib.request.Request(  # noqa: S310 - http and https alone, by `check`
        url,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "duha"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            answer.read(1000)
    except urllib.error.HTTPError as error:
        with error:  # an answer that refuses is a connection, too
            raise Invalid(f"{error.code} {error.reason}") from None


def _message(city: str, what: str, alarm: Row) -> EmailMessage:
    message = EmailMessage()
    over = " is over" if what == "cleared" else ""
    message["Subject"] = f"[Duha {city}] {alarm['code']} {alarm['object']}{over}"
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
