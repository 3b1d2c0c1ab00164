"""Who is told of alarms, and how. Pure."""

import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from duha_backend.alarms.kinds import SEVERITIES
from duha_backend.errors import Invalid

LONGEST_URL = 2000
_MAIL = re.compile(r"[^\s@<>(),;:\\\"\[\]]{1,64}@[^\s@<>(),;:\\\"\[\]]{1,255}")


class Channel(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who is told, how, and of which alarms.

    `to` is an e-mail address or an ``https://`` address (``http://`` within the house).
    """

    id: str
    kind: Literal["email", "webhook"]
    to: str
    name: str = ""
    severities: tuple[str, ...] = SEVERITIES
    codes: tuple[str, ...] = ()
    when_over: bool = False

    def wants(self, row: Mapping[str, Any]) -> bool:
        """Whether an alarm is for this channel."""
        return (
            row["severity"] in self.severities
            and (not self.codes or row["code"] in self.codes)
            and (row["cleared"] is None or self.when_over)
        )

    def check(self) -> None:
        """Raise Invalid for an address that is none."""
        if self.kind == "email" and not _MAIL.fullmatch(self.to):
            raise Invalid(f"channel {self.id}: {self.to!r} is no e-mail address")
        if self.kind == "webhook" and (wrong := _wrong_with(self.to)):
            raise Invalid(
                f"channel {self.id}: {self.to!r} is no https address: {wrong}"
            )
        unknown = set(self.severities) - set(SEVERITIES)
        if unknown:
            raise Invalid(f"channel {self.id}: no severity {min(unknown)!r}")


def _wrong_with(url: str) -> str:
    """Why something is no web address; empty: it is one."""
    if len(url) > LONGEST_URL or not url.isprintable() or " " in url:
        return f"at most {LONGEST_URL} characters, without spaces"
    try:
        parts = urlsplit(url)
        port = parts.port  # noqa: F841 - raises for what is none
        host = (parts.hostname or "").encode("idna")
    except (ValueError, UnicodeError) as error:
        return str(error)
    if parts.scheme not in {"https", "http"}:
        return "it begins with https:// or http://"
    return "" if host else "it names no host"
