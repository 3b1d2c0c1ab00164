"""Writes dashboards and provisioning: ``duha backend grafana build``.

Dashboards are classic JSON (schema 42), which Grafana 10 to 13 read from files.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import common as made_common
from grafana_foundation_sdk.builders import dashboard as made
from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import DataSourceRef

from duha_backend.grafana.boards import BOARDS, RULES, Board, Panel, Query, Rule, Source

FOLDER = "Duha"
TYPE = "influxdb"
HEIGHT = {"stat": 4, "timeseries": 8, "table": 8, "state": 8}
SCHEMA = 42
_BUILDERS: dict[str, Any] = {
    "timeseries": timeseries.Panel, "stat": stat.Panel, "table": table.Panel,
    "state": statetimeline.Panel,
}  # fmt: skip


def source_uid(source: Source) -> str:
    """Id of the data source of a step."""
    return f"duha-{source}"


class InfluxQuery(Dataquery):
    """A query of Grafana's InfluxDB data source, which the SDK has not."""

    def __init__(self, query: Query, number: int, source: Source, shape: str) -> None:
        self.ref_id = chr(ord("A") + number)
        self._query = query
        self._source = source
        self._shape = "table" if shape == "table" else "time_series"

    def to_json(self) -> dict[str, object]:
        """As Grafana keeps it."""
        return {
            "refId": self.ref_id,
            "datasource": {"type": TYPE, "uid": source_uid(self._source)},
            "query": self._query.text,
            "rawQuery": True,
            "resultFormat": self._shape,
            "alias": self._query.alias,
        }


class _Built(cog.Builder[Dataquery]):
    """What the SDK wants in place of a query."""

    def __init__(self, query: InfluxQuery) -> None:
        self._query = query

    def build(self) -> Dataquery:
        return self._query


def dashboard(board: Board, page: str) -> dict[str, Any]:
    """One dashboard as Grafana's JSON.

    Parameters
    ----------
    board : Board
        What it shows.
    page : str
        Address of Duha's own page, for links.
    """
    build = (
        made.Dashboard(board.title)
        .uid(board.uid)
        .tags(["duha"])
        .time(board.since, "now")
        .refresh("1m")
        .timezone("browser")
        .link(made.DashboardLink("Duha").type(models.DashboardLinkType.LINK).url(page + board.view).target_blank(True))
        .link(made.DashboardLink("Dashboards").type(models.DashboardLinkType.DASHBOARDS).tags(["duha"]).as_dropdown(True))
    )  # fmt: skip
    for variable in board.variables:
        build = build.with_variable(
            made.QueryVariable(variable.name)
            .label(variable.label)
            .query(variable.query)
            .definition(variable.query)
            .datasource(DataSourceRef(TYPE, source_uid(variable.source)))
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
        )
    x = y = row = 0
    for number, panel in enumerate(board.panels, 1):
        if x + panel.width > 24:
            x, y, row = 0, y + row, 0
        build = build.with_panel(_panel(panel, number, x, y))
        x, row = x + panel.width, max(row, HEIGHT[panel.shape])
    found: dict[str, Any] = json.loads(json.dumps(build.build(), cls=JSONEncoder))
    return found | {"schemaVersion": SCHEMA, "editable": False}


def _panel(panel: Panel, number: int, x: int, y: int) -> Any:
    build = (
        _BUILDERS[panel.shape]()
        .id(number)
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(DataSourceRef(TYPE, source_uid(panel.source)))
        .grid_pos(models.GridPos(h=HEIGHT[panel.shape], w=panel.width, x=x, y=y))
    )
    if panel.limit is not None:
        steps = [
            models.Threshold(value=None, color="green"),
            models.Threshold(value=panel.limit, color="red"),
        ]
        build = build.thresholds(
            made.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
        )
    if panel.shape == "timeseries":
        build = build.legend(made_common.VizLegendOptions().show_legend(True))
    for k, query in enumerate(panel.queries):
        build = build.with_target(
            _Built(InfluxQuery(query, k, panel.source, panel.shape))
        )
    return build


