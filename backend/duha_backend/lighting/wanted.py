"""What is wanted of the lights, whom it reaches, and what each controller is told. Pure.

Programmes, calendars, assignments, overrides and conditions become one desired document
for each controller; it holds what its own luminaires need and nothing else.
"""

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import msgspec

from duha_backend.errors import Conflict, Invalid, NotFound
from duha_backend.lighting.days import dated
from duha_backend.lighting.inventory import Asset, Group, Stretch
from duha_contract.lighting import NORMAL, Condition, Override, Sun, level_at
from duha_contract.messages import MAX_BYTES, Desired
from duha_contract.programmes import Calendar, Input, Place, Programme
from duha_contract.roads import Drying
from duha_contract.topics import is_id

TargetKind = Literal[
    "luminaire", "street", "stretch", "group", "cabinet", "district", "city"
]  # fmt: skip
_FIELDS = ("street", "stretch", "cabinet", "district")
MOST_BYTES = MAX_BYTES - 1024
"""Largest content of a document: revision, hash and term come on top."""
_TRIAL_H = range(0, 49, 3)
_INPUTS: tuple[Input, ...] = ("wet_road", "traffic", "motion")


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

    @cached_property
    def controlled(self) -> dict[str, list[Asset]]:
        """Luminaires by the cabinet that controls them; without one nothing does."""
        return {name: own for name, own in self.by("cabinet").items() if is_id(name)}

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
        named = dict.fromkeys(target.split(","))
        return [a for name in named for a in self.by("id").get(name, [])]


def _by_cabinet(
    lamps: Lamps, assets: Iterable[Asset]
) -> dict[str, tuple[str, ...] | None]:
    """Ids of luminaires by their cabinet; None where all of a cabinet are meant."""
    touched: dict[str, list[str]] = {}
    for asset in assets:
        touched.setdefault(asset.cabinet, []).append(asset.id)
    controlled = lamps.controlled
    return {
        cabinet: None if len(own) == len(controlled[cabinet]) else tuple(own)
        for cabinet, own in touched.items()
        if cabinet in controlled
    }


def reach(
    lamps: Lamps, wanted: Wanted, standing: Iterable[StoredOverride]
) -> dict[str, list[Override]]:
    """The overrides of each cabinet, naming its own luminaires where not all are meant."""
    found: dict[str, list[Override]] = {}
    for stored in standing:
        meant = lamps.reached(stored.target_kind, stored.target, wanted.groups)
        for cabinet, devices in _by_cabinet(lamps, meant).items():
            mine = msgspec.structs.replace(stored.override, devices=devices)
            found.setdefault(cabinet, []).append(mine)
    return found


def sensed_by(
    lamps: Lamps, wanted: Wanted, sensed: Iterable[Sensed]
) -> dict[str, tuple[Condition, ...]]:
    """What was sensed for the luminaires of each cabinet."""
    found: dict[str, list[Condition]] = {}
    for given in sensed:
        meant = lamps.reached(given.target_kind, given.target, wanted.groups)
        for cabinet, devices in _by_cabinet(lamps, meant).items():
            condition = Condition(
                given.kind, given.start, given.end, given.detail, devices
            )
            found.setdefault(cabinet, []).append(condition)
    return {cabinet: tuple(conditions) for cabinet, conditions in found.items()}


