"""The book of energy: every night of every cabinet, and sums over it."""

import datetime as dt
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from duha_backend import tables
from duha_backend.database import Database
from duha_backend.energy.nights import CabinetNight, StretchNight
from duha_backend.lighting.tariff import Tariff

Every = Literal["night", "month", "year"]
Part = Literal["city", "district", "cabinet"]
_LENGTH: dict[Every, int] = {"night": 10, "month": 7, "year": 4}


ENOUGH = 0.9
"""Coverage from which on a sum stands for the whole."""


class Line(NamedTuple):
    """One line of a report; money and CO2 are None where nobody has said what they are.

    Energies [kWh], reactive [kvarh], of what was read. The saving is the baseline of the
    same luminaires and the same quarters of an hour less what they took; it has an
    uncertainty. What was not read took between `unknown_low_kwh` and `unknown_high_kwh`;
    its baseline is `unknown_baseline_kwh`. `covered` is the share of the lamp-hours with
    light due that were read, None where a night of the sum does not tell it; `partial`
    says that it is not known or too small for the sums to stand for the whole.
    `excluded_kwh` is of luminaires without a type or that no controller reads, which are in
    no other sum. The gap is of nights that the meter has covered (k = 2).
    """

    period: str
    part: str
    nights: int
    lamps: int
    kwh: float
    measured_kwh: float
    calculated_kwh: float
    baseline_kwh: float
    saved_kwh: float
    cost: float | None
    saved_cost: float | None
    co2_kg: float | None
    saved_co2_kg: float | None
    meter_kwh: float | None
    gap_kwh: float | None
    uncertainty_kwh: float | None
    reactive_kvarh: float | None
    covered: float | None
    partial: bool
    saved_uncertainty_kwh: float | None
    unknown_low_kwh: float | None
    unknown_high_kwh: float | None
    unknown_baseline_kwh: float | None
    excluded_lamps: int | None
    excluded_kwh: float | None
    meter_covered: float | None

    @property
    def share(self) -> float | None:
        """Saving as a share of the baseline of what was read; None without any."""
        return self.saved_kwh / self.baseline_kwh if self.baseline_kwh else None


_EXCLUDED = sa.func.coalesce(tables.energy.c.excluded_wh, 0.0)
_UNKNOWN = sa.func.coalesce(
    tables.energy.c.unknown_wh + tables.energy.c.excluded_unknown_wh, 0.0
)


