"""SWMM input files: what is in them, and made fit to be fed live. Pure.

SWMM loses rain silently in long dry steps, and two gauges that share a series share their
rain; both are mended here before a model is run, and what was changed is said.
"""

import datetime as dt
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from duha_backend.errors import Invalid

STEP = "00:01:00"
REPORT_STEP = "00:05:00"
SERIES = "DUHA_RAIN_"
YEARS = 5
"""How long a model may run before it is begun anew [a]."""
LARGEST_BYTES = 32_000_000
US_UNITS = ("CFS", "GPM", "MGD")
_NODES = ("JUNCTIONS", "OUTFALLS", "DIVIDERS", "STORAGE")
_LINKS = ("CONDUITS", "PUMPS", "ORIFICES", "WEIRS", "OUTLETS")
_HEADER = re.compile(r"^\[(\w+)\]$")
Row = list[str]


@dataclass
class Inp:
    """Sections of an input file, in their order; rows keep their text."""

    sections: dict[str, list[str]] = field(default_factory=dict)

    def rows(self, name: str) -> list[Row]:
        """Rows of a section in words, without comments; names in quotes are one word."""
        found = []
        for line in self.sections.get(name, ()):
            words = _words(line)
            if words:
                found.append(words)
        return found

    def ids(self, *names: str) -> tuple[str, ...]:
        """First words of sections, each once."""
        return tuple(dict.fromkeys(row[0] for name in names for row in self.rows(name)))

    def option(self, name: str, usual: str = "") -> str:
        """An option's value."""
        for row in self.rows("OPTIONS"):
            if row[0].upper() == name and len(row) > 1:
                return row[1]
        return usual

    def text(self) -> str:
        """The whole file."""
        return "".join(
            f"[{name}]\n" + "".join(f"{line}\n" for line in lines) + "\n"
            for name, lines in self.sections.items()
        )


class Model(NamedTuple):
    """What a model is made of.

    Attributes
    ----------
    gauges : dict of str to (x, y) or None
        Rain gages of the model, with their place on its own map.
    gauge_of : dict of str to str
        Gage of each subcatchment.
    nodes, links, outfalls, subcatchments, lids : tuple of str
        Their names.
    full : dict of str to float
        Full depth of each link [m or ft].
    flow_units : str
        SWMM's name of them.
    """

    gauges: dict[str, tuple[float, float] | None]
    gauge_of: dict[str, str]
    nodes: tuple[str, ...]
    links: tuple[str, ...]
    outfalls: tuple[str, ...]
    subcatchments: tuple[str, ...]
    lids: tuple[tuple[str, str], ...]
    full: dict[str, float]
    flow_units: str

    @property
    def american(self) -> bool:
        """Whether it reckons in inches and feet."""
        return self.flow_units in US_UNITS


def parse(raw: bytes | str) -> Inp:
    """Read an input file; UTF-8 or Windows-1250.

    Raises
    ------
    Invalid
        It is no input file.
    """
    text = raw if isinstance(raw, str) else _decoded(raw)
    found = Inp()
    name = ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        header = _HEADER.match(stripped)
        if header:
            name = header[1].upper()
            found.sections.setdefault(name, [])
        elif name:
            found.sections[name].append(line.rstrip())
        elif stripped and not stripped.startswith(";"):
            raise Invalid(f"line {number}: this stands before any [SECTION] of a .inp")
    if "OPTIONS" not in found.sections:
        raise Invalid("no SWMM input file: it has no [OPTIONS]")
    return found


def describe(inp: Inp) -> Model:
    """What a model is made of.

    Raises
    ------
    Invalid
        It has no rain gage, or nothing that it rains on.
    """
    places = {
        row[0]: (float(row[1]), float(row[2]))
        for row in inp.rows("SYMBOLS")
        if len(row) > 2 and _is_number(row[1]) and _is_number(row[2])
    }
    gauges = {name: places.get(name) for name in inp.ids("RAINGAGES")}
    subcatchments = inp.ids("SUBCATCHMENTS")
    if not gauges or not subcatchments:
        raise Invalid("the model has no rain gage or no subcatchment: nothing to feed")
    return Model(
        gauges,
        {row[0]: row[1] for row in inp.rows("SUBCATCHMENTS") if len(row) > 1},
        inp.ids(*_NODES),
        inp.ids(*_LINKS),
        inp.ids("OUTFALLS"),
        subcatchments,
        tuple((row[0], row[1]) for row in inp.rows("LID_USAGE") if len(row) > 1),
        {
            row[0]: float(row[2])
            for row in inp.rows("XSECTIONS")
            if len(row) > 2 and _is_number(row[2])
        },
        inp.option("FLOW_UNITS", "CFS").upper(),
    )


