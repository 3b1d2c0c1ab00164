"""Errors of the edge.

* EdgeError
  - ConfigError     a site file or profile that cannot be used
  + BusError        a device or line did not do what was asked; retry is sensible
    - NoAnswer      silence until the timeout
    - WrongAnswer   an answer that does not belong to the question
    - Refused       a Modbus exception answer
  - NotAllowed      a write that the site's allow-list does not name
  - OutboxError     the outbox could not keep something: disk full, read-only
"""


class EdgeError(Exception):
    """Something went wrong in the agent."""


class ConfigError(EdgeError):
    """A site file or profile that cannot be used."""


class BusError(EdgeError):
    """A device or line did not do what was asked; a retry is sensible."""


class NoAnswer(BusError):  # noqa: N818 - reads as what it is
    """Silence until the timeout."""


class WrongAnswer(BusError):  # noqa: N818
    """An answer that does not belong to the question."""


class Refused(BusError):  # noqa: N818
    """A Modbus exception answer; `code` is the protocol's."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class OutboxError(EdgeError):
    """The outbox could not keep something: disk full, read-only."""


class NotAllowed(EdgeError):  # noqa: N818
    """A write that the site's allow-list does not name."""
