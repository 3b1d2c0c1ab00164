"""Brings dashboards and data sources to a Grafana that runs: ``duha backend grafana push``."""

from typing import Any

from grafana_client.api import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException

from duha_backend.errors import BackendError, Invalid
from duha_backend.grafana.boards import BOARDS
from duha_backend.grafana.build import FOLDER, dashboard, data_sources


def push(
    url: str, token: str, page: str, influx_url: str, influx_token: str
) -> list[str]:
    """Make or renew folder, data sources and dashboards; says what it did.

    Raises
    ------
    BackendError
        Grafana cannot be reached, or refuses.
    """
    if not token:
        raise Invalid("a token of a Grafana service account: DUHA_GRAFANA_TOKEN")
    grafana: Any = GrafanaApi.from_url(url=url, credential=token)
    try:
        return _push(grafana, page, influx_url, influx_token)
    except (GrafanaException, GrafanaClientError) as error:
        raise BackendError(f"Grafana at {url}: {error}") from None
    except OSError as error:
        raise BackendError(f"no Grafana at {url}: {error}") from None


def _push(grafana: Any, page: str, influx_url: str, influx_token: str) -> list[str]:
    done = []
    known = {folder["uid"] for folder in grafana.folder.get_all_folders()}
    if "duha" not in known:
        grafana.folder.create_folder(FOLDER, "duha")
        done.append(f"folder {FOLDER}")
    there = {source["uid"]: source for source in grafana.datasource.list_datasources()}
    for source in data_sources()["datasources"]:
        wanted = source | {
            "url": influx_url,
            "secureJsonData": {"httpHeaderValue1": f"Token {influx_token}"},
        }
        if source["uid"] in there:
            grafana.datasource.update_datasource_by_uid(source["uid"], wanted)
        else:
            grafana.datasource.create_datasource(wanted)
        done.append(f"data source {source['name']}")
    for board in BOARDS:
        body = {
            "dashboard": dashboard(board, page),
            "folderUid": "duha",
            "overwrite": True,
        }
        grafana.dashboard.update_dashboard(body)
        done.append(f"dashboard {board.title}")
    return done
