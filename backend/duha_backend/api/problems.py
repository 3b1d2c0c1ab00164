"""Errors as problem documents (RFC 9457): `detail` names the field or the thing."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from duha_backend.errors import BackendError, Refused
from duha_contract.errors import ContractError


def install(app: FastAPI) -> None:
    """Have every error of an application answered as a problem document."""
    app.add_exception_handler(BackendError, _backend_error)
    app.add_exception_handler(ContractError, _contract_error)
    app.add_exception_handler(RequestValidationError, _request_error)
    app.add_exception_handler(HTTPException, _http_error)


def _problem(status: int, detail: str, **more: Any) -> JSONResponse:
    title = HTTPStatus(status).phrase
    return JSONResponse(
        {"type": "about:blank", "title": title, "status": status, "detail": detail}
        | more,
        status_code=status,
        media_type="application/problem+json",
    )


async def _backend_error(_: Request, error: Exception) -> JSONResponse:
    more: dict[str, Any] = {}
    if isinstance(error, Refused):
        more = {"reasons": error.reasons, "refusals": error.refusals}
    return _problem(getattr(error, "status", 500), str(error), **more)


async def _contract_error(_: Request, error: Exception) -> JSONResponse:
    return _problem(422, str(error))


async def _request_error(_: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    places = [
        {"field": ".".join(str(p) for p in e["loc"][1:]), "message": e["msg"]}
        for e in found
    ]
    detail = "; ".join(f"{p['field']}: {p['message']}" for p in places)
    return _problem(422, detail or "the request cannot be read", errors=places)


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        return _problem(500, "internal error")
    return _problem(error.status_code, str(error.detail))
