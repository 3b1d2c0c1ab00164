"""SWMM input files read as SWMM reads them; whatever names a file is refused. Pure.

SWMM 5.2 matches sections and keywords by their beginning and in any case: ``[FILESX]`` is
``[FILES]``, ``tempdir_old`` is ``TEMPDIR``. It reads lines in pieces of 1,023 bytes, and ends
words at spaces, tabs and carriage returns only. A reader with rules of its own would see
another model than the engine does, so all of it is followed here (`input.c`, `keywords.c`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from duha_backend.errors import Invalid

LARGEST_BYTES = 32_000_000
MOST_LINES = 1_000_000
LONGEST_LINE = 1022
"""Of a line with its end SWMM takes 1,023 bytes; the rest would be a line of its own."""
SECTIONS = {
    "TITLE": "TITLE", "OPTION": "OPTIONS", "FILE": "FILES", "RAINGAGE": "RAINGAGES",
    "TEMPERATURE": "TEMPERATURE", "EVAP": "EVAPORATION", "SUBCATCHMENT": "SUBCATCHMENTS",
    "SUBAREA": "SUBAREAS", "INFIL": "INFILTRATION", "AQUIFER": "AQUIFERS",
    "GROUNDWATER": "GROUNDWATER", "SNOWPACK": "SNOWPACKS", "JUNC": "JUNCTIONS",
    "OUTFALL": "OUTFALLS", "STORAGE": "STORAGE", "DIVIDER": "DIVIDERS",
    "CONDUIT": "CONDUITS", "PUMP": "PUMPS", "ORIFICE": "ORIFICES", "WEIR": "WEIRS",
    "OUTLET": "OUTLETS", "XSECT": "XSECTIONS", "TRANSECT": "TRANSECTS", "LOSS": "LOSSES",
    "CONTROL": "CONTROLS", "POLLUT": "POLLUTANTS", "LANDUSE": "LANDUSES",
    "BUILDUP": "BUILDUP", "WASHOFF": "WASHOFF", "COVERAGE": "COVERAGES",
    "INFLOW": "INFLOWS", "DWF": "DWF", "PATTERN": "PATTERNS", "RDII": "RDII",
    "HYDROGRAPH": "HYDROGRAPHS", "LOADING": "LOADINGS", "TREATMENT": "TREATMENT",
    "CURVE": "CURVES", "TIMESERIES": "TIMESERIES", "REPORT": "REPORT",
    "COORDINATE": "COORDINATES", "VERTICES": "VERTICES", "POLYGON": "POLYGONS",
    "LABEL": "LABELS", "SYMBOL": "SYMBOLS", "BACKDROP": "BACKDROP", "TAG": "TAGS",
    "PROFILE": "PROFILES", "MAP": "MAP", "LID_CONTROL": "LID_CONTROLS",
    "LID_USAGE": "LID_USAGE", "GWF": "GWF", "ADJUSTMENT": "ADJUSTMENTS",
    "EVENT": "EVENTS", "STREET": "STREETS", "INLET_USAGE": "INLET_USAGE",
    "INLET": "INLETS",
}  # fmt: skip
"""SWMM's words of sections, in the order in which it tries them, and their usual names."""
DRAWN = (
    "TITLE", "COORDINATES", "VERTICES", "POLYGONS", "LABELS", "SYMBOLS", "BACKDROP", "TAGS",
    "PROFILES", "MAP",
)  # fmt: skip
"""Sections of an editor and its map: the engine does not need them, and never sees them."""
_WORD = re.compile(r'"([^"]*)"?|([^ \t\r]+)')
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
Row = list[str]


@dataclass
class Inp:
    """Sections of an input file under their usual names; rows keep their text."""

    sections: dict[str, list[str]] = field(default_factory=dict)

    def rows(self, name: str) -> list[Row]:
        """Rows of a section in words, without comments; names in quotes are one word."""
        found = []
        for line in self.sections.get(name, ()):
            row = words(line)
            if row:
                found.append(row)
        return found

    def ids(self, *names: str) -> tuple[str, ...]:
        """First words of sections, each once."""
        return tuple(dict.fromkeys(row[0] for name in names for row in self.rows(name)))

    def option(self, name: str, usual: str = "") -> str:
        """An option's value: the last one that is given, as SWMM takes it."""
        found = usual
        for row in self.rows("OPTIONS"):
            if matches(row[0], name) and len(row) > 1:
                found = row[1]
        return found

    def text(self) -> str:
        """The whole file."""
        return "".join(
            f"[{name}]\n" + "".join(f"{line}\n" for line in lines) + "\n"
            for name, lines in self.sections.items()
        )


def parse(raw: bytes | str) -> Inp:
    """Read an input file; UTF-8 or Windows-1250.

    Raises
    ------
    Invalid
        It is no input file, or names a file; the line is said.
    """
    found = Inp()
    name = ""
    files: list[tuple[int, str]] = []
    for number, line in _lines(raw):
        heading = _heading(line)
        if heading:
            name = _section(heading, number)
            found.sections.setdefault(name, [])
        elif name:
            _refuse_file(name, line, number, files)
            found.sections[name].append(line.rstrip())
        elif words(line):
            raise Invalid(f"line {number}: this stands before any [SECTION] of a .inp")
    if "OPTIONS" not in found.sections:
        raise Invalid("no SWMM input file: it has no [OPTIONS]")
    _drop_rain_files(found, files)
    return found


