"""Errors of the backend; the API turns each into a problem document.

* BackendError
  - NotFound     there is no such thing
  - Invalid      the request cannot be carried out as it stands
  - Conflict     it contradicts what is there
  - Stale        somebody else has changed it meanwhile
  - Refused      a calendar that would leave streets dark
  - Forbidden    no token, or a wrong one
  - NotAllowed   a role that may not do this
  - TooMany      requests, exports or streams of one asker
  - BadRequest   an address that cannot be read
  - TooLarge     a body
  - Slow         a body that does not come
  - Diverged     a model has lost its way
  - StoreDown    the readings store cannot do it now
    - RegistryDown  the registry cannot
"""

from typing import Any


class BackendError(Exception):
    """Something that the caller is told in one sentence."""

    status = 500


class NotFound(BackendError):  # noqa: N818 - reads as what it is
    """There is no such thing."""

    status = 404


class Invalid(BackendError):  # noqa: N818
    """The request cannot be carried out as it stands."""

    status = 422


class Conflict(BackendError):  # noqa: N818
    """It contradicts what is there."""

    status = 409


class Stale(BackendError):  # noqa: N818
    """Somebody else has changed it since it was looked at."""

    status = 412


class Refused(Invalid):
    """A calendar that would leave a street dark, or lamps on by day.

    Parameters
    ----------
    refusals : list of dict
        Each names calendar, programme, rule, what would happen and the next nights, in
        parts and as a `message`.
    """

    def __init__(self, refusals: list[dict[str, Any]]) -> None:
        self.refusals = refusals
        self.reasons = [f"calendar {r['calendar']}: {r['message']}" for r in refusals]
        super().__init__("; ".join(self.reasons))


class NotAllowed(BackendError):  # noqa: N818
    """The role of whoever asks may not do this."""

    status = 403


class Forbidden(BackendError):  # noqa: N818
    """No token, or a wrong one."""

    status = 401


class TooMany(BackendError):  # noqa: N818
    """Who asks takes more than a share.

    Parameters
    ----------
    after_s : float
        When to ask again [s].
    """

    status = 429

    def __init__(self, message: str, after_s: float) -> None:
        super().__init__(message)
        self.after_s = after_s


class TooLarge(BackendError):  # noqa: N818
    """A body with more bytes than are taken."""

    status = 413

    def __init__(self, most: int) -> None:
        super().__init__(f"a body of this call has {most} bytes at most")


class Slow(BackendError):  # noqa: N818
    """A body that does not come."""

    status = 408


class BadRequest(BackendError):  # noqa: N818
    """A request whose address cannot be read."""

    status = 400


class Diverged(BackendError):  # noqa: N818
    """A model gives no numbers any more, or not those of the rain it was given."""

    status = 422


class StoreDown(BackendError):  # noqa: N818
    """The readings store cannot be reached, or cannot do it now.

    Parameters
    ----------
    after_s : float
        How long to wait before the next attempt [s].
    """

    status = 503

    def __init__(self, message: str, after_s: float = 1.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class RegistryDown(StoreDown):
    """The registry's database does not answer, or cannot do it now."""
