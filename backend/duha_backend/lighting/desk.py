"""What operators want: taken when it can be, refused with reasons when it cannot.

Everything that is taken goes to the registry; whoever controls finds it there.
"""

import datetime as dt
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from duha_backend.alarms.quiet import Quiet
from duha_backend.documents import body_of
from duha_backend.errors import Conflict, Invalid, NotFound, Refused
from duha_backend.lighting.days import dated
from duha_backend.lighting.inventory import Asset, Group, Stretch
from duha_backend.lighting.refusals import NIGHTS, Refusal, refusals
from duha_backend.lighting.roads import Roads, neighbours
from duha_backend.lighting.wanted import (
    MOST_BYTES,
    Lamps,
    Sensed,
    StoredOverride,
    TargetKind,
    Wanted,
    known,
    named,
    names_programmes,
    reach,
    sensed_by,
    users,
    with_document,
)
from duha_backend.live import Live
from duha_backend.registry import Document, Registry
from duha_contract.clock import Clock
from duha_contract.lighting import Condition, Decision, Override, Sun, level_at
from duha_contract.programmes import (
    Calendar,
    Place,
    Programme,
    check,
    date_of,
    noons,
    segments,
)  # fmt: skip

if TYPE_CHECKING:
    from duha_contract.messages import Desired

LONGEST_OVERRIDE_MS = 7 * 24 * 3_600_000
LONGEST_INPUT_MS = 3_600_000


