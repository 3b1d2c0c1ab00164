"""Errors as problem documents (RFC 9457): `detail` names the field or the thing."""

import logging
import math
import secrets
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from duha_backend.errors import BackendError, Refused, TooMany
from duha_contract.errors import ContractError

log = logging.getLogger(__name__)
MOST_FIELDS = 20
"""Of a body with many mistakes so many are named."""


def install(app: FastAPI) -> None:
    """Have every error of an application answered as a problem document."""
    for kind in (BackendError, ContractError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _answer)


def of(error: Exception) -> JSONResponse:
    """The problem document of an error.

    One that was not foreseen is logged under a number, which is all that is told of it.
    """
    if isinstance(error, Refused):
        return _problem(error.status, str(error), reasons=error.reasons, refusals=error.refusals)  # fmt: skip
    if isinstance(error, BackendError):
        after_s = getattr(error, "after_s", 1.0 if error.status == 503 else None)
        return _problem(error.status, str(error), after_s)
    if isinstance(error, ContractError):
        return _problem(422, str(error))
    if isinstance(error, RequestValidationError):
        return _request_problem(error)
    if isinstance(error, HTTPException):
        return _problem(error.status_code, str(error.detail))
    number = secrets.token_hex(4)
    log.error("internal error %s", number, exc_info=error)
    return _problem(500, f"internal error {number}; the log says more", number=number)


def too_often(after_s: float) -> TooMany:
    """The refusal of whoever has failed to sign in too often."""
    return TooMany("too many failed sign-ins from this address", after_s)


def _problem(
    status: int, detail: str, after_s: float | None = None, **more: Any
) -> JSONResponse:
    title = HTTPStatus(status).phrase
    return JSONResponse(
        {"type": "about:blank", "title": title, "status": status, "detail": fit(detail)}
        | more,
        status_code=status,
        media_type="application/problem+json",
        headers={} if after_s is None else {"Retry-After": f"{max(1, math.ceil(after_s))}"},
    )  # fmt: skip


def fit(text: str) -> str:
    """Text that can be sent: without halves of characters, and not without end."""
    return text[:4000].encode("utf-8", "replace").decode("utf-8")


async def _answer(_: Request, error: Exception) -> JSONResponse:
    return of(error)


def _request_problem(error: RequestValidationError) -> JSONResponse:
    places = [
        {"field": fit(".".join(str(p) for p in e["loc"][1:])), "message": fit(e["msg"])}
        for e in error.errors()[:MOST_FIELDS]
    ]
    detail = "; ".join(f"{p['field']}: {p['message']}" for p in places)
    return _problem(422, detail or "the request cannot be read", errors=places)
