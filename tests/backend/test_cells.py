"""Cells of CSV files, column by column, as the csv module would write them."""

import csv
import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from duha_backend.cells import column_cells, moments, plain_cell

texts = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
)


@given(texts)
def test_text_is_written_as_the_csv_module_writes_it(values):
    cells = column_cells(np.array([*values, "end"], dtype=object))
    line = ",".join(cells)
    (read,) = csv.reader(io.StringIO(line, newline=""))
    assert read == [plain_cell(value) for value in [*values, "end"]]


@given(
    st.lists(
        st.one_of(st.floats(allow_infinity=False), st.just(float("nan"))), min_size=1
    )
)
def test_numbers_are_written_whole_and_nothing_for_none(values):
    for value, cell in zip(values, column_cells(np.array(values)), strict=True):
        assert cell == "" if np.isnan(value) else float(cell) == value


def test_times_have_milliseconds_and_their_zone():
    assert moments(np.array([0, 1_795_680_000_001])) == [
        "1970-01-01T00:00:00.000Z",
        "2026-11-26T08:00:00.001Z",
    ]
