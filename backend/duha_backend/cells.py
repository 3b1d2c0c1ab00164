"""Cells of CSV that no spreadsheet takes for a formula."""

import csv
import io
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from duha_backend.validate import Array

_QUOTED = frozenset(',"\r\n')
_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n")


def plain_cell(value: Any) -> Any:
    """A cell as it is; text that would be a formula gets an apostrophe before it."""
    if not isinstance(value, str) or not value.startswith(_BEGINNINGS):
        return value
    return value if _is_number(value) else f"'{value}"


def plain_cells(row: Iterable[Any]) -> list[Any]:
    """A row of plain cells."""
    return [plain_cell(value) for value in row]


def moments(ts: Array) -> list[str]:
    """Times as RFC 3339 in UTC.

    Parameters
    ----------
    ts : (n,) array of int64
        Times [ms].
    """
    texts = np.datetime_as_string(ts.astype("datetime64[ms]"), unit="ms")
    return [f"{text}Z" for text in texts.tolist()]


def column_cells(column: Array) -> list[str]:
    """Cells of a column; empty where there is no value.

    Parameters
    ----------
    column : (n,) array
        Text as objects, or numbers with NaN where there is none.
    """
    if column.dtype == object:
        cells = {text: _cell(text) for text in set(column.tolist())}
        return [cells[text] for text in column.tolist()]
    numbers = msgspec.json.encode(column.tolist()).decode()  # NaN is null in JSON
    return numbers[1:-1].replace("null", "").split(",")


def _cell(value: Any) -> str:
    if value is None or value == "":
        return ""  # alone in its row it would be quoted
    if not _QUOTED.intersection(value):
        return str(plain_cell(value))
    out = io.StringIO()
    csv.writer(out).writerow([plain_cell(value)])
    return out.getvalue().removesuffix("\r\n")


def text_of(cell: str) -> str:
    """What a plain cell stands for."""
    return (
        cell[1:] if cell.startswith("'") and cell[1:].startswith(_BEGINNINGS) else cell
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
