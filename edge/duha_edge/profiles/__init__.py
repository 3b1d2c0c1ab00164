"""Device profiles: how the registers of one product become quantities. Data, not code."""

import math
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from duha_contract.quantities import BY_NAME
from duha_edge.errors import ConfigError

Type = Literal["u16", "s16", "u32", "s32", "u64", "s64", "f32", "bit"]
TableName = Literal["holding", "input", "coil", "discrete"]
Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]
PollClass = Literal["fast", "slow", "nightly", "once"]
WORDS: dict[str, int] = {
    "u16": 1, "s16": 1, "u32": 2, "s32": 2, "u64": 4, "s64": 4, "f32": 2, "bit": 1,
}  # fmt: skip
BITS: frozenset[str] = frozenset(("coil", "discrete"))
MOST_CHARS = 2**20
Address = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Write(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a point may be written.

    `low` and `high` are the range [unit of the quantity] that may ever be written; with
    `off` 0 may, too: gear with ``low = 10`` that dims to 10 % and goes out at 0. Where
    neither allows 0, the light stays at `low` and is reported. What was written is read back unless `verify` says that the product cannot; `fade_s` [s] is how
    long the product takes until the point shows what was written. `function` is the Modbus
    function of the write.
    """

    low: float
    high: float
    function: Literal[6, 16] = 6
    verify: bool = True
    fade_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0
    off: bool = False

    def allows(self, value: float) -> bool:
        """True for a value that may be written."""
        return self.low <= value <= self.high or (self.off and value == 0)

    def nearest(self, level: int) -> int:
        """Nearest integer level to `level` that may be written."""
        if self.allows(level):
            return level
        return max(math.ceil(self.low), min(math.floor(self.high), level))


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One quantity at one address; value = raw × scale + offset, or one bit of it.

    `address` is the zero-based address of the protocol, not a manual's number.
    `order` says how a value lies in its registers, A being its highest byte: ABCD high
    word first, CDAB low word first, BADC and DCBA with the bytes of each word swapped.
    `invalid` lists raw codes that mean "no value". `packed` names an index of a gateway:
    the device at place p of it has bit p % 16 of register `address` + p // 16, so that one
    read tells about them all.
    """

    quantity: str
    address: Address
    table: TableName = "holding"
    type: Type = "u16"
    order: Order = "ABCD"
    scale: float = 1.0
    offset: float = 0.0
    bit: Annotated[int, msgspec.Meta(ge=0, le=15)] | None = None
    packed: str | None = None
    invalid: tuple[int, ...] = ()
    poll: PollClass = "fast"
    write: Write | None = None

    @property
    def words(self) -> int:
        """Registers, or bits of a bit table, that it takes."""
        return WORDS[self.type]

    def placed(self, at: Mapping[str, int], index: Mapping[str, "Index"]) -> "Point":
        """The point of the device at a place behind a gateway."""
        place = at[self.packed] if self.packed else 0
        shift = sum(at[n] * index[n].step for n in index if n != self.packed)
        return msgspec.structs.replace(
            self,
            address=self.address + shift + place // 16,
            bit=place % 16 if self.packed else self.bit,
        )


class Counter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rain counter that only grows: number of its states, depth of one count [mm].

    `kind` is "tips" or "total". What restarts with each reading ("since_read") loses
    rain with every answer that gets lost: it is no source of rain here.
    """

    kind: Literal["tips", "total"]
    modulus: Count
    mm_per_count: float


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of several devices behind one unit: `step` registers apart, `count` of them."""

    step: Count
    count: Count


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A register that writes a quantity of many devices at once: a DALI group, a broadcast.

    Whom it reaches is said by the site, and by whoever commissioned the gear.
    """

    name: str
    quantity: str
    address: Address
    index: dict[str, Index] = {}


class Fence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Addresses that a device refuses to be read; both ends included."""

    table: TableName
    first: Address
    last: Address


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one product says in its registers.

    Attributes
    ----------
    name, kind, title, source : str
        Id, kind of the data dictionary, name for people, where the map comes from.
    serial : str
        Factory setting of the line, such as "9600 8N1".
    alone : bool
        The product wants each value requested by itself.
    max_words : int
        Most registers that it gives in one answer.
    index : mapping of str to Index
        How the devices behind a gateway are told apart; a site says `at`.
    group : tuple of Group
        Registers that write many devices at once.
    """

    name: str
    kind: str
    title: str
    point: tuple[Point, ...]
    source: str = ""
    serial: str = ""
    alone: bool = False
    max_words: Annotated[int, msgspec.Meta(ge=1, le=125)] = 125
    counter: Counter | None = None
    index: dict[str, Index] = {}
    fence: tuple[Fence, ...] = ()
    group: tuple[Group, ...] = ()

    def point_of(self, quantity: str) -> Point | None:
        """The point of a quantity, if the product has it."""
        return next((p for p in self.point if p.quantity == quantity), None)

    def placed(self, at: Mapping[str, int]) -> "Profile":
        """The profile of the device at a place behind a gateway.

        Raises
        ------
        ConfigError
            `at` does not name every index of the profile, within its count.
        """
        _check_place(self.name, at, self.index)
        if not at:
            return self
        moved = tuple(point.placed(at, self.index) for point in self.point)
        return msgspec.structs.replace(self, point=moved)

    def group_point(self, name: str, at: Mapping[str, int]) -> Point:
        """What writes to a group of devices.

        Raises
        ------
        ConfigError
            There is no such group, or `at` does not name every index of it.
        """
        group = next((g for g in self.group if g.name == name), None)
        if group is None:
            some = ", ".join(g.name for g in self.group) or "none"
            raise ConfigError(f"profile `{self.name}` has no group `{name}`: {some}")
        _check_place(f"{self.name}.{name}", at, group.index)
        like = self.point_of(group.quantity)
        assert like is not None, "checked when the profile was read"  # noqa: S101
        return msgspec.structs.replace(like, address=group.address, packed=None).placed(
            at, group.index
        )


def _check_place(name: str, at: Mapping[str, int], index: Mapping[str, Index]) -> None:
    """Raise ConfigError unless `at` names every index, within its count."""
    if set(at) != set(index):
        raise ConfigError(f"`{name}` is placed by {', '.join(index) or 'nothing'}")
    for key, place in at.items():
        if not 0 <= place < index[key].count:
            raise ConfigError(f"`{key}` of `{name}` is 0 to {index[key].count - 1}")


class Library:
    """The shipped profiles, and those of a folder, which come first.

    Parameters
    ----------
    folder : Path, optional
        TOML files of an integrator's own; the name of a file is the name of its profile.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, Profile] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all profiles."""
        own = self._folder.glob("*.toml") if self._folder else ()
        return tuple(sorted({*names(), *(file.stem for file in own)}))

    def load(self, name: str) -> Profile:
        """Load a profile; a library reads each file once.

        Raises
        ------
        ConfigError
            There is no such profile, or it breaks the schema.
        """
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> Profile:
        own = self._folder / f"{name}.toml" if self._folder else None
        if own is None or not own.is_file():
            if self._folder and name not in names():
                raise ConfigError(f"no profile {name!r} shipped, nor in {self._folder}")
            return load(name)
        try:
            found = parse(own.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            raise ConfigError(f"{own}: {error}") from None
        if found.name != name:
            raise ConfigError(f"{own}: its name is {found.name!r}, not the file's")
        return found


@cache
def names() -> tuple[str, ...]:
    """Names of the profiles that are shipped."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(f.name[:-5] for f in files if f.name.endswith(".toml")))


@cache
def load(name: str) -> Profile:
    """Load a shipped profile.

    Raises
    ------
    ConfigError
        There is no such profile, or it breaks the schema.
    """
    if name not in names():
        raise ConfigError(f"no profile {name!r}; there are {', '.join(names())}")
    return parse(resources.files(__name__).joinpath(f"{name}.toml").read_text("utf-8"))


def parse(text: str) -> Profile:
    """Read a profile and check it against the data dictionary.

    Raises
    ------
    ConfigError
        Not TOML, an unknown key, or a quantity that the kind of device does not have.
    """
    if len(text) > MOST_CHARS:
        raise ConfigError(f"profile: more than {MOST_CHARS} characters")
    try:
        profile = msgspec.convert(tomllib.loads(text), Profile)
    except RecursionError:
        raise ConfigError("profile: nested too deeply") from None
    except ValueError as error:  # of TOML or of the schema
        raise ConfigError(f"profile: {error}") from None
    known = BY_NAME.get(profile.kind)
    if known is None:
        raise ConfigError(f"profile {profile.name}: no kind {profile.kind!r}")
    for point in profile.point:
        problem = _wrong(point, known)
        if problem:
            raise ConfigError(f"profile {profile.name}: {point.quantity}: {problem}")
    if profile.counter is not None and profile.point_of("counter_raw") is None:
        raise ConfigError(f"profile {profile.name}: a counter needs a counter_raw")
    _check_groups(profile)
    return profile


def _check_groups(profile: Profile) -> None:
    """Raise ConfigError where a group writes, or a bit is packed by, what there is not."""
    for group in profile.group:
        point = profile.point_of(group.quantity)
        if point is None or point.write is None:
            problem = f"group {group.name}: no writable {group.quantity}"
            raise ConfigError(f"profile {profile.name}: {problem}")
    for point in profile.point:
        if point.packed is not None and point.packed not in profile.index:
            problem = f"{point.quantity}: packed by no index `{point.packed}`"
            raise ConfigError(f"profile {profile.name}: {problem}")


def _wrong(point: Point, known: Mapping[str, object]) -> str | None:
    """Why a point cannot be; None when it can."""
    if point.quantity not in known:
        return "this kind of device has no such quantity"
    if (point.table in BITS) != (point.type == "bit"):
        return "bits, and only bits, lie in coils and discrete inputs"
    if point.scale == 0 or not math.isfinite(point.scale):
        return "a scale is a number other than 0"
    if not math.isfinite(point.offset):
        return "an offset is a number"
    if point.write is not None and not (
        -math.inf < point.write.low <= point.write.high < math.inf
    ):
        return "its write range has no value"
    if point.write is not None and (point.words != 1 or point.table != "holding"):
        return "only a single holding register can be written"
    return None
