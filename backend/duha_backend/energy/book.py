"""The book of energy: every night of every cabinet, and sums over it."""

import datetime as dt
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from duha_backend import tables
from duha_backend.database import Database
from duha_backend.energy.nights import CabinetNight
from duha_backend.lighting.tariff import Tariff

Every = Literal["night", "month", "year"]
Part = Literal["city", "district", "cabinet"]
_LENGTH: dict[Every, int] = {"night": 10, "month": 7, "year": 4}


class Line(NamedTuple):
    """One line of a report; money and CO2 are None where nobody has said what they are.

    Energies [kWh], reactive [kvarh], gap of cabinets that have a meter [kWh] with its
    uncertainty (k = 2), saving against the baseline [kWh].
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
    covered: float


class EnergyBook:
    """Energy in the registry's database."""

    def __init__(self, engine: Database) -> None:
        self._engine = engine

    def settle(self, nights: Iterable[CabinetNight], tariff: Tariff) -> None:
        """Write nights down, with the tariff and the baseline that they are reckoned by."""
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
        e = tables.energy
        with self._engine.begin() as db:
            db.execute(
                sa.delete(e).where(e.c.night.in_({row["night"] for row in rows}))
            )
            db.execute(sa.insert(e), rows)

    def settled(self, since: dt.date) -> set[dt.date]:
        """Nights that are written down, from a date on."""
        e = tables.energy.c
        query = sa.select(e.night).where(e.night >= since.isoformat()).distinct()
        with self._engine.connect() as db:
            return {
                dt.date.fromisoformat(night) for night in db.execute(query).scalars()
            }

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
        metered = e.meter_wh.is_not(None)
        saved = e.baseline_wh - e.lamps_wh
        gap = e.meter_wh - e.lamps_wh - e.own_wh
        query = (
            sa.select(
                period,
                whose,
                sa.func.count(e.night.distinct()),
                sa.func.count(e.cabinet.distinct()),
                sa.func.sum(e.lamps),
                sa.func.sum(e.lamps_wh),
                sa.func.sum(e.measured_wh),
                sa.func.sum(e.calculated_wh),
                sa.func.sum(e.baseline_wh),
                sa.func.sum(saved),
                sa.func.sum(e.lamps_wh * e.price_per_kwh),
                sa.func.sum(saved * e.price_per_kwh),
                sa.func.sum(e.lamps_wh * e.co2_kg_per_kwh),
                sa.func.sum(saved * e.co2_kg_per_kwh),
                sa.func.sum(e.meter_wh),
                sa.func.sum(gap),
                sa.func.sum(sa.case((metered, e.uncertainty_wh))),
                sa.func.sum(e.reactive_varh),
                sa.func.avg(e.covered),
            )
            .where(e.night >= since.isoformat(), e.night < until.isoformat())
            .group_by(period, whose)
            .order_by(period, whose)
        )
        if only:
            query = query.where(whose == only)
        with self._engine.connect() as db:
            return [_line(tuple(row)) for row in db.execute(query)]

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


def _line(row: tuple[Any, ...]) -> Line:
    period, part, nights, _, lamps, *sums, covered = row
    in_k = [None if value is None else round(value / 1000, 3) for value in sums]
    lead = (period, part, nights, round(lamps / nights))
    return Line._make((*lead, *in_k, round(covered, 4)))


def _gap(row: dict[str, Any]) -> dict[str, Any]:
    gap = row["meter_wh"] - row["lamps_wh"] - row["own_wh"]
    share = 100 / row["meter_wh"] if row["meter_wh"] else 0.0
    return {
        "cabinet": row["cabinet"],
        "district": row["district"],
        "meter_kwh": round(row["meter_wh"] / 1000, 3),
        "lamps_kwh": round(row["lamps_wh"] / 1000, 3),
        "own_kwh": round(row["own_wh"] / 1000, 3),
        "gap_kwh": round(gap / 1000, 3),
        "gap_pct": round(gap * share, 2),
        "uncertainty_pct": round(row["uncertainty_wh"] * share, 2),
        "stands_out": bool(abs(gap) > row["uncertainty_wh"]),
        "unknown_lamps": row["unknown_lamps"],
        "covered": round(row["covered"], 4),
    }