class EnergyBook:
    """Energy in the registry's database."""

    def __init__(self, engine: Database) -> None:
        self._engine = engine

    def settle(
        self,
        nights: Iterable[CabinetNight],
        tariff: Tariff,
        stretches: Iterable[StretchNight] = (),
    ) -> None:
        """Write nights down, with the tariff and the baseline that they are judged by."""
        more = {
            "price_per_kwh": tariff.price_per_kwh,
            "co2_kg_per_kwh": tariff.co2_kg_per_kwh,
            "currency": tariff.currency,
            "source": tariff.source,
            "baseline": tariff.baseline,
        }
        rows = [n._asdict() | {"night": n.night.isoformat()} | more for n in nights]
        if not rows:
            return
        parts = [s._asdict() | {"night": s.night.isoformat()} for s in stretches]
        written = {row["night"] for row in rows}
        with self._engine.begin() as db:
            for table, found in ((tables.energy, rows), (tables.energy_stretch, parts)):
                db.execute(sa.delete(table).where(table.c.night.in_(written)))
                if found:
                    db.execute(sa.insert(table), found)

    def settled(self, since: dt.date) -> set[dt.date]:
        """Nights that are written down, from a date on."""
        e = tables.energy.c
        query = sa.select(e.night).where(e.night >= since.isoformat()).distinct()
        with self._engine.connect() as db:
            return {
                dt.date.fromisoformat(night) for night in db.execute(query).scalars()
            }

    def oldest(self) -> dt.date | None:
        """The first night that is written down."""
        query = sa.select(sa.func.min(tables.energy.c.night))
        with self._engine.connect() as db:
            found = db.execute(query).scalar_one()
        return dt.date.fromisoformat(found) if found else None

    def mark(self, start: int) -> None:
        """Note that the night of a quarter of an hour [ms] has new readings."""
        row = {"start": start, "mark": secrets.token_hex(4)}
        with self._engine.begin() as db:
            statement = tables.insert(db, tables.energy_mark).values(row)
            changes = {"mark": statement.excluded.mark}
            db.execute(
                statement.on_conflict_do_update(index_elements=["start"], set_=changes)
            )

    def marked(self) -> list[tuple[int, str]]:
        """Quarters whose night is to be settled [ms], the oldest first, and their marks."""
        query = sa.select(tables.energy_mark).order_by(tables.energy_mark.c.start)
        with self._engine.connect() as db:
            return [(start, mark) for start, mark in db.execute(query)]

    def unmark(self, marks: Sequence[tuple[int, str]]) -> None:
        """Forget quarters whose night is settled, unless they have been marked again since."""
        e = tables.energy_mark.c
        query = sa.delete(tables.energy_mark).where(
            e.start == sa.bindparam("at"), e.mark == sa.bindparam("was")
        )
        if marks:
            with self._engine.begin() as db:
                db.execute(query, [{"at": at, "was": was} for at, was in marks])

    def report(
        self, since: dt.date, until: dt.date, every: Every = "month",
        part: Part = "city", only: str = "",
    ) -> list[Line]:  # fmt: skip
        """Sums over the nights of a span [dates), by period and part of the city.

        Parameters
        ----------
        since, until : date
            Evenings on which nights begin.
        every : {"night", "month", "year"}
            Length of a period.
        part : {"city", "district", "cabinet"}
            What has a line of its own.
        only : str
            One district or cabinet; all without it.
        """
        e = tables.energy.c
        period = sa.func.substr(e.night, 1, _LENGTH[every])
        whose = {"city": sa.literal(""), "district": e.district, "cabinet": e.cabinet}[
            part
        ]
        saved = e.baseline_wh - e.lamps_wh
        whole = e.meter_wh.is_not(None)
        gap = e.meter_wh - e.lamps_wh - e.own_wh - _EXCLUDED - _UNKNOWN / 2
        nights = sa.func.count(e.night.distinct())
        sums = {
            "kwh": e.lamps_wh,
            "measured_kwh": e.measured_wh,
            "calculated_kwh": e.calculated_wh,
            "baseline_kwh": e.baseline_wh,
            "saved_kwh": saved,
            "cost": e.lamps_wh * e.price_per_kwh,
            "saved_cost": saved * e.price_per_kwh,
            "co2_kg": e.lamps_wh * e.co2_kg_per_kwh,
            "saved_co2_kg": saved * e.co2_kg_per_kwh,
            "meter_kwh": e.meter_wh,
            "gap_kwh": gap,
            "uncertainty_kwh": sa.case((whole, e.uncertainty_wh)),
            "reactive_kvarh": e.reactive_varh,
            "saved_uncertainty_kwh": e.saved_uncertainty_wh,
            "unknown_high_kwh": e.unknown_wh,
            "unknown_baseline_kwh": e.unknown_baseline_wh,
            "excluded_kwh": e.excluded_wh,
        }
        query = (
            sa.select(
                period.label("period"),
                whose.label("part"),
                nights.label("nights"),
                (sa.func.sum(e.lamps) * 1.0 / nights).label("lamps"),
                (sa.func.sum(e.excluded_lamps) * 1.0 / nights).label("excluded_lamps"),
                sa.func.sum(e.due_h).label("due_h"),
                sa.func.sum(e.covered_h).label("covered_h"),
                (sa.func.count() - sa.func.count(e.due_h)).label("untold"),
                sa.func.avg(e.meter_covered).label("meter_covered"),
                *(sa.func.sum(x).label(name) for name, x in sums.items()),
            )
            .where(e.night >= since.isoformat(), e.night < until.isoformat())
            .group_by(period, whose)
            .order_by(period, whose)
        )
        if only:
            query = query.where(whose == only)
        with self._engine.connect() as db:
            rows = [dict(row) for row in db.execute(query).mappings()]
        return [_line(row, tuple(sums)) for row in rows]

    def stretches(
        self, since: dt.date, until: dt.date
    ) -> dict[str, tuple[int, float, float]]:
        """Nights, energy [Wh] and coverage of each stretch's own luminaires in a span [dates)."""
        e = tables.energy_stretch.c
        query = (
            sa.select(
                e.stretch, sa.func.count(), sa.func.sum(e.lamps_wh),
                sa.func.sum(e.covered_h), sa.func.sum(e.due_h),
            )
            .where(e.night >= since.isoformat(), e.night < until.isoformat())
            .group_by(e.stretch)
        )  # fmt: skip
        with self._engine.connect() as db:
            return {
                name: (nights, wh, covered / due if due else 0.0)
                for name, nights, wh, covered, due in db.execute(query)
            }

    def gaps(self, night: dt.date) -> list[dict[str, Any]]:
        """Cabinets with a meter in a night: the gap beside its uncertainty, widest first."""
        e = tables.energy
        query = sa.select(e).where(
            e.c.night == night.isoformat(), e.c.meter_wh.is_not(None)
        )
        with self._engine.connect() as db:
            rows = [dict(row) for row in db.execute(query).mappings()]
        found = [_gap(row) for row in rows]
        return sorted(found, key=lambda row: -abs(row["gap_pct"]))

    def terms(self, since: dt.date, until: dt.date) -> list[dict[str, Any]]:
        """Prices, factors and baselines that the nights of a span were reckoned by."""
        e = tables.energy.c
        columns = (e.price_per_kwh, e.co2_kg_per_kwh, e.currency, e.source, e.baseline)
        query = (
            sa.select(*columns)
            .where(e.night >= since.isoformat(), e.night < until.isoformat())
            .distinct()
        )
        with self._engine.connect() as db:
            return [dict(row) for row in db.execute(query).mappings()]