def adapt(inp: Inp, start: dt.datetime) -> tuple[Inp, list[str]]:
    """A model that can be fed a minute at a time from a start (UTC); and what was changed.

    Parameters
    ----------
    inp : Inp
        The model as its author wrote it.
    start : datetime
        Its first moment.
    """
    changes: list[str] = []
    made = Inp({name: list(lines) for name, lines in inp.sections.items()})
    end = start.replace(year=start.year + YEARS, day=min(28, start.day))
    _set_options(
        made,
        {
            "WET_STEP": STEP, "DRY_STEP": STEP, "REPORT_STEP": REPORT_STEP, "THREADS": "1",
            "START_DATE": f"{start:%m/%d/%Y}", "START_TIME": f"{start:%H:%M:%S}",
            "REPORT_START_DATE": f"{start:%m/%d/%Y}",
            "REPORT_START_TIME": f"{start:%H:%M:%S}",
            "END_DATE": f"{end:%m/%d/%Y}", "END_TIME": f"{end:%H:%M:%S}",
            "IGNORE_RAINFALL": "NO",
        },
        changes,
    )  # fmt: skip
    _close_files(made, changes)
    _feed(made, changes)
    made.sections["REPORT"] = [
        "INPUT NO", "CONTROLS NO", "SUBCATCHMENTS NONE", "NODES NONE", "LINKS NONE",
    ]  # fmt: skip
    _drop_files(made, changes)
    return made, changes


def _set_options(inp: Inp, wanted: dict[str, str], changes: list[str]) -> None:
    silent = ("START", "END", "REPORT_START")  # a live model has no date of its own
    kept, seen = [], set()
    for line in inp.sections["OPTIONS"]:
        words = _words(line)
        name = words[0].upper() if words else ""
        if name not in wanted:
            kept.append(line)
            continue
        seen.add(name)
        before = words[1] if len(words) > 1 else ""
        if not name.startswith(silent) and before != wanted[name]:
            changes.append(f"{name}: {before} became {wanted[name]}")
    changes += [
        f"{name}: set to {wanted[name]}"
        for name in ("WET_STEP", "DRY_STEP", "THREADS")
        if name not in seen
    ]
    kept += [f"{name} {value}" for name, value in wanted.items()]
    inp.sections["OPTIONS"] = kept


def _feed(inp: Inp, changes: list[str]) -> None:
    """Give every gage a series of its own, of a minute and without rain."""
    rows, series = [], []
    for number, row in enumerate(inp.rows("RAINGAGES")):
        source = " ".join(row[4:6])
        catch = row[3] if len(row) > 3 else "1.0"
        rows.append(f"{row[0]} INTENSITY 0:01 {catch} TIMESERIES {SERIES}{number}")
        series.append(f"{SERIES}{number} 0:00 0")
        changes.append(
            f"rain gage {row[0]}: live rain instead of {source or 'nothing'}"
        )
    inp.sections["RAINGAGES"] = rows
    inp.sections.setdefault("TIMESERIES", []).extend(series)


def _close_files(inp: Inp, changes: list[str]) -> None:
    """A model comes from anybody: it neither reads nor writes files of this machine.

    Raises
    ------
    Invalid
        It needs a file; says which.
    """
    rain = {row[5] for row in inp.rows("RAINGAGES") if len(row) > 5}
    kept = []
    for line in inp.sections.get("TIMESERIES", ()):
        words = _words(line)
        if len(words) > 1 and words[1].upper() == "FILE":
            if words[0] not in rain:
                raise Invalid(
                    f"series {words[0]} reads a file: put its values into the model"
                )
            continue  # live rain stands for it
        kept.append(line)
    if kept:
        inp.sections["TIMESERIES"] = kept
    if any(row[0].upper() == "FILE" for row in inp.rows("TEMPERATURE")):
        raise Invalid("temperature reads a file: put it into a series of the model")
    rows = inp.rows("LID_USAGE")
    for row in rows:
        if len(row) > 8 and row[8] != "*":
            changes.append(f"report file of {row[1]} in {row[0]} left out: {row[8]}")
            row[8] = "*"
    if rows:
        inp.sections["LID_USAGE"] = [
            " ".join(f'"{w}"' if " " in w else w for w in row) for row in rows
        ]


def _drop_files(inp: Inp, changes: list[str]) -> None:
    """A live run neither reads nor writes files of others."""
    changes += [f"file left out: {' '.join(row)}" for row in inp.rows("FILES")]
    inp.sections.pop("FILES", None)


def _words(line: str) -> Row:
    bare = line.split(";", 1)[0]
    return [quoted or word for quoted, word in re.findall(r'"([^"]*)"|(\S+)', bare)]


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1250", errors="replace")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
