"""SWMM input files are read by SWMM's own rules; none may name a file, however it is spelt."""

import datetime as dt
import pathlib
import re
import subprocess
import sys

import pytest
import swmm.toolkit
from hypothesis import given
from hypothesis import strategies as st

from duha_backend.drainage.process import Process
from duha_backend.errors import Invalid
from duha_backend.runoff import swmm_text
from duha_backend.runoff.inp import adapt, describe, own_start
from duha_backend.runoff.swmm_text import SECTIONS, matches, parse, row_of, words
from duha_sim.sewer import sewer

START = dt.datetime(2026, 7, 1)  # noqa: DTZ001 - a model has no zone
GARDENS = sewer(3, ("A",), "gardens")
RUN = "import sys; from swmm.toolkit import solver; solver.swmm_run(*sys.argv[1:])"


def run_swmm(text, folder):
    """Run a file by SWMM alone, as it stands."""
    names = [str(folder / f"m.{end}") for end in ("inp", "rpt", "out")]
    (folder / "m.inp").write_bytes(text.encode())
    subprocess.run([sys.executable, "-c", RUN, *names], check=False, timeout=60)


def test_the_words_of_sections_are_those_of_the_engine():
    folder = pathlib.Path(swmm.toolkit.__file__).parent
    (library,) = folder.glob("*swmm5*.so*")
    found = re.findall(rb"\x00\[([A-Z_]+)(?=\x00)", library.read_bytes())
    assert sorted(word.decode() for word in found) == sorted(SECTIONS)
    for word, name in SECTIONS.items():
        first = next(w for w in SECTIONS if matches(f"[{name}]", f"[{w}"))
        assert first == word, "its usual name is read as itself"


SPELT = [
    '[FILES]\nSAVE OUTFLOWS "{}"',
    '[FILE]\nSAVE OUTFLOWS "{}"',
    '[FILESX]\nSAVE OUTFLOWS "{}"',
    "[file\nsave outflows {}",
    '  [FiLeS_of_mine] nothing\nSAVED OUTFLOWSX "{}"',
]


@pytest.mark.parametrize("spelt", SPELT)
async def test_a_file_that_swmm_would_write_is_refused_with_its_line(spelt, tmp_path):
    precious = tmp_path / "registry.db"
    precious.write_text("all of the city")
    text = f"{GARDENS}\n{spelt.format(precious)}\n"
    run_swmm(text, tmp_path)
    assert precious.read_text() != "all of the city", "SWMM itself takes this spelling"
    precious.write_text("all of the city")
    number = len(text.splitlines())
    process = Process()
    try:
        with pytest.raises(Invalid, match=rf"line {number}: \[FILES\] .* files"):
            await process.open(text.encode(), 1_767_225_600)
    finally:
        await process.close()
    assert precious.read_text() == "all of the city"


HIDDEN = [
    ("[TIMESERIES]\nLEVEL FILE /etc/passwd", "series LEVEL reads a file"),
    ("[timeseriesX]\nLEVEL filex /etc/passwd", "series LEVEL reads a file"),
    ('[TIMESERIES]\n"LEVEL" "FILE" "/etc/passwd"', "series LEVEL reads a file"),
    ("[TEMPERATURE]\nFILE /etc/passwd", "temperature reads a file"),
    ("[TEMPERATUREX]\nfiles /etc/passwd", "temperature reads a file"),
    ("[TEMPERATURE]\nWINDSPEED FILE", "temperature reads a file"),
    ("[EVAPORATE]\nFILE 1 1 1", "evaporation is read from a file"),
    ("[OPTION]\nTEMPDIR /root", "TEMPDIR names a folder"),
    ("[OPTIONSX]\ntempdirectory /root", "TEMPDIR names a folder"),
    ("[LID_USAGE_2]\nS0000 GARDEN 1 5 1 0 6 0 /root/x.txt", "writes a report file"),
    ("[NOTES]\nany", "no section of SWMM is named"),
    ('"[FILES]"\nUSE INFLOWS /etc/passwd', "neither reads nor writes"),
    ("[MAP]\n\t [FILES]\nUSE INFLOWS /etc/passwd", "neither reads nor writes"),
]  # fmt: skip


@pytest.mark.parametrize(("added", "why"), HIDDEN)
def test_whatever_names_a_file_is_refused_with_its_line(added, why):
    text = f"{GARDENS}\n{added}\n"
    with pytest.raises(Invalid, match=why) as refused:
        parse(text)
    last = len(text.splitlines())
    assert re.match(rf"line ({last}|{last - 1}):", str(refused.value))


def lines_of_engine(text):
    """What is written for the engine, as the lines and words that it reads."""
    made, _ = adapt(parse(text), START)
    written = made.text()
    assert all(len(line.encode()) <= 1022 for line in written.split("\n"))
    return [words(line) for line in written.split("\n")]


