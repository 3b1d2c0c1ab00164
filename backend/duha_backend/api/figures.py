"""What the backend counts, for monitoring: health in one answer, and OpenMetrics."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
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

from duha_backend.api.services import BACKUP_NAME, PREFIX, SIGNED_IN, S, Services, iso

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
        "books": await asyncio.to_thread(services.books.count),
        "last_backup": await asyncio.to_thread(_last_backup, services.data / "backups"),
        "figures": services.live.figures(now),
    }  # fmt: skip


def _last_backup(folder: Path) -> str | None:
    """When the newest backup in a folder was begun; their names are times."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(ValueError):  # something else lies there, too
            begun = dt.datetime.strptime(f"{path.name}+0000", f"{BACKUP_NAME}%z")
            found.append(begun)
    newest = max(found, default=None)
    if newest is None:
        return None
    return iso(round(newest.timestamp() * 1000))


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
            ("commits", "Commits to the store", counts.commits),
            ("failed_commits", "Commits that failed", counts.failed_commits),
        ):
            yield CounterMetricFamily(f"duha_ingest_{name}", what, value=value)
        lag = HistogramMetricFamily(
            "duha_ingest_lag_seconds", "From the last reading of a batch to its commit"
        )
        lag.add_metric([], buckets=_cumulative(counts.lag), sum_value=None)
        yield lag
        yield from self._state()

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
            ("controllers", "Controllers known"),
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
