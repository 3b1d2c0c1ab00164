"""The site file: what hangs on this controller. TOML; a mistake is named with its line."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from duha_contract.lighting import Place, Sun
from duha_contract.topics import is_id
from duha_edge import profiles
from duha_edge.errors import ConfigError

Positive = Annotated[float, msgspec.Meta(gt=0)]


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who and where this controller is; how often it reads.

    `period_s` is for the fast points of the profiles, `slow_s` for the slow ones.
    """

    city: str
    controller: str
    latitude: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    longitude: Annotated[float, msgspec.Meta(ge=-180, le=180)]
    zone: str
    period_s: Positive = 10.0
    slow_s: Positive = 900.0
    data: str = "."

    @property
    def place(self) -> Place:
        """Position and time zone."""
        return Place(self.latitude, self.longitude, self.zone)


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the MQTT broker is; a password stays in a file of its own."""

    host: str = "127.0.0.1"
    port: int = 1883
    username: str | None = None
    password_file: str | None = None
    tls_ca: str | None = None


class OutboxLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much the outbox may hold."""

    max_mib: Positive = 256.0


class BusConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line: Modbus TCP to a host, or RTU on a serial port."""

    name: str
    type: Literal["tcp", "rtu"]
    host: str = ""
    port: int | str = 502
    baud: int = 19_200
    format: Literal["8E1", "8N1", "8N2", "8O1"] = "8E1"
    timeout_s: Positive = 0.5


class DeviceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One device; nothing is written to it that `writes` does not name.

    Several devices may share a unit when it is a gateway: `at` tells them apart, by the
    indexes of the profile, as in ``at = { channel = 0, short = 5 }``.
    """

    id: str
    bus: str
    unit: Annotated[int, msgspec.Meta(ge=1, le=247)]
    profile: str
    writes: tuple[str, ...] = ()
    at: dict[str, int] = {}


class SiteFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    site: Site
    bus: tuple[BusConfig, ...]
    device: tuple[DeviceConfig, ...]
    broker: Broker = Broker()
    outbox: OutboxLimits = OutboxLimits()


def load(path: Path) -> SiteFile:
    """Read and check a site file.

    Raises
    ------
    ConfigError
        Names the file, the line and the key.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    return parse(text, str(path))


def parse(text: str, name: str = "site file") -> SiteFile:
    """Check the text of a site file; see `load`."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: {error}") from None
    try:
        found = msgspec.convert(raw, SiteFile)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        raise ConfigError(_placed(text, name, message, path.rstrip("`"))) from None
    problem = _inconsistency(found)
    if problem is not None:
        message, path = problem
        raise ConfigError(_placed(text, name, message, path))
    return found


def _inconsistency(found: SiteFile) -> tuple[str, str] | None:
    """What the schema cannot see: message and path of the first mistake."""
    for key in ("city", "controller"):
        if not is_id(getattr(found.site, key)):
            return f"`{key}` may hold letters, digits, . _ - only", f"$.site.{key}"
    try:
        Sun(found.site.place).date_of(0.0)
    except ValueError as error:
        return str(error), "$.site.zone"
    return _inconsistent_device(found)


def _inconsistent_device(found: SiteFile) -> tuple[str, str] | None:
    """The first device that does not fit the rest of the file."""
    buses = {bus.name for bus in found.bus}
    ids: set[str] = set()
    units: set[tuple[str, int, tuple[tuple[str, int], ...]]] = set()
    for number, device in enumerate(found.device):
        at = f"$.device[{number}]"
        if not is_id(device.id) or device.id in ids:
            return f"device id `{device.id}` is no id, or is used twice", f"{at}.id"
        if device.bus not in buses:
            return f"`{device.id}` is on bus `{device.bus}`, which is none", f"{at}.bus"
        place = (device.bus, device.unit, tuple(sorted(device.at.items())))
        if place in units:
            return f"unit {device.unit} of `{device.bus}` is used twice", f"{at}.unit"
        if problem := _unwritable(device):
            return problem, f"{at}.profile"
        ids.add(device.id)
        units.add(place)
    return None


def _unwritable(device: DeviceConfig) -> str | None:
    try:
        profile = profiles.load(device.profile).placed(device.at)
    except ConfigError as error:
        return str(error)
    for quantity in device.writes:
        point = profile.point_of(quantity)
        if point is None or point.write is None:
            return f"profile `{device.profile}` has no writable `{quantity}`"
    return None


def _placed(text: str, name: str, message: str, path: str) -> str:
    """Put file and line before a message about a place like ``$.device[3].unit``.

    The message of an unknown field names the field, its path only the table.
    """
    unknown = re.search(r"unknown field `(.+?)`", message)
    key = unknown[1] if unknown else ""
    line = line_of(text, f"{path}.{key}" if key else path)
    where = f"{name}:{line}" if line else name
    what = f"unknown key `{key}`" if key else message
    place = path.removeprefix("$").lstrip(".")
    return f"{where}: {what}" + (f" (in {place})" if place else "")


def line_of(text: str, path: str) -> int | None:
    """Line of a key in a TOML text, the key given as ``$.device[3].unit``.

    A key that is missing gives the line of its table.
    """
    match = re.fullmatch(r"\$(?:\.(\w+)(?:\[(\d+)\])?)?(?:\.([\w-]+))?.*", path)
    if match is None or match[1] is None:
        return None
    table, index, key = match[1], int(match[2] or 0), match[3]
    seen, start = -1, None
    for number, line in enumerate(text.splitlines(), 1):
        head = re.match(r"\s*\[\[?\s*([\w.-]+)\s*\]\]?", line)
        if head and start is not None:
            break
        if head and head[1] == table:
            seen += 1
            start = number if seen == index else None
        elif (start and key and re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", line)) or (
            not head and start is None and re.match(rf"\s*{re.escape(table)}\s*=", line)
        ):
            return number
    return start
