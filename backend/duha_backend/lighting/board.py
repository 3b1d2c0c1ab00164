"""How far each override has got: kept as controllers report, not worked out for who asks."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from duha_backend.lighting.desk import Desk
from duha_backend.lighting.wanted import StoredOverride, Wanted
from duha_backend.live import Live
from duha_backend.registry import Registry
from duha_contract.messages import Desired, Report

OverrideState = Literal["pending", "applied", "diverged", "expired", "cancelled"]
SHOWN_MS = 24 * 3_600_000
"""An override is shown for so long after its end [ms]."""


@dataclass
class Standing:
    """One override: whom it reaches, and how far it has got.

    Attributes
    ----------
    reached : dict of str to frozenset of str or None
        Luminaires by cabinet; None: all of them.
    without_control : int
        Luminaires without a cabinet, which nothing tells of it.
    below_class : int
        Luminaires that are below their lighting class with it.
    pending : set of str
        Cabinets that have not reported it.
    diverged : dict of str to dict of str to int
        Luminaires that do not do what was asked, and since when [ms], by cabinet.
    """

    stored: StoredOverride
    reached: dict[str, frozenset[str] | None]
    luminaires: int
    without_control: int
    below_class: int
    pending: set[str] = field(default_factory=set)
    diverged: dict[str, dict[str, int]] = field(default_factory=dict)
    state: OverrideState = "pending"

    def judge(self, now: int) -> OverrideState:
        """Its state at a time [ms]."""
        if self.stored.cancelled is not None:
            return "cancelled"
        if self.stored.override.end <= now:
            return "expired"
        if self.pending:
            return "pending"
        return "diverged" if self.diverged else "applied"


class OverrideBoard:
    """The overrides of the last day.

    Parameters
    ----------
    registry, live, desk : Registry, Live, Desk
        What was asked for, what is, and whom it means.
    desired : callable
        Gives the document of each controller.
    now_ms : callable
        When it is [ms].

    Attributes
    ----------
    number : int
        Grows whenever an override has got further.
    """

    def __init__(
        self, registry: Registry, live: Live, desk: Desk,
        desired: Callable[[], Mapping[str, Desired]], now_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        self._registry = registry
        self._live = live
        self._desk = desk
        self._desired = desired
        self._now_ms = now_ms
        self._known: dict[str, Standing] = {}
        self._loaded = (-1, -1)
        self._seen: dict[str, tuple[Report | None, Desired | None]] = {}
        self._refreshing = asyncio.Lock()
        self.number = 0

    def find(self, name: str) -> Standing | None:
        """The override of an id."""
        return self._known.get(name)

    async def refresh(self) -> None:
        """Look at what is new in the registry, and at what controllers have reported."""
        async with self._refreshing:
            wanted = await asyncio.to_thread(self._registry.change, "wanted")
            loaded = (wanted, self._live.version)
            if loaded != self._loaded:
                self._known = await asyncio.to_thread(self._load)
                self._loaded, self._seen = loaded, {}
                self.number += 1
            self.look()

    def look(self) -> None:
        """Take what has been sent and reported since the last look."""
        now = self._now_ms()
        before = {name: standing.state for name, standing in self._known.items()}
        moved = self._moved()
        changed = False
        for standing in self._known.values():
            for cabinet in moved.keys() & standing.reached.keys():
                changed |= self._move(standing, cabinet, moved[cabinet])
            standing.state = standing.judge(now)
        over = now - SHOWN_MS
        self._known = {
            n: s for n, s in self._known.items() if s.stored.override.end > over
        }
        after = {name: standing.state for name, standing in self._known.items()}
        if changed or before != after:
            self.number += 1

    def newest_first(self) -> list[Standing]:
        """All overrides of the last day."""
        known = self._known
        return [known[name] for name in sorted(known, reverse=True)]

    # -- help ------------------------------------------------------------------------

    def _load(self) -> dict[str, Standing]:
        wanted = self._desk.wanted()
        lamps = self._desk.lamps
        least = np.array([wanted.least_of(asset) for asset in lamps.all])
        row = {asset.id: i for i, asset in enumerate(lamps.all)}
        found = {}
        for stored in self._registry.overrides(self._now_ms() - SHOWN_MS):
            rows = self._rows(stored, wanted, row)
            found[stored.override.id] = self._standing(stored, rows, least)
        return found

    def _rows(
        self, stored: StoredOverride, wanted: Wanted, row: Mapping[str, int]
    ) -> list[int]:
        kind, target = stored.target_kind, stored.target
        return [
            row[a.id] for a in self._desk.lamps.reached(kind, target, wanted.groups)
        ]

    def _standing(
        self, stored: StoredOverride, rows: list[int], least: Any
    ) -> Standing:
        lamps = self._desk.lamps
        touched: dict[str, list[str]] = {}
        for i in rows:
            touched.setdefault(lamps.all[i].cabinet, []).append(lamps.all[i].id)
        controlled = lamps.controlled
        reached = {
            cabinet: None if len(mine) == len(controlled[cabinet]) else frozenset(mine)
            for cabinet, mine in touched.items()
            if cabinet in controlled
        }
        lost = sum(
            len(mine) for name, mine in touched.items() if name not in controlled
        )
        below = int((least[rows] > stored.override.level).sum()) if rows else 0
        made = Standing(stored, reached, len(rows), lost, below, set(reached))
        made.state = made.judge(self._now_ms())
        return made

    def _moved(self) -> dict[str, frozenset[str]]:
        """Cabinets with another document or report, and the overrides they carry out."""
        desired, found = self._desired(), {}
        for cabinet in self._cabinets():
            known = self._live.controllers.get(cabinet)
            report = known.report if known else None
            document = desired.get(cabinet)
            seen = self._seen.get(cabinet)
            if seen and seen[0] is report and seen[1] is document:
                continue
            self._seen[cabinet] = (report, document)
            same = report and document and report.hash == document.hash
            done = (o.id for o in document.overrides) if same and document else ()
            found[cabinet] = frozenset(done)
        return found

    def _cabinets(self) -> Iterable[str]:
        return {name for standing in self._known.values() for name in standing.reached}

    def _move(self, standing: Standing, cabinet: str, done: frozenset[str]) -> bool:
        """Take what a cabinet carries out; whether that has changed anything."""
        before = cabinet in standing.pending, standing.diverged.get(cabinet)
        if standing.stored.override.id in done:
            standing.pending.discard(cabinet)
        else:
            standing.pending.add(cabinet)
        known = self._live.controllers.get(cabinet)
        meant = standing.reached[cabinet]
        named = {
            name: since
            for name, since in (known.diverged.items() if known else ())
            if meant is None or name in meant
        }
        standing.diverged.pop(cabinet, None)
        if named:
            standing.diverged[cabinet] = named
        return before != (cabinet in standing.pending, standing.diverged.get(cabinet))