def test_words_in_quotes_do_not_come_apart_in_the_file_of_the_engine():
    name = "A INTENSITY 0:01 1.0 FILE /etc/passwd X MM"
    text = GARDENS.replace("A INTENSITY 0:05 1.0", f'"{name}" INTENSITY 0:05 "1 FILE"')
    rows = lines_of_engine(text)
    (gage,) = [row for row in rows if row[:1] == [name]]
    assert gage[1:] == ["INTENSITY", "0:01", "1.0", "TIMESERIES", "DUHA_RAIN_0"]


def test_a_long_comment_hides_no_line_of_its_own(tmp_path):
    precious = tmp_path / "registry.db"
    precious.write_text("all of the city")
    pieces = ["[FILES]", f"SAVE OUTFLOWS {precious}"]
    hidden = "".join("\n;" + "x" * 1022 + piece for piece in pieces)
    text = GARDENS + hidden + "\n"
    run_swmm(text, tmp_path)
    assert precious.read_text() != "all of the city", "SWMM reads lines in pieces"
    rows = lines_of_engine(text)
    assert not any("OUTFLOWS" in row for row in rows)
    with pytest.raises(Invalid, match="longer than 1022 bytes"):
        parse(f"{GARDENS}\n[DWF]\nN0000 FLOW {'0' * 1100}\n")


@pytest.mark.parametrize("end", ["\x00", "\x0b", "\x0c", "\x1c", "\x1a"])
def test_what_only_some_readers_take_for_an_end_of_line_is_refused(end):
    text = f"{GARDENS}\n[TITLE]\nnice{end}[FILES]{end}SAVE OUTFLOWS /tmp/x\n"
    with pytest.raises(Invalid, match=r"line \d+: a character that is no text"):
        parse(text)


def test_other_ends_of_lines_are_those_of_swmm():
    text = GARDENS.replace("\n", "\r\n")
    assert parse(text).sections == parse(GARDENS).sections
    inp = parse(f"{GARDENS}\n[TITLE]\nnice\u2028[FILES]\x85SAVE\rOUTFLOWS /tmp/x\n")
    assert "FILES" not in inp.sections
    assert inp.rows("TITLE")[-1][-2:] == ["OUTFLOWS", "/tmp/x"]


def test_the_drawings_of_an_editor_never_reach_the_engine():
    text = (
        GARDENS
        + '\n[BACKDROP]\nFILE "city.png"\n[EVENTS]\n01/01/2020 0:00 01/02/2020 0:00\n'
    )
    made, changes = adapt(parse(text), START)
    assert not {"BACKDROP", "TITLE", "EVENTS"} & made.sections.keys()
    assert "EVENTS left out: all of the time is routed" in changes


def test_rain_in_files_is_left_out_as_rain_is_given():
    text = GARDENS.replace("NONE_A 0:00 0", 'NONE_A FILE "rain.dat"')
    made, changes = adapt(parse(text), START)
    assert "rain.dat" not in made.text()
    assert "rain gage A: live rain instead of TIMESERIES NONE_A" in changes


def test_sections_and_options_are_found_by_their_beginning_in_any_case():
    text = GARDENS.replace("[OPTIONS]", "[optionality]").replace(
        "FLOW_UNITS LPS", "flow_units_here lps2"
    )
    assert describe(parse(text)) == describe(parse(GARDENS))
    made, _ = adapt(parse(text.replace("DRY_STEP", "dry_steps")), START)
    assert [row[1] for row in made.rows("OPTIONS") if matches(row[0], "DRY_STEP")] == [
        "00:01:00"
    ]
    with pytest.raises(Invalid, match="FLOW_UNITS FURLONGS"):
        describe(parse(GARDENS.replace("FLOW_UNITS LPS", "FLOW_UNITS FURLONGS")))


def test_files_that_are_too_large_are_refused_before_they_are_read(monkeypatch):
    monkeypatch.setattr(swmm_text, "MOST_LINES", 50)
    with pytest.raises(Invalid, match="50 lines at most"):
        parse(GARDENS)
    monkeypatch.setattr(swmm_text, "LARGEST_BYTES", 100)
    with pytest.raises(Invalid, match="MB at most"):
        parse(GARDENS.encode())


word = st.text(
    st.characters(blacklist_characters='\n\r";\x00', blacklist_categories=("Cc", "Cs")),
    max_size=12,
)


@given(st.lists(word, min_size=1, max_size=6))
def test_words_that_are_written_are_read_as_they_were(row):
    assert words(row_of(row)) == row


def test_words_are_those_of_swmm():
    assert words('"a b"c d"e f";g') == ["a b", "c", 'd"e', 'f"']
    assert words('N1 FLOW "" FLOW') == ["N1", "FLOW", "", "FLOW"]
    assert words("a\xa0b\u2003c\td") == ["a\xa0b\u2003c", "d"]
    assert words('"never closed; x') == ["never closed"]


def test_a_model_begins_when_its_author_says():
    text = GARDENS + "\n[OPTIONS]\nSTART_DATE 03/05/2024\nSTART_TIME 06:30:00\n"
    assert f"{own_start(parse(text), START)}" == "2024-03-05 06:30:00"
    strange = GARDENS + "\n[OPTIONS]\nSTART_DATE soon\n"
    assert own_start(parse(strange), START) == START
