"""Cells of CSV that no spreadsheet takes for a formula."""

from collections.abc import Iterable
from typing import Any

_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n")


def plain_cell(value: Any) -> Any:
    """A cell as it is; text that would be a formula gets an apostrophe before it."""
    if not isinstance(value, str) or not value.startswith(_BEGINNINGS):
        return value
    return value if _is_number(value) else f"'{value}"


def plain_cells(row: Iterable[Any]) -> list[Any]:
    """A row of plain cells."""
    return [plain_cell(value) for value in row]


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