def _line(row: dict[str, Any], sums: tuple[str, ...]) -> Line:
    in_k = {n: None if row[n] is None else round(row[n] / 1000, 3) for n in sums}
    covered = None if row["untold"] else _ratio(row["covered_h"], row["due_h"])
    excluded = row["excluded_lamps"]
    return Line(
        period=row["period"],
        part=row["part"],
        nights=row["nights"],
        lamps=round(row["lamps"]),
        covered=covered,
        partial=covered is None or covered < ENOUGH,
        unknown_low_kwh=None if in_k["unknown_high_kwh"] is None else 0.0,
        excluded_lamps=None if excluded is None else round(excluded),
        meter_covered=_rounded(row["meter_covered"]),
        **in_k,  # type: ignore[arg-type]
    )


def _ratio(covered: float, due: float) -> float:
    """Coverage, never rounded up to whole; nothing where no luminaire is judged."""
    return int(10_000 * covered / due + 1e-6) / 10_000 if due else 0.0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _gap(row: dict[str, Any]) -> dict[str, Any]:
    excluded = row["excluded_wh"] or 0.0
    unknown = (row["unknown_wh"] or 0.0) + (row["excluded_unknown_wh"] or 0.0)
    gap = row["meter_wh"] - row["lamps_wh"] - row["own_wh"] - excluded - unknown / 2
    share = 100 / row["meter_wh"] if row["meter_wh"] else 0.0
    due = row["due_h"]
    return {
        "cabinet": row["cabinet"],
        "district": row["district"],
        "meter_kwh": round(row["meter_wh"] / 1000, 3),
        "lamps_kwh": round(row["lamps_wh"] / 1000, 3),
        "own_kwh": round(row["own_wh"] / 1000, 3),
        "excluded_kwh": round(excluded / 1000, 3),
        "unknown_high_kwh": round(unknown / 1000, 3),
        "gap_kwh": round(gap / 1000, 3),
        "gap_pct": round(gap * share, 2),
        "uncertainty_pct": round(row["uncertainty_wh"] * share, 2),
        "stands_out": bool(abs(gap) > row["uncertainty_wh"]),
        "unknown_lamps": row["unknown_lamps"],
        "covered": None if due is None else _ratio(row["covered_h"], due),
    }
