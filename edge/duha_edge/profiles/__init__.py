"""Device profiles: how the registers of one product become quantities. Data, not code."""

import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Literal

import msgspec

from duha_contract.quantities import BY_NAME
from duha_edge.errors import ConfigError

Type = Literal["u16", "s16", "u32", "s32", "f32"]
TableName = Literal["holding", "input"]
WORDS: dict[str, int] = {"u16": 1, "s16": 1, "u32": 2, "s32": 2, "f32": 2}
Address = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]


class Write(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The range [unit of the quantity] that may ever be written to a point."""

    low: float
    high: float


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One quantity at one address; value = raw × scale, or one bit of it.

    `address` is the zero-based address of the protocol, not a manual's number.
    Two-word types have their high word first.
    """

    quantity: str
    table: TableName
    address: Address
    type: Type
    scale: float = 1.0
    bit: int | None = None
    invalid: int | None = None
    write: Write | None = None

    @property
    def words(self) -> int:
        """Registers that it takes."""
        return WORDS[self.type]


class Counter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rain counter: number of its states and depth of one tip [mm]."""

    modulus: int
    mm_per_tip: float


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one product says in its registers."""

    name: str
    kind: str
    title: str
    point: tuple[Point, ...]
    counter: Counter | None = None

    def point_of(self, quantity: str) -> Point | None:
        """The point of a quantity, if the product has it."""
        return next((p for p in self.point if p.quantity == quantity), None)


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
    try:
        profile = msgspec.convert(tomllib.loads(text), Profile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"profile: {error}") from None
    known = BY_NAME.get(profile.kind)
    if known is None:
        raise ConfigError(f"profile {profile.name}: no kind {profile.kind!r}")
    for point in profile.point:
        if point.quantity not in known:
            raise ConfigError(
                f"profile {profile.name}: a {profile.kind} has no {point.quantity!r}"
            )
    return profile
