"""Files that somebody brings: assets and rain; what cannot be is named, nothing is raised."""

import contextlib

import pytest

from duha_backend.assets import parse, to_csv
from duha_backend.cells import plain_cell, text_of
from duha_backend.errors import Invalid
from duha_backend.lighting.inventory import Asset
from duha_backend.rain.exchange import from_csv, from_pi, from_swmm
from tests.api_cases import FILES

HEADER = b"id,kind,latitude,longitude\n"
GOOD = b"L1,luminaire,49.7,13.3\n"


@pytest.mark.parametrize("raw", FILES, ids=range(len(FILES)))
def test_any_file_of_assets_gives_assets_or_problems(raw):
    parsed = parse(raw)
    assert parsed.assets or parsed.problems or parsed.streets or b"features" in raw or raw.strip(b"\n") in (b"", HEADER)  # fmt: skip


@pytest.mark.parametrize("raw", FILES, ids=range(len(FILES)))
def test_any_file_of_rain_is_read_or_refused(raw):
    text = raw.decode("utf-8", "replace")
    for read, given in ((from_pi, raw), (from_csv, text), (from_swmm, text)):
        with contextlib.suppress(Invalid):
            for one in read(given):
                assert len(one.times) == len(one.values) == len(one.flags)


@pytest.mark.parametrize(
    ("raw", "row", "reason"),
    [
        (b'{"features": 5}', 1, "no list"),
        (b'{"features": ' + b"[" * 100_000, 1, "no FeatureCollection"),
        (b'{"features": [{"properties": [1]}]}', 1, "geometry"),
        (b'{"features": [{"properties": {"kind": "street"}, "geometry": {"coordinates": [[1e400, 0]]}}]}', 1, "nowhere"),
        (HEADER + GOOD + b'"' + b"a" * 140_000 + b'",luminaire,1,1\n', 3, "field larger"),
        (HEADER + b"L1,luminaire,nan,13\n", 2, "latitude nan"),
        (HEADER.replace(b"\n", b",street\n") + b"L1,luminaire,1,1," + b"x" * 201 + b"\n", 2, "street is longer"),
        (HEADER.replace(b"\n", b",street\n") + b"L1,luminaire,1,1,a\x00b\n", 2, "NUL"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named(raw, row, reason):
    (problem,) = parse(raw).problems
    assert problem.row == row
    assert reason in problem.reason


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (from_swmm, "SRA 2026 1 1 0 0 1\nSRA 99999999999 1 1 0 0 1", "line 2"),
        (from_csv, "gauge,time,rain_mm\nA,2026-01-01,1\nA,99999-12-31,1", "row 3"),
        (from_csv, "gauge,time,rain_mm\nA,2026-01-01,inf", "row 2"),
        (from_csv, 'gauge,time,rain_mm\n"' + "a" * 140_000 + '",1,1', "field larger"),
        (from_pi, '{"timeSeries": 5}', "no list"),
        (from_pi, '{"timeZone": "1e308", "timeSeries": []}', "no PI-JSON"),
        (from_pi, "[" * 100_000, "no PI-JSON"),
        (from_pi, '{"timeSeries": [{"header": {"locationId": "A", "parameterId": "P"}, "events":'
         ' [{"date": "2026-01-01", "time": "00:00:00", "value": "1", "flag": "1e999"}]}]}', "(A), event 1"),
    ],
)  # fmt: skip
def test_rain_that_cannot_be_names_its_place(read, text, said):
    with pytest.raises(Invalid) as refused:
        read(text)
    assert said in str(refused.value)


def test_no_cell_of_the_assets_is_a_formula_and_they_come_back_as_they_were():
    odd = Asset("L1", "luminaire", "", "-1", '=HYPERLINK("http://a")', 49.7, 13.3)
    text = to_csv([odd])
    assert "'=HYPERLINK" in text
    assert ",-1," in text
    assert parse(text.encode()).assets == [odd]


@pytest.mark.parametrize("text", ["=1", "+a", "-a", "@a", "\ta", "\ra"])
def test_a_formula_is_a_text(text):
    assert plain_cell(text) == f"'{text}"
    assert text_of(plain_cell(text)) == text


@pytest.mark.parametrize("cell", ["a", "", "-1.5", "+1", -1, None, "1e5", "'a"])
def test_what_is_no_formula_stays(cell):
    assert plain_cell(cell) == cell
