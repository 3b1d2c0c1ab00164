"""Programmes and calendars that belong together: shown, checked and stored as one plan."""

import asyncio

from fastapi import APIRouter
from pydantic import Field

from duha_backend.api.documents import (
    ENGINEER,
    CalendarIn,
    DryRun,
    ProgrammeIn,
    converted,
    note,
)
from duha_backend.api.fields import Id, StrictBody, Text
from duha_backend.api.services import PREFIX, SIGNED_IN, S, Services, Who
from duha_backend.registry import tag
from duha_contract.programmes import Calendar, Programme

router = APIRouter(prefix=PREFIX, dependencies=SIGNED_IN)


class PlanIn(StrictBody):
    """Programmes and calendars by id that are to hold together."""

    programmes: dict[Id, ProgrammeIn] = Field({}, max_length=100)
    calendars: dict[Id, CalendarIn] = Field({}, max_length=100)

    def documents(self) -> list[Programme | Calendar]:
        """What it holds."""
        return [
            converted({"id": name, **body.model_dump(mode="json")}, kind)
            for kind, given in (
                (Programme, self.programmes),
                (Calendar, self.calendars),
            )
            for name, body in given.items()
        ]


class PublishIn(PlanIn):
    """A plan, and what it replaces."""

    etags: dict[Text, Text] = Field(
        {},
        max_length=200,
        description="By ``programmes/ID`` or ``calendars/ID``: the ETag of what is replaced,"
        ' "" for what is new; without one whatever is there.',
        examples=[{"programmes/weekend": "", "calendars/city": "5f3c"}],
    )


@router.post("/plan", dependencies=ENGINEER)
async def publish(
    body: PublishIn, services: S, who: Who, dry_run: DryRun = False
) -> dict[str, str]:
    """Store programmes and calendars together: all or none, judged as they will stand.

    The new ETags, by ``programmes/ID`` and ``calendars/ID``. What would leave a street dark is refused (422), and so is a plan
    of which somebody else has changed a part since (412).
    """
    documents = body.documents()
    before = await asyncio.to_thread(_found, services, documents)
    given = [(document, body.etags.get(_path(document))) for document in documents]
    await asyncio.to_thread(services.desk.publish, given, who.name, dry_run=dry_run)
    if not dry_run:
        for old, document in zip(before, documents, strict=True):
            word = type(document).__name__.lower()
            await note(services, who, word, document.id, old, document)
        await services.control.settle()
    return {_path(document): tag(document) for document in documents}


def _path(document: Programme | Calendar) -> str:
    """A programme and a calendar may have one id: their room tells them apart."""
    return f"{type(document).__name__.lower()}s/{document.id}"


def _found(
    services: Services, documents: list[Programme | Calendar]
) -> list[Programme | Calendar | None]:
    """What stands now where documents are to stand."""
    find = services.registry.find
    return [
        find(Programme, one.id)
        if isinstance(one, Programme)
        else find(Calendar, one.id)
        for one in documents
    ]
