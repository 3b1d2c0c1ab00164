"""Open data of the Czech Hydrometeorological Institute: rain of ten minutes. Pure.

A document holds a table somewhere within it: ``header``, names parted by commas, and
``values``, a list of rows. Element ``SRA10M`` is the sum of ten minutes [mm].
"""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from duha_backend.errors import Invalid

ELEMENT = "SRA10M"
STEP_S = 600.0
_STATION, _TIME, _VALUE = ("STATION", "WSI"), ("DT", "DATE", "TIME"), ("VAL", "VALUE")


class TenMinutes(NamedTuple):
    """Rain of a station in the ten minutes that end at a time [POSIX s]."""

    station: str
    t: float
    mm: float


def read(raw: bytes | str) -> list[TenMinutes]:
    """Rain of every station in a document; a value that is none is left out.

    Raises
    ------
    Invalid
        It is no such document, or a row is none.
    """
    try:
        table = next(_tables(json.loads(raw)), None)
    except RecursionError:
        raise Invalid("no open data of ČHMÚ: nested too deeply") from None
    except ValueError as error:
        raise Invalid(f"no open data of ČHMÚ: {error}") from None
    if table is None:
        raise Invalid("no open data of ČHMÚ: no table with header and values")
    names = [name.strip().upper() for name in table["header"].split(",")]
    station, element = _place(names, _STATION), _place(names, ("ELEMENT", "EL"))
    time, value = _place(names, _TIME), _place(names, _VALUE)
    found = []
    for number, row in enumerate(table["values"], 1):
        try:
            if row[element] != ELEMENT or row[value] in (None, ""):
                continue
            moment = dt.datetime.fromisoformat(str(row[time]))
            aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
            mm = float(row[value])
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise Invalid(f"row {number} of the open data: {error}") from None
        if mm >= 0:
            found.append(TenMinutes(str(row[station]), aware.timestamp(), mm))
    return found


def _tables(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if isinstance(part.get("header"), str) and isinstance(part.get("values"), list):
            yield part
        for inner in part.values():
            yield from _tables(inner)


def _place(names: list[str], wanted: tuple[str, ...]) -> int:
    for name in wanted:
        if name in names:
            return names.index(name)
    raise Invalid(
        f"the open data have no column {wanted[0]}; they have {', '.join(names)}"
    )
