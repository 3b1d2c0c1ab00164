"""The site file: what hangs on this controller. TOML; a mistake is named with its line."""

import math
import re
import ssl
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from duha_contract.lighting import Sun
from duha_contract.programmes import Place
from duha_contract.topics import is_id
from duha_edge import profiles
from duha_edge.errors import ConfigError

Positive = Annotated[float, msgspec.Meta(gt=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
PortNumber = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
MOST_BYTES = 4 * 2**20
MOST_SECRET_BYTES = 64 * 1024


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who and where this controller is; how often it reads.

    `period_s` is for the fast points of the profiles, `slow_s` for the slow ones. `data`
    is a folder of the agent's own; `profiles` a folder of profiles of one's own, beside
    the shipped ones.
    """

    city: str
    controller: str
    latitude: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    longitude: Annotated[float, msgspec.Meta(ge=-180, le=180)]
    zone: str
    period_s: Seconds = 10.0
    slow_s: Seconds = 900.0
    data: str = "."
    profiles: str | None = None

    @property
    def place(self) -> Place:
        """Position and time zone."""
        return Place(self.latitude, self.longitude, self.zone)


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the MQTT broker is; a password stays in a file of its own."""

    host: str = "127.0.0.1"
    port: PortNumber = 1883
    username: str | None = None
    password_file: str | None = None
    tls_ca: str | None = None

    def password(self) -> str | None:
        """Read the password.

        Raises
        ------
        ConfigError
            The file is not there, or cannot be read.
        """
        if self.password_file is None:
            return None
        return _read(
            Path(self.password_file), "password_file", MOST_SECRET_BYTES
        ).strip()

    def tls(self) -> ssl.SSLContext | None:
        """Read the CA certificates; None without TLS.

        Raises
        ------
        ConfigError
            The file is not there, or holds no certificate.
        """
        if self.tls_ca is None:
            return None
        try:
            return ssl.create_default_context(cafile=self.tls_ca)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise ConfigError(f"tls_ca {self.tls_ca}: {error}") from None


class OutboxLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much the outbox may hold, and how fast a backlog is sent [batches of 96 KiB/s]."""

    max_mib: Annotated[float, msgspec.Meta(gt=0, le=1_048_576)] = 256.0
    drain_per_s: Annotated[float, msgspec.Meta(gt=0, le=100_000)] = 50.0


class Rs485(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Direction of the line by RTS, switched by the port's driver, with delays [s].

    For ports whose adapter does not switch by itself. `send_high` is the level of RTS
    while sending.
    """

    send_high: bool = True
    before_s: Annotated[float, msgspec.Meta(ge=0, le=0.1)] = 0.0
    after_s: Annotated[float, msgspec.Meta(ge=0, le=0.1)] = 0.0


class BusConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line: a serial port, or a host by TCP, TLS, or RTU frames over TCP.

    `pause_s` [s] is kept free before each request, for devices that need it; `broadcast_s`
    after a write that nobody answers. TLS takes `ca` (that signed the host's certificate),
    and `certificate` with `key` where the host asks for one: paths of PEM files.
    """

    name: str
    type: Literal["tcp", "tls", "rtu", "rtu-over-tcp"]
    host: str = ""
    port: int | str = 502
    baud: Annotated[int, msgspec.Meta(ge=50, le=10_000_000)] = 19_200
    format: Literal["8E1", "8N1", "8N2", "8O1"] = "8E1"
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 0.5
    pause_s: Annotated[float, msgspec.Meta(ge=0, le=5)] = 0.0
    broadcast_s: Annotated[float, msgspec.Meta(ge=0, le=5)] = 0.15
    rs485: Rs485 | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    @property
    def serial(self) -> bool:
        """Whether answers carry no number: RTU frames, on whatever wire."""
        return self.type in {"rtu", "rtu-over-tcp"}

    @property
    def character_s(self) -> float:
        """Time of a character on the line [s]."""
        return (10 if self.format == "8N1" else 11) / self.baud


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


class GroupConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One write that reaches many: a group or broadcast register, or unit 0 of a line.

    It is used when all its members are to have the same level. Whoever writes it here
    vouches that it reaches its members and nothing else; each must let it be written.
    """

    bus: str
    unit: Annotated[int, msgspec.Meta(ge=0, le=247)]
    profile: str
    register: str
    members: Annotated[tuple[str, ...], msgspec.Meta(min_length=2)]
    at: dict[str, int] = {}


class SiteFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    site: Site
    bus: tuple[BusConfig, ...]
    device: tuple[DeviceConfig, ...] = ()
    broker: Broker = Broker()
    outbox: OutboxLimits = OutboxLimits()
    group: tuple[GroupConfig, ...] = ()

    @property
    def library(self) -> profiles.Library:
        """The profiles that this file may name, as they are on disk now."""
        own = self.site.profiles
        return profiles.Library(Path(own) if own else None)


def load(path: Path) -> SiteFile:
    """Read and check a site file.

    Raises
    ------
    ConfigError
        Names the file, the line and the key.
    """
    return parse(_read(path, "", MOST_BYTES), str(path), path.parent)


def _read(path: Path, key: str, most: int) -> str:
    """Read a text file of limited size; raises ConfigError."""
    name = f"{key} {path}".strip()
    try:
        with path.open("rb") as file:
            found = file.read(most + 1)
        if len(found) > most:
            raise ConfigError(f"{name}: more than {most} bytes")
        return found.decode()
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from None
    except ValueError as error:  # no UTF-8, or a path with NUL
        raise ConfigError(f"{name}: {error}") from None


def parse(text: str, name: str = "site file", folder: Path = Path()) -> SiteFile:
    """Check the text of a site file; see `load`. Its profiles lie relative to `folder`."""
    try:
        raw = tomllib.loads(text)
        unfit = unusable(raw)
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply") from None
    except ValueError as error:  # of TOML, or a number of too many digits
        raise ConfigError(f"{name}: {error}") from None
    if unfit:
        raise ConfigError(f"{name}: {unfit}")
    try:
        found = msgspec.convert(raw, SiteFile)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        raise ConfigError(_placed(text, name, message, path.rstrip("`"))) from None
    if found.site.profiles is not None:
        own = str(folder / found.site.profiles)
        site = msgspec.structs.replace(found.site, profiles=own)
        found = msgspec.structs.replace(found, site=site)
    problem = _inconsistency(found)
    if problem is not None:
        message, path = problem
        raise ConfigError(_placed(text, name, message, path))
    return found


def unusable(value: Any) -> str:
    """Find a value that no setting may have: not finite, over 64 bits, or with NUL."""
    if isinstance(value, dict):
        return next(filter(None, map(unusable, [*value, *value.values()])), "")
    if isinstance(value, list):
        return next(filter(None, map(unusable, value)), "")
    if isinstance(value, str) and "\0" in value:
        return "a text holds NUL"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no number"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "a number is larger than 64 bits"
    return ""


class Source:
    """A site file that may change while it is in use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder: Path | None = None

    def load(self) -> SiteFile:
        """Read and check it, and the files that it names; raises ConfigError like `load`."""
        found = load(self.path)
        found.broker.password()
        found.broker.tls()
        self._folder = Path(found.site.profiles) if found.site.profiles else None
        return found

    def signature(self) -> tuple[tuple[str, int, int], ...]:
        """Changes when the file or a profile of its own does; cheap."""
        own = sorted(self._folder.glob("*.toml")) if self._folder else []
        return tuple(_signed(path) for path in (self.path, *own))


def _signed(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), found.st_mtime_ns, found.st_size


def _inconsistency(found: SiteFile) -> tuple[str, str] | None:
    """What the schema cannot see: message and path of the first mistake."""
    for key in ("city", "controller"):
        if not is_id(getattr(found.site, key)):
            return f"`{key}` may hold letters, digits, . _ - only", f"$.site.{key}"
    try:
        Sun(found.site.place).date_of(0.0)
    except ValueError as error:
        return str(error), "$.site.zone"
    return _inconsistent_bus(found) or _inconsistent_device(found)


def _inconsistent_bus(found: SiteFile) -> tuple[str, str] | None:
    """The first line that cannot be."""
    names: set[str] = set()
    for number, bus in enumerate(found.bus):
        at = f"$.bus[{number}]"
        if bus.name in names:
            return f"there are two lines `{bus.name}`", f"{at}.name"
        if bus.type == "rtu" and not isinstance(bus.port, str):
            return 'a serial line has a port such as "/dev/ttyUSB0"', f"{at}.port"
        if bus.type != "rtu" and not isinstance(bus.port, int):
            return "a host has a port number", f"{at}.port"
        if bus.type == "tls" and not bus.ca:
            return "a TLS line names the `ca` that it believes", f"{at}.type"
        names.add(bus.name)
    return None


def _inconsistent_device(found: SiteFile) -> tuple[str, str] | None:
    """The first device that does not fit the rest of the file."""
    buses = {bus.name for bus in found.bus}
    library = found.library
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
        if problem := _unwritable(device, library):
            return problem, f"{at}.profile"
        ids.add(device.id)
        units.add(place)
    return _inconsistent_group(found, library)


def _inconsistent_group(
    found: SiteFile, library: profiles.Library
) -> tuple[str, str] | None:
    """The first group that would write what is not allowed to be written."""
    devices = {device.id: device for device in found.device}
    for number, group in enumerate(found.group):
        at = f"$.group[{number}]"
        try:
            profile = library.load(group.profile)
            profile.group_point(group.register, group.at)
        except ConfigError as error:
            return str(error), f"{at}.register"
        quantity = next(g.quantity for g in profile.group if g.name == group.register)
        for name in group.members:
            member = devices.get(name)
            if member is None or member.bus != group.bus:
                return f"`{name}` is no device of `{group.bus}`", f"{at}.members"
            if quantity not in member.writes:
                return f"`{name}` does not let {quantity} be written", f"{at}.members"
    return None


def _unwritable(device: DeviceConfig, library: profiles.Library) -> str | None:
    try:
        profile = library.load(device.profile).placed(device.at)
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
