"""What is wanted of the lights, whom it reaches, and what each controller is told. Pure.

Programmes, calendars, assignments, overrides and conditions become one desired document
for each controller; it holds what its own luminaires need and nothing else.
"""

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from duha_backend.errors import NotFound
from duha_backend.lighting.days import dated
from duha_backend.lighting.inventory import Asset, Group, Stretch
from duha_contract.lighting import NORMAL, Condition, Override
from duha_contract.messages import Desired
from duha_contract.programmes import Calendar, Input, Place, Programme
from duha_contract.roads import Drying

TargetKind = Literal[
    "luminaire", "street", "stretch", "group", "cabinet", "district", "city"
]  # fmt: skip
_FIELDS = ("street", "stretch", "cabinet", "district")


class StoredOverride(NamedTuple):
    """An override and whom it was meant for."""

    override: Override
    target_kind: str
    target: str
    cancelled: int | None


class Sensed(NamedTuple):
    """An adaptive input: what was sensed, for whom, from `start` to `end` [ms].

    A wet road names the gauges that it comes from, separated by commas.
    """

    kind: Input
    target_kind: str
    target: str
    start: int
    end: int
    detail: str = ""
    who: str = ""


class Wanted(NamedTuple):
    """What operators want, each by its id; `assignments` gives calendars to targets.

    A target is a luminaire, ``stretch:`` with a stretch, a cabinet, or ``*``, the city; the
    nearest one wins, in this order.
    """

    programmes: Mapping[str, Programme]
    calendars: Mapping[str, Calendar]
    groups: Mapping[str, Group]
    stretches: Mapping[str, Stretch]
    assignments: Mapping[str, str]

    def calendar_of(self, asset: Asset) -> str | None:
        """Id of the calendar of a luminaire."""
        given = self.assignments
        return (
            given.get(asset.id)
            or (given.get(f"stretch:{asset.stretch}") if asset.stretch else None)
            or given.get(asset.cabinet)
            or given.get("*")
        )

    def normal_of(self, asset: Asset) -> float:
        """Level [%] of the normal class of a luminaire."""
        stretch = self.stretches.get(asset.stretch) if asset.stretch else None
        return stretch.normal_level if stretch else NORMAL

    def least_of(self, asset: Asset) -> float:
        """Least level [%] in the dark, by the class of its stretch or by itself."""
        stretch = self.stretches.get(asset.stretch) if asset.stretch else None
        return max(stretch.floor if stretch else 0.0, asset.floor or 0.0)


class Lamps:
    """The luminaires of a city, found by what they have in common."""

    def __init__(self, luminaires: Sequence[Asset]) -> None:
        self.all = luminaires
        self._by: dict[str, dict[str, list[Asset]]] = {}

    def by(self, field: str) -> dict[str, list[Asset]]:
        """Luminaires by street, stretch, cabinet or district."""
        if field not in self._by:
            made: dict[str, list[Asset]] = {}
            for asset in self.all:
                made.setdefault(getattr(asset, field), []).append(asset)
            self._by[field] = made
        return self._by[field]

    def reached(
        self, kind: str, target: str, groups: Mapping[str, Group]
    ) -> Sequence[Asset]:
        """The luminaires that a target means."""
        if kind == "city":
            return self.all
        if kind in _FIELDS:
            return self.by(kind).get(target, []) if target else []
        if kind == "group":
            return groups[target].among(self.all) if target in groups else []
        named = set(target.split(","))
        return [a for name in named for a in self.by("id").get(name, [])]


def reach(
    lamps: Lamps, wanted: Wanted, standing: Iterable[StoredOverride]
) -> dict[str, list[Override]]:
    """The overrides of each cabinet, naming its own luminaires where not all are meant."""
    found: dict[str, list[Override]] = {}
    for stored in standing:
        touched: dict[str, list[str]] = {}
        for asset in lamps.reached(stored.target_kind, stored.target, wanted.groups):
            touched.setdefault(asset.cabinet, []).append(asset.id)
        for cabinet, devices in touched.items():
            whole = len(devices) == len(lamps.by("cabinet")[cabinet])
            mine = msgspec.structs.replace(
                stored.override, devices=None if whole else tuple(devices)
            )
            found.setdefault(cabinet, []).append(mine)
    return found


class Compiler(NamedTuple):
    """Makes the documents of a city's controllers.

    Attributes
    ----------
    place : Place
        Its nights.
    drying : Drying or None
        How controllers weigh rain of their own gauges.
    today : date
        From when on holidays are written out.
    """

    place: Place
    drying: Drying | None
    today: dt.date

    def compiled(
        self,
        lamps: Lamps,
        wanted: Wanted,
        overrides: Mapping[str, list[Override]],
        conditions: Mapping[str, tuple[Condition, ...]],
        before: Mapping[str, Desired],
        now: int,
    ) -> dict[str, Desired]:
        """The documents whose content differs from the one before.

        Parameters
        ----------
        lamps, wanted : Lamps, Wanted
            The city, and what is wanted of it.
        overrides, conditions : mapping of cabinet to sequences
            What holds now.
        before : mapping of cabinet to Desired
            The documents in force.
        now : int
            When they are issued [ms].
        """
        calendars = {
            name: dated(calendar, self.today)
            for name, calendar in wanted.calendars.items()
        }
        wanted = wanted._replace(calendars=calendars)
        fresh: dict[str, Desired] = {}
        for cabinet, assets in lamps.by("cabinet").items():
            content = self._content(assets, wanted)
            content = msgspec.structs.replace(
                content,
                overrides=tuple(sorted(overrides.get(cabinet, ()), key=lambda o: o.id)),
                conditions=conditions.get(cabinet, ()),
            )
            digest = hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:16]
            old = before.get(cabinet)
            if old is None or old.hash != digest:
                revision = 1 + (old.revision if old else 0)
                fresh[cabinet] = msgspec.structs.replace(
                    content, revision=revision, hash=digest, issued=now
                )
        return fresh

    def _content(self, assets: Sequence[Asset], wanted: Wanted) -> Desired:
        """Programmes, calendars and assignments that some luminaires need."""
        given = [wanted.calendar_of(asset) or "" for asset in assets]
        most = Counter(given).most_common(1)[0][0]
        assignments = {
            asset.id: name
            for asset, name in zip(assets, given, strict=True)
            if name != most
        }
        used = [
            wanted.calendars[n] for n in sorted(set(given)) if n in wanted.calendars
        ]
        names = {rule.programme for calendar in used for rule in calendar.rules}
        names |= {calendar.default for calendar in used}
        normals = {}
        if wanted.stretches:
            normals = {a.id: n for a in assets if (n := wanted.normal_of(a)) != NORMAL}
        return Desired(
            v=1, revision=0, hash="", issued=0, place=self.place,
            programmes=tuple(
                wanted.programmes[n] for n in sorted(names) if n in wanted.programmes
            ),
            calendars=tuple(used),
            assignments=({"*": most} if most else {}) | assignments,
            normals=normals,
            drying=self.drying,
        )  # fmt: skip


def known(wanted: Wanted, lamps: Lamps, target: str) -> None:
    """Raise NotFound where an assignment's target is nothing in the city."""
    if target == "*" or target in lamps.by("id") or target in lamps.by("cabinet"):
        return
    if target.startswith("stretch:") and target[8:] in wanted.stretches:
        return
    raise NotFound(f"no luminaire, stretch or cabinet {target!r}")
