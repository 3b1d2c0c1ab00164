"""Who is told of alarms, and how. Pure."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from duha_backend.alarms.kinds import SEVERITIES
from duha_backend.errors import Invalid


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
        if self.kind == "email" and "@" not in self.to:
            raise Invalid(f"channel {self.id}: {self.to!r} is no e-mail address")
        if self.kind == "webhook" and not self.to.startswith(("https://", "http://")):
            raise Invalid(f"channel {self.id}: {self.to!r} is no https address")
        unknown = set(self.severities) - set(SEVERITIES)
        if unknown:
            raise Invalid(f"channel {self.id}: no severity {min(unknown)!r}")