# -- provisioning -------------------------------------------------------------------------


def data_sources() -> dict[str, Any]:
    """The three databases of Duha, over InfluxQL; address and token from the environment."""
    steps: tuple[Source, ...] = ("raw", "15m", "1d")
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "name": f"Duha {step}",
                "uid": source_uid(step),
                "type": TYPE,
                "access": "proxy",
                "url": "$DUHA_INFLUX_URL",
                "jsonData": {
                    "dbName": "duha" if step == "raw" else f"duha_{step}",
                    "httpMode": "GET",
                    "httpHeaderName1": "Authorization",
                },
                "secureJsonData": {"httpHeaderValue1": "Token $DUHA_INFLUX_TOKEN"},
                "editable": False,
            }
            for step in steps
        ],
    }


def providers() -> dict[str, Any]:
    """Where Grafana finds the dashboards."""
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "duha",
                "folder": FOLDER,
                "folderUid": "duha",
                "type": "file",
                "disableDeletion": True,
                "allowUiUpdates": False,
                "options": {"path": "/etc/grafana/duha-dashboards"},
            }
        ],
    }


def alert_rules() -> dict[str, Any]:
    """Alert rules, in the form of files."""
    return {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": "duha",
                "folder": FOLDER,
                "interval": "1m",
                "rules": [_rule(rule) for rule in RULES],
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    span = {"from": 600, "to": 0}
    query = InfluxQuery(Query(rule.query), 0, rule.source, "timeseries").to_json()
    condition = {
        "refId": "B",
        "type": "threshold",
        "datasource": {"type": "__expr__", "uid": "__expr__"},
        "expression": "R",
        "conditions": [
            {"evaluator": {"type": "gt" if rule.over else "lt", "params": [rule.limit]}}
        ],
    }
    reduced = {
        "refId": "R",
        "type": "reduce",
        "datasource": {"type": "__expr__", "uid": "__expr__"},
        "expression": "A",
        "reducer": "last",
    }
    return {
        "uid": rule.uid,
        "title": rule.title,
        "condition": "B",
        "for": f"{rule.minutes}m",
        "noDataState": "OK" if rule.over else "Alerting",
        "execErrState": "Error",
        "annotations": {"summary": rule.summary},
        "labels": {"source": "duha"},
        "data": [
            {"refId": "A", "datasourceUid": source_uid(rule.source),
             "relativeTimeRange": span, "model": query},
            {"refId": "R", "datasourceUid": "__expr__", "relativeTimeRange": span, "model": reduced},
            {"refId": "B", "datasourceUid": "__expr__", "relativeTimeRange": span, "model": condition},
        ],
    }  # fmt: skip


def contact_points() -> dict[str, Any]:
    """Whom Grafana tells, and the policy that leads there; the address from the environment."""
    return {
        "apiVersion": 1,
        "contactPoints": [
            {
                "orgId": 1,
                "name": "duha",
                "receivers": [
                    {"uid": "duha-mail", "type": "email",
                     "settings": {"addresses": "$DUHA_ALERT_MAIL"}}
                ],
            }
        ],
        "policies": [
            {"orgId": 1, "receiver": "duha", "group_by": ["alertname"]}
        ],
    }  # fmt: skip


def files(page: str) -> dict[str, str]:
    """Every file of ``deploy/grafana``, by its path."""
    found = {
        f"dashboards/{board.uid}.json": json.dumps(
            dashboard(board, page), indent=2, ensure_ascii=False, sort_keys=True
        )
        + "\n"
        for board in BOARDS
    }
    parts = {
        "datasources": data_sources(), "dashboards": providers(),
        "alerting": alert_rules() | contact_points(),
    }  # fmt: skip
    for name, part in parts.items():
        text = yaml.safe_dump(part, allow_unicode=True, sort_keys=False)
        head = "# Written by `duha backend grafana build`.\n"
        found[f"provisioning/{name}/duha.yaml"] = head + text
    return found


def write(folder: Path, page: str) -> list[Path]:
    """Write every file; those that are there are replaced."""
    done = []
    for name, text in files(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        done.append(path)
    return done
