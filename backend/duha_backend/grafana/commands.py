"""``duha backend grafana build | push``."""

import argparse
import os
from pathlib import Path
from typing import Any

from duha_backend.errors import Invalid

_PAGE = "http://127.0.0.1:8470/"


def add_commands(commands: Any) -> None:
    """Add them."""
    grafana = commands.add_parser("grafana", help="dashboards and alert rules as code")
    does = grafana.add_subparsers(dest="does", required=True)
    build = does.add_parser("build", help="write dashboards and provisioning")
    build.add_argument("--out", type=Path, default=Path("deploy/grafana"))
    push = does.add_parser("push", help="bring them to a Grafana that runs")
    push.add_argument("--url", default="http://127.0.0.1:3000", help="of Grafana")
    push.add_argument(
        "--token-file", type=Path, default=None,
        help="token of a service account (or DUHA_GRAFANA_TOKEN)",
    )  # fmt: skip
    push.add_argument("--influx", required=True, help="address that Grafana asks")
    push.add_argument(
        "--influx-token-file", type=Path, default=None, help="or DUHA_INFLUX_TOKEN"
    )
    for parser in (build, push):
        parser.add_argument("--page", default=_PAGE, help="address of Duha's page")


def grafana(options: argparse.Namespace) -> int:
    """Write dashboards, or bring them to Grafana."""
    try:
        from duha_backend.grafana import build, push
    except ImportError:
        raise Invalid("for Grafana install duha[grafana]") from None
    page = options.page.rstrip("/") + "/"
    if options.does == "build":
        for path in build.write(options.out, page):
            print(path)
        return 0
    done = push.push(
        options.url, _secret(options.token_file, "DUHA_GRAFANA_TOKEN"), page,
        options.influx, _secret(options.influx_token_file, "DUHA_INFLUX_TOKEN"),
    )  # fmt: skip
    for line in done:
        print(line)
    return 0


def _secret(file: Path | None, variable: str) -> str:
    return file.read_text("utf-8").strip() if file else os.environ.get(variable, "")


COMMANDS = {"grafana": grafana}