class Compiled(NamedTuple):
    """Documents that are new, and what could not be done, by cabinet.

    A cabinet whose document cannot be made keeps the one it has.
    """

    fresh: dict[str, Desired]
    problems: dict[str, str]


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
        revisions: Mapping[str, int] = {},
    ) -> Compiled:
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
        revisions : mapping of cabinet to int
            Last revisions of documents that cannot be read any more.
        """
        made = Compiled({}, {})
        tried = _Tried(self, wanted, now)
        for cabinet, assets in lamps.controlled.items():
            old = before.get(cabinet)
            try:
                content = msgspec.structs.replace(
                    self._content(assets, wanted, tried),
                    overrides=tuple(
                        sorted(overrides.get(cabinet, ()), key=lambda o: o.id)
                    ),
                    conditions=conditions.get(cabinet, ()),
                )
                content, raw, left_out = _fitted(content)
                digest = hashlib.sha256(raw).hexdigest()[:16]
                if left_out:
                    made.problems[cabinet] = f"too large, left out: {left_out}"
                if old is not None and old.hash == digest:
                    continue
                msgspec.json.decode(raw, type=Desired)
            except Exception as error:  # noqa: BLE001 - the other cabinets go on
                made.problems[cabinet] = f"{type(error).__name__}: {error}"[:300]
                continue
            last = old.revision if old else revisions.get(cabinet, 0)
            made.fresh[cabinet] = msgspec.structs.replace(
                content, revision=last + 1, hash=digest, issued=now
            )
        return made

    def _content(
        self, assets: Sequence[Asset], wanted: Wanted, tried: "_Tried"
    ) -> Desired:
        """Programmes, calendars and assignments that some luminaires need."""
        given = [wanted.calendar_of(asset) or "" for asset in assets]
        most = Counter(given).most_common(1)[0][0]
        assignments = {
            asset.id: name
            for asset, name in zip(assets, given, strict=True)
            if name != most
        }
        used = [tried.calendar(n) for n in sorted(set(given)) if n in wanted.calendars]
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


class _Tried:
    """Calendars with their dates, each tried over two days before it is used."""

    def __init__(self, compiler: Compiler, wanted: Wanted, now: int) -> None:
        self._compiler = compiler
        self._wanted = wanted
        self._now = now
        self._found: dict[str, Calendar | Exception] = {}

    def calendar(self, name: str) -> Calendar:
        """A calendar that can be carried out; raises what came of trying it."""
        if name not in self._found:
            try:
                self._found[name] = self._try(self._wanted.calendars[name])
            except Exception as error:  # noqa: BLE001 - each who needs it is told
                self._found[name] = error
        found = self._found[name]
        if isinstance(found, Exception):
            raise found
        return found

    def _try(self, calendar: Calendar) -> Calendar:
        calendar = dated(calendar, self._compiler.today)
        sun, start = Sun(self._compiler.place), self._now / 1000
        sensed = [Condition(kind, 0, 2**53) for kind in _INPUTS]
        for hours in _TRIAL_H:
            t = start + hours * 3600
            level_at(self._wanted.programmes, calendar, (), sensed, sun, t)
        return calendar


def _fitted(content: Desired) -> tuple[Desired, bytes, str]:
    """A document that controllers take, its bytes, and what was left out for that.

    What was sensed goes first, then overrides, the newest of them first; emergencies stay.
    """
    raw = msgspec.json.encode(content)
    left_out = []
    while len(raw) > MOST_BYTES:
        by_hand = [o for o in content.overrides if not o.emergency]
        if any(c.kind != "wet_road" for c in content.conditions):
            wet = tuple(c for c in content.conditions if c.kind == "wet_road")
            content = msgspec.structs.replace(content, conditions=wet)
            left_out.append("what was sensed")
        elif by_hand:
            rest = tuple(o for o in content.overrides if o is not by_hand[-1])
            content = msgspec.structs.replace(content, overrides=rest)
            left_out.append(f"override {by_hand[-1].id}")
        else:
            raise Invalid(f"its document would have {len(raw)} bytes: {MOST_BYTES} go")
        raw = msgspec.json.encode(content)
    return content, raw, ", ".join(left_out)


def known(wanted: Wanted, lamps: Lamps, target: str) -> None:
    """Raise NotFound where an assignment's target is nothing in the city."""
    if target == "*" or target in lamps.by("id") or target in lamps.by("cabinet"):
        return
    if target.startswith("stretch:") and target[8:] in wanted.stretches:
        return
    raise NotFound(f"no luminaire, stretch or cabinet {target!r}")


def with_document(wanted: Wanted, field: str, document: Any) -> Wanted:
    """What would be wanted with another document."""
    return wanted._replace(**{field: {**getattr(wanted, field), document.id: document}})


def named(calendar: Calendar) -> set[str]:
    """The programmes that a calendar names."""
    return {calendar.default, *(rule.programme for rule in calendar.rules)}


def names_programmes(calendar: Calendar, wanted: Wanted) -> None:
    """Raise Conflict when a calendar names a programme that is none."""
    for name in sorted(named(calendar) - wanted.programmes.keys()):
        raise Conflict(f"calendar {calendar.id}: no programme {name!r}")


def users(wanted: Wanted, kind: type[Any], name: str) -> list[str]:
    """What would be without something if a document went."""
    if kind is Programme:
        calendars = wanted.calendars.values()
        return [f"calendar {c.id}" for c in calendars if name in named(c)]
    if kind is Stretch:
        return [target for target in wanted.assignments if target == f"stretch:{name}"]
    if kind is Calendar:
        return [t for t, calendar in wanted.assignments.items() if calendar == name]
    return []
