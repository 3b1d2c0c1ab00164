"""Assets from and to files: CSV as spreadsheets write it, GeoJSON as maps do. Pure.

Nothing is taken over in silence: every row that cannot be an asset is named, with its
reason, so that a dry run shows what an import would do.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from duha_backend.cells import plain_cells, text_of
from duha_backend.lighting.inventory import Asset
from duha_contract.topics import is_id

ASSET_KINDS = (
    "cabinet", "luminaire", "meter", "rain_gauge", "rain_detector", "lux", "cabinet_io",
)  # fmt: skip
PHASES = ("", "L1", "L2", "L3")
_NEEDED = ("id", "kind", "latitude", "longitude")
LONGEST_TEXT = 200
_UNFIT = re.compile("[\x00\ud800-\udfff]")
_TRUE = {"1", "true", "yes", "ano", "y", "a", ""}
_FALSE = {"0", "false", "no", "ne", "n"}


class Problem(NamedTuple):
    """A row that cannot be taken, and why. Rows count from 1, with the header in CSV."""

    row: int
    id: str
    reason: str


@dataclass
class Parsed:
    """What a file holds."""

    assets: list[Asset] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    streets: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def without_control(self) -> int:
        """How many luminaires have no cabinet: they are shown, and nothing controls them."""
        return sum(a.kind == "luminaire" and not a.cabinet for a in self.assets)


def parse(raw: bytes, known_cabinets: Iterable[str] = ()) -> Parsed:
    """Read a file of either form.

    Parameters
    ----------
    raw : bytes
        GeoJSON (a FeatureCollection), or CSV with a header: UTF-8 or Windows-1250, with
        comma, semicolon or tab, and decimal comma or point.
    known_cabinets : iterable of str
        Cabinets that are there already; others must be in the file.
    """
    text = _decoded(raw)
    read = _from_geojson if text.lstrip().startswith(("{", "[")) else _from_csv
    return _checked(read(text), set(known_cabinets))


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1250", errors="replace")


def _from_csv(text: str) -> Parsed:
    parsed = Parsed()
    header = text.split("\n", 1)[0]
    separator = max(";,\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=separator)
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
    except csv.Error as error:
        parsed.problems.append(Problem(1, "", f"no CSV: {error}"))
        return parsed
    reader.fieldnames = names
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        reason = f"the header lacks {', '.join(missing)}; it has {', '.join(names)}"
        parsed.problems.append(Problem(1, "", reason))
        return parsed
    try:
        _take(parsed, enumerate(reader, 2), lambda row: row)
    except csv.Error as error:  # nothing behind it can be told apart
        parsed.problems.append(Problem(reader.line_num + 1, "", f"no CSV: {error}"))
    return parsed


def _from_geojson(text: str) -> Parsed:
    parsed = Parsed()
    try:
        features = json.loads(text)["features"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        parsed.problems.append(Problem(1, "", f"no FeatureCollection: {error}"))
        return parsed
    if not isinstance(features, list):
        parsed.problems.append(Problem(1, "", "`features` is no list"))
        return parsed
    places = []
    for number, feature in enumerate(features, 1):
        if _part(feature, "properties").get("kind") == "street":
            _take_street(parsed, number, feature)
        else:
            places.append((number, feature))
    _take(parsed, places, _flat)
    return parsed


def _part(feature: object, name: str) -> dict[str, Any]:
    """An object within a feature; empty where there is none."""
    found = feature.get(name) if isinstance(feature, dict) else None
    return found if isinstance(found, dict) else {}


def _flat(feature: object) -> dict[str, Any]:
    """A point feature as the row that CSV would have."""
    if not isinstance(feature, dict):
        raise TypeError("no feature with a geometry")
    geometry = _part(feature, "geometry")
    if geometry.get("type") != "Point":
        raise ValueError(f"the geometry is a {geometry.get('type')}, not a Point")
    longitude, latitude, *_ = geometry["coordinates"]
    return {
        **_part(feature, "properties"),
        "longitude": longitude,
        "latitude": latitude,
    }


def _take(
    parsed: Parsed,
    rows: Iterable[tuple[int, Any]],
    form: Callable[[Any], Mapping[str, Any]],
) -> None:
    seen: dict[str, int] = {}
    shared: dict[str, str] = {}
    for number, raw in rows:
        name = ""
        try:
            row = form(raw)
            name = str(row.get("id") or "").strip()
            asset = _asset(row, shared)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
        ) as error:
            parsed.problems.append(Problem(number, name[:64], str(error)[:300]))
            continue
        if asset.id in seen:
            reason = f"row {seen[asset.id]} has this id already"
            parsed.problems.append(Problem(number, name, reason))
            continue
        seen[asset.id] = number
        parsed.assets.append(asset)
        parsed.rows.append(number)


def _asset(row: Mapping[str, Any], shared: dict[str, str]) -> Asset:
    """An asset from a row of text or JSON.

    Raises
    ------
    ValueError
        Says what is wrong.
    """

    def text(name: str) -> str:
        found = text_of(str(row.get(name) or "").strip())
        if len(found) > LONGEST_TEXT or _UNFIT.search(found):
            raise ValueError(f"{name} is longer than {LONGEST_TEXT}, or holds a NUL")
        return shared.setdefault(found, found)  # streets and cabinets repeat a lot

    if not is_id(text("id")):
        raise ValueError(f"{text('id')!r} is no id: 1 to 64 of A-Z a-z 0-9 . _ -")
    if text("kind") not in ASSET_KINDS:
        raise ValueError(f"kind {text('kind')!r} is none of {', '.join(ASSET_KINDS)}")
    latitude = _number(row, "latitude", 90)
    longitude = _number(row, "longitude", 180)
    if text("phase").upper() not in PHASES:
        raise ValueError(f"phase {text('phase')!r} is none of L1, L2, L3")
    return Asset(
        text("id"), text("kind"), text("cabinet"), text("district"), text("street"),
        latitude, longitude, text("feeder"), text("type"), _flag(row.get("networked")),
        text("stretch"), text("pole"), text("phase").upper(), text("asset_id"),
        _floor(row.get("floor")),
    )  # fmt: skip


def _number(
    row: Mapping[str, Any], name: str, most: float, least: float | None = None
) -> float:
    given = row.get(name)
    try:
        value = float(str(given).strip().replace(",", "."))
    except ValueError:
        raise ValueError(f"{name} {given!r} is no number") from None
    least = -most if least is None else least
    if not least <= value <= most:
        raise ValueError(f"{name} {value:g} is not between {least:g} and {most:g}")
    return value


def _floor(value: object) -> float | None:
    """The least level [%] of a luminaire that must not be dimmed further."""
    if value is None or not str(value).strip():
        return None
    return _number({"floor": value}, "floor", 100, least=0)


def _flag(value: object) -> bool:
    text = "" if value is None else str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"networked {value!r} is neither yes nor no")


def _take_street(parsed: Parsed, number: int, feature: object) -> None:
    properties = _part(feature, "properties")
    name = str(properties.get("name", ""))
    try:
        line = _line(name, _part(feature, "geometry"))
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        reason = f"street without a line: {error}"
        parsed.problems.append(Problem(number, name[:LONGEST_TEXT], reason))
        return
    main = bool(properties.get("main", False))
    parsed.streets.append({"name": name, "main": main, "line": line})


def _line(name: str, geometry: Mapping[str, Any]) -> list[list[float]]:
    """The line of a street; raises ValueError for what is none."""
    if len(name) > LONGEST_TEXT or _UNFIT.search(name):
        raise ValueError(f"its name is longer than {LONGEST_TEXT}, or holds a NUL")
    line = [[float(x), float(y)] for x, y, *_ in geometry["coordinates"]]
    if not all(abs(x) <= 180 and abs(y) <= 90 for x, y in line):
        raise ValueError("a point of it is nowhere on Earth")
    return line


def _checked(parsed: Parsed, cabinets: set[str]) -> Parsed:
    """Without the assets whose cabinet is nowhere."""
    cabinets = cabinets | {a.id for a in parsed.assets if a.kind == "cabinet"}
    lost = {
        number: asset
        for number, asset in zip(parsed.rows, parsed.assets, strict=True)
        if asset.cabinet and asset.cabinet not in cabinets
    }
    for number, asset in lost.items():
        reason = f"there is no cabinet {asset.cabinet!r}"
        parsed.problems.append(Problem(number, asset.id, reason))
    gone = {asset.id for asset in lost.values()}
    parsed.assets = [asset for asset in parsed.assets if asset.id not in gone]
    parsed.problems.sort()
    return parsed


def to_csv(assets: Iterable[Asset]) -> str:
    """Assets as CSV, with a header; `parse` reads it back."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(Asset._fields)
    for asset in assets:
        networked = "yes" if asset.networked else "no"
        row = asset._replace(networked=networked)  # type: ignore[arg-type]
        writer.writerow(plain_cells(row))
    return out.getvalue()


def to_geojson(
    assets: Iterable[Asset], streets: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Assets and streets as a FeatureCollection; `parse` reads it back."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "LineString", "coordinates": street["line"]},
            "properties": {"kind": "street", "name": street["name"], "main": street["main"]},
        }
        for street in streets
    ]  # fmt: skip
    for asset in assets:
        properties = asset._asdict()
        place = [properties.pop("longitude"), properties.pop("latitude")]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": place},
                "properties": properties,
            }
        )
    return {"type": "FeatureCollection", "features": features}