def words(line: str) -> Row:
    """Words of a line as SWMM finds them: what is in quotes is one, ``;`` ends the line."""
    bare = line.split(";", 1)[0]
    return [quoted or word for quoted, word in _WORD.findall(bare)]


def row_of(row: Row) -> str:
    """Words as a line in which SWMM finds the same words."""
    return " ".join(
        f'"{w}"' if not w or w[0] == '"' or any(c in w for c in " \t\r") else w
        for w in row
    )


def matches(word: str, keyword: str) -> bool:
    """Whether SWMM takes a word for a keyword: by its beginning, in any case."""
    start = word.lstrip(" ")[: len(keyword)]
    return start.isascii() and start.upper() == keyword


def _lines(raw: bytes | str) -> Iterator[tuple[int, str]]:
    """Numbered lines as SWMM reads them.

    Raises
    ------
    Invalid
        There are too many, one is too long, or has a character that is no text.
    """
    if len(raw) > LARGEST_BYTES:
        raise Invalid(f"a model has {LARGEST_BYTES // 1_000_000} MB at most")
    text = raw if isinstance(raw, str) else _decoded(raw)
    if bad := _NO_TEXT.search(text):
        number = text.count("\n", 0, bad.start()) + 1
        if "[" not in text[: bad.start()]:
            raise Invalid(f"line {number}: this stands before any [SECTION] of a .inp")
        raise Invalid(f"line {number}: a character that is no text")
    lines = text.replace("\r", " ").split("\n")
    if len(lines) > MOST_LINES:
        raise Invalid(f"a model has {MOST_LINES} lines at most")
    for number, line in enumerate(lines, 1):
        yield number, _short(line, number)


def _short(line: str, number: int) -> str:
    if len(line) * 4 <= LONGEST_LINE or len(line.encode()) <= LONGEST_LINE:
        return line
    bare = line.split(";", 1)[0].rstrip()  # a comment may be longer
    if len(bare.encode()) > LONGEST_LINE:
        raise Invalid(f"line {number}: longer than {LONGEST_LINE} bytes")
    return bare


def _heading(line: str) -> str:
    """The first word of a line that begins a section; empty for any other."""
    start = line.lstrip(' \t"')
    if not start.startswith("["):
        return ""
    row = words(line)
    return row[0] if row and row[0].startswith("[") else ""


def _section(heading: str, number: int) -> str:
    for word, name in SECTIONS.items():
        if matches(heading, f"[{word}"):
            return name
    raise Invalid(f"line {number}: no section of SWMM is named {heading[:40]}")


# -- files ---------------------------------------------------------------------------------


def _refuse_file(
    section: str, line: str, number: int, series: list[tuple[int, str]]
) -> None:
    """Refuse a line that names a file; those of time series are noted for later."""
    if section not in _NAMES_FILES:
        return
    row = words(line)
    if not row:
        return
    if section == "TIMESERIES":
        if len(row) > 1 and matches(row[1], "FILE"):
            series.append((number, row[0]))
    elif why := _NAMES_FILES[section](row):
        raise Invalid(f"line {number}: {why}")


def _of_files(row: Row) -> str:
    return f"[FILES] {' '.join(row)[:60]}: a model neither reads nor writes files"


def _of_temperature(row: Row) -> str:
    read = any(matches(word, "FILE") for word in row[:2])
    return "temperature reads a file: put it into a series of the model" if read else ""


def _of_evaporation(row: Row) -> str:
    return "evaporation is read from a file" if matches(row[0], "FILE") else ""


def _of_lids(row: Row) -> str:
    if len(row) < 9 or row[8] == "*":
        return ""
    return f"{row[1]} in {row[0]} writes a report file: put * for {row[8][:60]}"


def _of_options(row: Row) -> str:
    return "TEMPDIR names a folder: leave it out" if matches(row[0], "TEMPDIR") else ""


_NAMES_FILES = {
    "FILES": _of_files, "TEMPERATURE": _of_temperature, "EVAPORATION": _of_evaporation,
    "LID_USAGE": _of_lids, "OPTIONS": _of_options, "TIMESERIES": _of_files,
}  # fmt: skip


def _drop_rain_files(inp: Inp, files: list[tuple[int, str]]) -> None:
    """Leave out series of rain that are in files, as rain is given to the model.

    Raises
    ------
    Invalid
        A series of anything else reads a file.
    """
    if not files:
        return
    rain = {row[5].lower() for row in inp.rows("RAINGAGES") if len(row) > 5}
    for number, name in files:
        if name.lower() not in rain:
            raise Invalid(
                f"line {number}: series {name} reads a file: put its values into the model"
            )
    gone = {name.lower() for _, name in files}
    inp.sections["TIMESERIES"] = [
        line
        for line in inp.sections["TIMESERIES"]
        if not (row := words(line)) or row[0].lower() not in gone
    ]


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1250", errors="replace")
