"""Signing in and out, and whether the process answers."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Cookie, Request, Response
from pydantic import Field

from duha_backend.api.fields import Body
from duha_backend.api.services import COOKIE, PREFIX, SIGNED_IN, Asker, S, record
from duha_backend.errors import Forbidden
from duha_backend.executors import SIGN_IN

SESSION_MS = 12 * 3_600_000
router = APIRouter(prefix=PREFIX)


class TokenIn(Body):
    """What somebody signs in with."""

    token: str = Field(max_length=200)


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the process answers; needs no token and says nothing else."""
    return {"status": "ok"}


@router.post("/session", status_code=204)
async def sign_in(
    body: TokenIn, response: Response, services: S, request: Request
) -> None:
    """Change a token for a session cookie; a session is none, so that it ends."""
    now = services.real_ms()
    registry = services.registry
    source = request.client.host if request.client else ""
    who = await SIGN_IN.run(registry.who, body.token, now)
    if who is None or who.session:  # a session opens no other: it would never end
        services.failed_sign_ins += 1
        name = "" if who is None else who.name
        stranger = Asker(name, "viewer", source)
        await record(services, stranger, "sign_in_failed", "", "")
        await asyncio.sleep(0.5)  # guessing is slow
        raise Forbidden("this token is not known")
    session = await SIGN_IN.run(
        registry.new_token, who.name, now + SESSION_MS, who.role
    )
    asker = Asker(who.name, who.role, source)
    await record(services, asker, "sign_in", "", who.role)
    response.set_cookie(
        COOKIE,
        session,
        max_age=SESSION_MS // 1000,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


@router.delete("/session", status_code=204, dependencies=SIGNED_IN)
async def sign_out(
    response: Response, services: S, duha_session: Annotated[str, Cookie()] = ""
) -> None:
    """End the session."""
    await asyncio.to_thread(services.registry.drop_token, duha_session)
    response.delete_cookie(COOKIE)
