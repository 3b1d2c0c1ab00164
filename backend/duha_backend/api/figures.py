"""What the backend counts, for monitoring: health in one answer, and OpenMetrics."""

import asyncio
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import (
    CONTENT_TYPE_LATEST,
    generate_latest,
)

from duha_backend import backups
from duha_backend.api.services import PREFIX, SIGNED_IN, S, Services, iso
from duha_runtime.lag import UPPER_S

router = APIRouter(dependencies=SIGNED_IN)


@router.get(PREFIX + "/system")
async def system(services: S) -> dict[str, Any]:
    """How the backend is: broker, sinks, controllers, what was counted since the start."""
    now = services.now_ms()
    counts = services.ingest.counts
    known = list(services.live.controllers.values())
    statuses = [c.status for c in known if c.status is not None]
    ages = [now - c.last_batch_ms for c in known if c.last_batch_ms is not None]
    return {
        "version": services.version,
        "roles": sorted(services.roles),
        "leads": services.control.leading,
        "broker_connected": services.broker_connected(),
        "alarms": services.ingest.alarms,
        "failing": {failure.part: failure.error for failure in services.parts.failing},
        "set_aside": [one._asdict() for one in services.registry.set_aside],
        "controllers": {
            "known": len(known),
            "online": sum(status.online for status in statuses),
            "stale": sum(c.stale for c in known),
            "backlog": sum(status.backlog for status in statuses),
            "lost": sum(status.lost for status in statuses),
            "unset_clocks": sum(status.clock == "unset" for status in statuses),
            "oldest_data_s": max(ages, default=0) / 1000,
            "clock_ahead_s": max((-age for age in ages), default=0) / 1000,
        },
        "ingest": {
            "messages": counts.messages, "bytes": counts.bytes, "rows": counts.rows,
            "rejected": counts.rejected, "dropped": counts.dropped,
            "commits": counts.commits, "failed_commits": counts.failed_commits,
            "waiting_bytes": services.ingest.waiting_bytes,
        },
        "books": await services.counted.now(),
        "last_backup": await _last_backup(services),
        "figures": services.live.figures(now),
    }  # fmt: skip


async def _last_backup(services: Services) -> str | None:
    """When the newest whole backup was begun."""
    newest = await asyncio.to_thread(backups.last, services.data / "backups")
    return None if newest is None else iso(round(newest.timestamp() * 1000))


@router.get("/metrics", response_class=Response)
async def metrics(services: S) -> Response:
    """The same as OpenMetrics text, for Prometheus and its kin (with a bearer token)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(services))
    text = generate_latest(registry)  # type: ignore[no-untyped-call]
    return Response(text, media_type=CONTENT_TYPE_LATEST)


class _Collector:
    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> list[Metric]:
        """Nothing beforehand."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything that is counted, as it is now."""
        counts = self._services.ingest.counts
        for name, what, value in (
            ("messages", "Batches taken in", counts.messages),
            ("bytes", "Bytes of messages", counts.bytes),
            ("rows", "Readings stored", counts.rows),
            ("rejected", "Readings or messages put into quarantine", counts.rejected),
            ("dropped", "Messages dropped because too much waited", counts.dropped),
            (
                "strangers",
                "Messages of too many unregistered controllers",
                counts.strangers,
            ),
            ("commits", "Commits to the store", counts.commits),
            ("failed_commits", "Commits that failed", counts.failed_commits),
        ):
            yield CounterMetricFamily(f"duha_ingest_{name}", what, value=value)
        lag = HistogramMetricFamily(
            "duha_ingest_lag_seconds", "From the last reading of a batch to its commit"
        )
        lag.add_metric([], buckets=_cumulative(counts.lag), sum_value=None)
        yield lag
        loop = HistogramMetricFamily(
            "duha_loop_lag_seconds", "Delay of timers of the event loop"
        )
        counted = dict(zip(UPPER_S, self._services.lag.counts, strict=True))
        loop.add_metric(
            [], buckets=_cumulative(counted), sum_value=self._services.lag.total_s
        )
        yield loop
        yield from self._keeping()
        yield from self._parts()
        yield from self._state()

    def _keeping(self) -> Iterator[Metric]:
        """Figures of the store and of its roll-ups."""
        services = self._services
        for name, what, value in (
            ("duha_store_reused_numbers", "Batches with a number that stood for others", services.readings.reused.total()),
            ("duha_rollup_failures", "Attempts at a roll-up that failed", services.keeper.failures),
        ):  # fmt: skip
            yield CounterMetricFamily(name, what, value=value)
        aside, waiting = len(services.keeper.aside), services.keeper.waiting
        yield GaugeMetricFamily("duha_rollups_aside", "Roll-ups that are set aside", aside)  # fmt: skip
        yield GaugeMetricFamily("duha_rollups_waiting", "Roll-ups that are due", waiting)  # fmt: skip

    def _parts(self) -> Iterator[Metric]:
        """Which parts of this process fail, and how often they have."""
        parts = self._services.parts
        failures = CounterMetricFamily(
            "duha_part_failures", "Failures of a part of the process", labels=["part"]
        )
        failing = GaugeMetricFamily(
            "duha_part_failing",
            "Whether a part of the process fails now",
            labels=["part"],
        )
        now = {failure.part for failure in parts.failing}
        for part, count in parts.failures.items():
            failures.add_metric([part], count)
            failing.add_metric([part], float(part in now))
        yield failures
        yield failing

    def _state(self) -> Iterator[Metric]:
        services = self._services
        waiting = services.ingest.waiting_bytes
        yield GaugeMetricFamily("duha_ingest_waiting_bytes", "Bytes that wait", waiting)
        alarm = GaugeMetricFamily("duha_sink_down", "Whether a sink is down", labels=["sink"])  # fmt: skip
        for sink in ("store", "books"):
            alarm.add_metric([sink], float(sink in services.ingest.alarms))
        yield alarm
        connected = float(services.broker_connected())
        yield GaugeMetricFamily("duha_broker_connected", "Whether there is a broker", connected)  # fmt: skip
        leads = float(services.control.leading)
        yield GaugeMetricFamily(
            "duha_control_leads", "Whether this one controls", leads
        )
        yield CounterMetricFamily(
            "duha_failed_sign_ins",
            "Sign-ins that failed",
            value=services.failed_sign_ins,
        )
        aside = float(len(services.energy.aside))
        yield GaugeMetricFamily("duha_energy_nights_aside", "Nights whose energy cannot be settled", aside)  # fmt: skip
        if "api" not in services.roles:
            return
        figures = services.live.figures(services.now_ms())
        for name, what in (
            ("luminaires", "Luminaires registered"),
            ("lit", "Luminaires that give light"),
            ("faults", "Luminaires with a fault or without data"),
            ("power_kw", "Power that the meters show [kW]"),
            ("rain_1h_mm", "Most rain of a gauge in an hour [mm]"),
            ("controllers", "Controllers registered"),
            ("unregistered", "Controllers that nobody has registered, 1000 at most"),
        ):
            yield GaugeMetricFamily(f"duha_city_{name}", what, figures[name])
        stale = len(figures["stale"])
        yield GaugeMetricFamily("duha_city_stale_controllers", "Controllers without data", stale)  # fmt: skip


def _cumulative(buckets: dict[float, int]) -> list[tuple[str, float]]:
    total, found = 0, []
    for upper, n in buckets.items():
        total += n
        found.append(("+Inf" if upper == float("inf") else str(upper), float(total)))
    return found