class Desk:
    """Where operators say what they want, and ask why a lamp is as it is.

    Parameters
    ----------
    registry, live, clock : Registry, Live, Clock
        What is wanted, what is there, and when.
    place : Place
        Where the city is.
    roads : Roads
        Which gauges are near to which luminaires.
    """

    def __init__(
        self, registry: Registry, live: Live, clock: Clock, place: Place, roads: Roads
    ) -> None:
        self._registry = registry
        self._live = live
        self._clock = clock
        self.place = place
        self._roads = roads
        self._lamps: tuple[int, Lamps] = (-1, Lamps(()))
        self.documents: Callable[[], Mapping[str, Desired]] = dict

    @property
    def sun(self) -> Sun:
        """The nights of the city."""
        return Sun(self.place)

    @property
    def lamps(self) -> Lamps:
        """The luminaires of the city."""
        known = self._lamps
        if known[0] != self._live.version:
            known = self._lamps = (self._live.version, Lamps(self._live.luminaires))
        return known[1]

    def wanted(self) -> Wanted:
        """What is wanted now."""
        return self._wanted(self._registry.all, self._registry.assignments())

    def wanted_at(self, t: int) -> Wanted:
        """What was wanted at a time [ms]."""
        return self._wanted(
            lambda kind: self._registry.all_at(kind, t),
            self._registry.assignments_at(t),
        )

    @staticmethod
    def _wanted(all_of: Callable[..., list[Any]], given: dict[str, str]) -> Wanted:
        def by_id(kind: type[msgspec.Struct]) -> dict[str, Any]:
            return {document.id: document for document in all_of(kind)}

        return Wanted(
            by_id(Programme), by_id(Calendar), by_id(Group), by_id(Stretch), given
        )

    def add_override(
        self, kind: TargetKind, target: str, override: Override
    ) -> StoredOverride:
        """Take an override; it gets its id here.

        Raises
        ------
        Invalid
            Level, end or target cannot be.
        NotFound
            There is no such target.
        """
        now = self._clock.now_ms()
        if not 0 <= override.level <= 100:
            raise Invalid(f"a level is 0 to 100 %, not {override.level}")
        if override.end <= max(now, override.start):
            raise Invalid("an override ends after it begins, and in the future")
        if override.end - now > LONGEST_OVERRIDE_MS:
            raise Invalid("an override lasts 7 days at most; a programme is for ever")
        if not self.members(kind, target):
            raise NotFound(f"no luminaire in {kind} {target!r}")
        name = f"{now:013d}-{secrets.token_hex(3)}"  # newest last by id
        stored = StoredOverride(
            msgspec.structs.replace(override, id=name), kind, target, None
        )
        self._check_size(reach(self.lamps, self.wanted(), [stored]))
        self._registry.add_override(stored)
        return stored

    def sense(self, given: Sensed) -> None:
        """Take an adaptive input, such as traffic or motion.

        Raises
        ------
        Invalid
            It ends too late, or before it begins: an input that is not renewed ends.
        NotFound
            There is no such target.
        """
        now = self._clock.now_ms()
        if not now < given.end <= now + LONGEST_INPUT_MS:
            raise Invalid(
                "an input ends within an hour; it is sent again while it holds"
            )
        if not self.members(given.target_kind, given.target):
            raise NotFound(f"no luminaire in {given.target_kind} {given.target!r}")
        self._check_size(sensed_by(self.lamps, self.wanted(), [given]))
        self._registry.add_sensed(given)

    def _check_size(
        self, more: Mapping[str, Sequence[Override] | Sequence[Condition]]
    ) -> None:
        """Raise Invalid where the document of a cabinet would be larger than can be sent."""
        documents = self.documents()
        for cabinet, parts in more.items():
            known = documents.get(cabinet)
            size = len(msgspec.json.encode(parts))
            size += len(msgspec.json.encode(known)) if known else 0
            if size > MOST_BYTES:
                raise Invalid(
                    f"{cabinet}: its document would have {size >> 10} KiB, of"
                    f" {MOST_BYTES >> 10} that can be sent; end an override,"
                    " or choose whole cabinets"
                )

    def save(
        self,
        document: Document,
        who: str = "",
        match: str | None = None,
        *,
        dry_run: bool = False,
    ) -> None:
        """Take a document, unless a street would be dark with it.

        Raises
        ------
        ProgrammeError
            A programme that cannot be evaluated.
        Refused
            It would leave streets below their class, or lamps on by day.
        Conflict, Invalid, NotFound
            It names what is not there, or cannot be.
        Stale
            Somebody else has changed it since.
        """
        with self._registry.judging():
            self._save(document, who, match, dry_run=dry_run)

    def _save(
        self, document: Document, who: str, match: str | None, *, dry_run: bool
    ) -> None:
        body_of(document)
        wanted = self.wanted()
        if isinstance(document, Programme):
            self._try_nights(document)
            wanted = with_document(wanted, "programmes", document)
        elif isinstance(document, Calendar):
            names_programmes(document, wanted)
            dated(document, self.today())
            wanted = with_document(wanted, "calendars", document)
        elif isinstance(document, Stretch):
            _try(document.check)
            wanted = with_document(wanted, "stretches", document)
        elif isinstance(document, Group):
            _try(document.check)
            self._names_luminaires(document)
        elif isinstance(document, Quiet):
            _try(lambda: document.check(self.sun))
        else:
            _try(document.check)
        self._refuse_darkness(wanted, self._touched(wanted, document))
        if dry_run:
            self._registry.agree(type(document), document.id, match)
        else:
            self._registry.save(document, self._clock.now_ms(), who, match)

    def _try_nights(self, programme: Programme) -> None:
        """Raise ProgrammeError for a programme that fails in a night of the coming year."""
        check(programme, self.place)
        first = self.today()
        for number in range(NIGHTS):
            segments(programme, self.place, first + dt.timedelta(days=number))

    def with_plan(self, documents: Iterable[Programme | Calendar]) -> Wanted:
        """What would be wanted with some programmes and calendars.

        Raises
        ------
        ProgrammeError, Conflict, Invalid
            One of them cannot be, or names a programme that is none.
        """
        wanted, calendars = self.wanted(), []
        for document in documents:
            if isinstance(document, Programme):
                self._try_nights(document)
                wanted = with_document(wanted, "programmes", document)
            else:
                dated(document, self.today())
                wanted = with_document(wanted, "calendars", document)
                calendars.append(document)
        for calendar in calendars:
            names_programmes(calendar, wanted)
        return wanted

    def publish(
        self,
        documents: Sequence[tuple[Programme | Calendar, str | None]],
        who: str,
        *,
        dry_run: bool = False,
    ) -> None:
        """Take programmes and calendars together, judged as they will stand together.

        Parameters
        ----------
        documents : sequence of (Programme or Calendar, str or None)
            Each with the tag of what it replaces; "" for nothing, None for anything.

        Raises
        ------
        ProgrammeError, Conflict, Invalid, Refused
            As `save` does; nothing is taken.
        Stale
            Somebody else has changed one of them since; nothing is taken.
        """
        for document, _ in documents:
            body_of(document)
        with self._registry.judging():
            self._publish(documents, who, dry_run=dry_run)

    def _publish(
        self, documents: Sequence[tuple[Programme | Calendar, str | None]], who: str,
        *, dry_run: bool,
    ) -> None:  # fmt: skip
        wanted = self.with_plan(document for document, _ in documents)
        touched = set[str | None]()
        for document, match in documents:
            self._registry.agree(type(document), document.id, match)
            touched |= self._touched(wanted, document)
        self._refuse_darkness(wanted, touched)
        if not dry_run:
            self._registry.save_all(documents, self._clock.now_ms(), who)

    def drop(
        self, document: type[Any], name: str, who: str = "", match: str | None = None
    ) -> None:
        """Take a document away; raises Conflict when others need it."""
        with self._registry.judging():
            by = users(self.wanted(), document, name)
            if by:
                raise Conflict(f"{name!r} is in use: {', '.join(by[:5])}")
            self._registry.drop(document, name, self._clock.now_ms(), who, match)

    def assign(
        self,
        target: str,
        calendar: str | None,
        who: str = "",
        match: str | None = None,
        *,
        dry_run: bool = False,
    ) -> None:
        """Assign a calendar to a luminaire, ``stretch:`` and a stretch, a cabinet or "*".

        Raises
        ------
        NotFound
            There is no such calendar or target.
        Refused
            A street of the target would be below its class.
        Stale
            Somebody else has changed it since.
        """
        with self._registry.judging():
            self._assign(target, calendar, who, match, dry_run=dry_run)

    def _assign(
        self, target: str, calendar: str | None, who: str, match: str | None,
        *, dry_run: bool,
    ) -> None:  # fmt: skip
        wanted = self.wanted()
        known(wanted, self.lamps, target)
        given = dict(wanted.assignments)
        given.pop(target, None)
        if calendar is not None:
            if calendar not in wanted.calendars:
                raise NotFound(f"no calendar {calendar!r}")
            given[target] = calendar
        after = wanted._replace(assignments=given)
        moved = {
            name
            for asset in self._live.luminaires
            if (name := after.calendar_of(asset)) != wanted.calendar_of(asset)
        }
        self._refuse_darkness(after, {*moved, calendar})
        if not dry_run:
            now = self._clock.now_ms()
            self._registry.assign(target, calendar, now, who, match)

    def refusals(self, wanted: Wanted, calendar: Calendar) -> list[Refusal]:
        """Why a calendar may not be in force where it is assigned."""
        least = max(
            (
                wanted.least_of(asset)
                for asset in self._live.luminaires
                if wanted.calendar_of(asset) == calendar.id
            ),
            default=0.0,
        )
        today = self.today()
        calendar = dated(calendar, today)
        return refusals(wanted.programmes, calendar, Sun(self.place), today, least)

    def _touched(self, wanted: Wanted, document: Document) -> set[str | None]:
        """The calendars whose streets a change of a document may darken."""
        if isinstance(document, Calendar):
            return {document.id}
        if isinstance(document, Programme):
            return {c.id for c in wanted.calendars.values() if document.id in named(c)}
        if isinstance(document, Stretch):
            lamps = self.lamps.by("stretch").get(document.id, [])
            return {wanted.calendar_of(lamp) for lamp in lamps}
        return set()

    def _refuse_darkness(self, wanted: Wanted, names: Iterable[str | None]) -> None:
        """Raise Refused when one of some calendars would darken a street."""
        found = [
            {"calendar": name, **refusal.told()}
            for name in names
            if (calendar := wanted.calendars.get(name or "")) is not None
            for refusal in self.refusals(wanted, calendar)
        ]
        if found:
            raise Refused(found)

    def _names_luminaires(self, group: Group) -> None:
        for member in group.members:
            if member not in self._live.index:
                raise NotFound(f"group {group.id}: no luminaire {member!r}")

    def today(self) -> dt.date:
        """Date of the night of now."""
        return Sun(self.place).date_of(self._clock.now())

    def members(self, kind: str, target: str) -> Sequence[Asset]:
        """The luminaires that a target means."""
        groups = {}
        if kind == "group":
            group = self._registry.find(Group, target)
            groups = {target: group} if group else {}
        return self.lamps.reached(kind, target, groups)

    # -- why ---------------------------------------------------------------------------

    def explain(self, device: str, t: int) -> Decision:
        """Level and reasons of a luminaire at any time [ms], past or future.

        The past is worked out from what was wanted and sensed then.
        """
        past = t < self._clock.now_ms()
        wanted = self.wanted_at(t) if past else self.wanted()
        asset = self._live.assets[device]
        name = wanted.calendar_of(asset)
        calendar = wanted.calendars.get(name) if name else None
        seconds = t / 1000
        if calendar is not None:
            calendar = dated(calendar, date_of(self.place, seconds))
        return level_at(
            wanted.programmes,
            calendar,
            [o.override for o in self._overrides_of(asset, wanted, t)],
            self._conditions_of(asset, wanted, t),
            self.sun,
            seconds,
            None,
            wanted.normal_of(asset),
        )

    def _overrides_of(
        self, asset: Asset, wanted: Wanted, t: int
    ) -> list[StoredOverride]:
        """Overrides that meant a luminaire and had not been cancelled at a time [ms]."""
        return [
            stored
            for stored in self._registry.overrides(t)
            if (stored.cancelled is None or stored.cancelled > t)
            and asset in Lamps([asset]).reached(*stored[1:3], wanted.groups)
        ]

    def _conditions_of(self, asset: Asset, wanted: Wanted, t: int) -> list[Condition]:
        """What was sensed for a luminaire at a time [ms]."""
        gauges = ",".join(self._roads.area_of(asset.cabinet, asset.id).gauges)
        return [
            Condition(x.kind, x.start, x.end, x.detail)
            for x in self._registry.sensed(t, t)
            if (x.kind == "wet_road" and x.target == gauges)
            or asset in Lamps([asset]).reached(x.target_kind, x.target, wanted.groups)
        ]

    def standing(self, now: int) -> list[tuple[Override, frozenset[str] | None]]:
        """Overrides that hold or will, and whom they reach; None: everybody."""
        groups = {group.id: group for group in self._registry.all(Group)}
        found = []
        for stored in self._registry.overrides(now):
            if stored.cancelled is None:
                reached = self.lamps.reached(stored.target_kind, stored.target, groups)
                everybody = stored.target_kind == "city"
                ids = None if everybody else frozenset(asset.id for asset in reached)
                found.append((stored.override, ids))
        return found

    def near(self, kind: str, target: str, metres: float) -> list[str]:
        """Luminaires of a target and those so near to one of them [m]."""
        centres = self.members(kind, target)
        if not centres:
            raise NotFound(f"no luminaire in {kind} {target!r}")
        return neighbours(self.lamps.all, centres, metres)

    @staticmethod
    def below_class(level: float, members: Iterable[Asset], wanted: Wanted) -> int:
        """How many luminaires would be below their lighting class at a level [%]."""
        return sum(level < wanted.least_of(asset) for asset in members)


def next_noon(place: Place, ms: int) -> int:
    """The noon after a time [ms]: an override that nobody ends lasts one night."""
    return round(noons(place, date_of(place, ms / 1000))[1] * 1000)


def _try(check: Callable[[], None]) -> None:
    """Check a document; one that cannot even be looked at cannot be.

    Raises
    ------
    Invalid
        It cannot be evaluated.
    """
    try:
        check()
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise Invalid(f"it cannot be evaluated: {error}") from None
