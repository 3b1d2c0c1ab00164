"""Types of what comes over the API: finite, bounded, of text that can be stored."""

import datetime as dt
import re
from typing import Annotated

from fastapi import Path
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
)

EARLIEST = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
LATEST = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
LONGEST_TEXT = 1000
LONGEST_ID = 64
_UNFIT = re.compile("[\x00\ud800-\udfff]")


class Body(BaseModel):
    """A body, or a part of one: numbers are finite, texts short."""

    model_config = ConfigDict(allow_inf_nan=False, str_max_length=LONGEST_TEXT)


class StrictBody(Body):
    """A body in which a field that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid")


def _in_utc(moment: dt.datetime) -> dt.datetime:
    """The moment in UTC; without a zone it is UTC already."""
    if not EARLIEST.year - 1 <= moment.year <= LATEST.year + 1:
        raise ValueError(f"a time is from {EARLIEST.year} to {LATEST.year}")
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    if not EARLIEST <= aware <= LATEST:
        raise ValueError(f"a time is from {EARLIEST.year} to {LATEST.year}")
    return aware.astimezone(dt.UTC)


def storable(text: str) -> str:
    """Text that every store takes.

    Raises
    ------
    ValueError
        It holds a NUL or half of a character.
    """
    if _UNFIT.search(text):
        raise ValueError("text without NUL and without halves of characters")
    return text


def _named(name: str) -> str:
    if not name.isprintable() or name != name.strip() or "/" in name or not name:
        raise ValueError("an id is printable, without spaces around it or '/' in it")
    return name


Moment = Annotated[dt.datetime, AfterValidator(_in_utc)]
"""A time from 2000 to 2100, in UTC; one without a zone is UTC."""


def _zoned(given: object) -> object:
    """Refuse a time that does not say of which zone it is."""
    moment = TypeAdapter(dt.datetime).validate_python(given)
    if moment.tzinfo is None:
        raise ValueError("a time with its zone, e.g. 12:00Z")
    return moment


ZonedMoment = Annotated[Moment, BeforeValidator(_zoned)]
"""A moment that says of which zone it is: people write it from a clock on the wall."""
Day = Annotated[dt.date, Field(ge=EARLIEST.date(), le=LATEST.date())]
"""A date from 2000 to 2100."""
Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID), AfterValidator(_named)]
"""What a document is called in an address, and by others that name it."""
PathId = Annotated[
    str,
    Path(min_length=1, max_length=LONGEST_ID),
    AfterValidator(_named),
]
Number = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""What a store numbers its rows with."""
Finite = Annotated[float, Field(ge=-1e9, le=1e9)]
"""A number of any meaning; more is a slip, and overflows in sums."""
Points = Annotated[list[tuple[Finite, Finite]], Field(max_length=1000)]
"""Points of a curve."""
Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(storable)]
Size = Annotated[float, Field(ge=0, le=1e9)]
"""A length, an area, a power: more is a slip."""
