"""Errors of the backend; the API turns each into a problem document.

* BackendError
  - NotFound     there is no such thing
  - Invalid      the request cannot be carried out as it stands
  - Conflict     it contradicts what is there
  - Forbidden    no token, or a wrong one
  - StoreDown    the readings store cannot do it now
"""


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


class Forbidden(BackendError):  # noqa: N818
    """No token, or a wrong one."""

    status = 401


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
