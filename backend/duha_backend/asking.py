"""Asking a running backend from the command line: preview, explain, override, alarms."""

import argparse
import http.client
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from duha_backend.errors import BackendError, Forbidden, Invalid

_BARS = " ▁▂▃▄▅▆▇█"
_KINDS = ("luminaire", "street", "stretch", "group", "cabinet", "district", "city")
TIMEOUT_S = 60.0


def add_commands(commands: Any) -> None:
    """Add the commands that ask a running backend."""
    explain = commands.add_parser("explain", help="why a luminaire is as it is")
    explain.add_argument("luminaire")
    explain.add_argument(
        "--at", default="", help="past or future, as 2026-11-24T22:00Z"
    )
    preview = commands.add_parser(
        "preview", help="the nights to come, and their energy"
    )
    _target(preview)
    preview.add_argument(
        "--calendar", default=None, help="as if this one were assigned"
    )
    preview.add_argument("--nights", type=int, default=7)
    override = commands.add_parser("override", help="a level by hand, until a time")
    _target(override)
    override.add_argument("level", type=float, help="0 to 100 %%")
    override.add_argument("--minutes", type=float, default=None, help="until next noon")
    override.add_argument("--reason", default="")
    cancel = commands.add_parser("cancel", help="end an override")
    cancel.add_argument("override", help="its id")
    alarms = commands.add_parser("alarms", help="alarms that want somebody")
    for parser in (explain, preview, override, cancel, alarms):
        connected(parser)


def connected(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that asks a running backend."""
    parser.add_argument(
        "--url", default=os.environ.get("DUHA_URL", "http://127.0.0.1:8470"),
        help="of the backend (DUHA_URL)",
    )  # fmt: skip
    parser.add_argument("--token-file", type=Path, default=None, help="or DUHA_TOKEN")


def _target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=_KINDS)
    parser.add_argument("id", nargs="?", default="", help="not for the city")


def _explain(options: argparse.Namespace) -> int:
    query = f"?{urllib.parse.urlencode({'at': options.at})}" if options.at else ""
    name = urllib.parse.quote(options.luminaire)
    found = ask(options, "GET", f"/luminaires/{name}/explain{query}")
    print(f"{found['id']} at {found['at']}: {found['level']:g} %")
    for cause in found["reason"]:
        print(f"  {sentence(cause)}")
    return 0


def sentence(cause: dict[str, Any]) -> str:
    """One link of the chain of reasons, in words."""
    parts = [cause["code"].replace("_", " ")]
    if cause.get("name"):
        parts.append(f"'{cause['name']}'")
    if cause.get("rule"):
        parts.append(f"rule {cause['rule']}")
    if cause.get("step"):
        parts.append(f"step {cause['step']}")
    if cause.get("level") is not None:
        parts.append(f"{cause['level']:g} %")
    return ", ".join(parts)


def _preview(options: argparse.Namespace) -> int:
    body = {
        "target": {"kind": options.kind, "id": options.id},
        "calendar": options.calendar,
        "nights": options.nights,
    }
    found = ask(options, "POST", "/preview", body)
    per_night = len(found["courses"][0]["level"]) // len(found["nights"])
    for course in found["courses"]:
        print(
            f"{course['luminaires']} luminaires, calendar {course['calendar'] or 'none'}"
        )
        for number, night in enumerate(found["nights"]):
            levels = course["level"][number * per_night : (number + 1) * per_night]
            print(f"  {night['date']} 12h {bars(levels)} 12h")
    print("night        proposed   now  undimmed [kWh]")
    for night in found["nights"]:
        figures = (night["kwh"], night["now_kwh"], night["baseline_kwh"])
        print(f"{night['date']} " + " ".join(f"{kwh:9.1f}" for kwh in figures))
    total = found["total"]
    if total["cost"] is not None:
        saved = total["baseline_cost"] - total["cost"]
        print(f"cost {total['cost']:.2f} {total['currency']}, saves {saved:.2f}")
    if found["without_type"]:
        print(
            f"{found['without_type']} luminaires have no known type: not in the energy"
        )
    return 0


def bars(levels: list[float], width: int = 48) -> str:
    """Levels [%] as a line of bars."""
    step = max(1, len(levels) // width)
    parts = [levels[i : i + step] for i in range(0, len(levels), step)]
    means = [sum(part) / len(part) for part in parts]
    return "".join(_BARS[min(8, -(-int(mean) * 8 // 100))] for mean in means)


def _override(options: argparse.Namespace) -> int:
    body: dict[str, Any] = {
        "target": {"kind": options.kind, "id": options.id},
        "level": options.level,
        "reason": options.reason,
    }
    if options.minutes is not None:
        body["minutes"] = options.minutes
    made = ask(options, "POST", "/overrides", body)
    print(f"{made['id']}: {made['luminaires']} luminaires, until {made['end']}")
    if made["below_class"]:
        print(f"{made['below_class']} of them are below their lighting class with that")
    return 0


def _cancel(options: argparse.Namespace) -> int:
    ask(options, "DELETE", f"/overrides/{urllib.parse.quote(options.override)}")
    print(f"{options.override}: ended")
    return 0


def _alarms(options: argparse.Namespace) -> int:
    for alarm in ask(options, "GET", "/alarms")["items"]:
        print(
            f"{alarm['id']:6d} {alarm['severity']:6s} {alarm['state']:14s}"
            f" {alarm['code']} {alarm['object']} since {alarm['raised']} {alarm['detail']}"
        )
    return 0


def ask(options: argparse.Namespace, method: str, path: str, body: Any = None) -> Any:
    """Ask the backend; its problem documents become errors."""
    return json.loads(fetch(options, method, path, body) or b"null")


def fetch(
    options: argparse.Namespace, method: str, path: str, body: Any = None
) -> bytes:
    """What the backend answers, as it is; a body of bytes is sent as it is."""
    file = options.token_file
    token = (
        file.read_text("utf-8").strip() if file else os.environ.get("DUHA_TOKEN", "")
    )
    if not token:
        raise Forbidden("no token: --token-file FILE or DUHA_TOKEN; `duha backend token` makes one")  # fmt: skip
    if not options.url.startswith(("http://", "https://")):
        raise Invalid(f"{options.url!r} is no http address")
    request = urllib.request.Request(  # noqa: S310 - http and https alone
        f"{options.url.rstrip('/')}/api/v1{path}",
        method=method,
        data=body
        if body is None or isinstance(body, bytes)
        else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            raw: bytes = answer.read()
            return raw
    except urllib.error.HTTPError as error:
        raise _problem(error) from None
    except TimeoutError:
        raise BackendError(f"{options.url}: no answer within {TIMEOUT_S:g} s") from None
    except urllib.error.URLError as error:
        raise BackendError(
            f"{options.url}: {_said(error.reason)}; does the backend run?"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BackendError(f"{options.url}: {_said(error)}") from None


def _said(reason: object) -> str:
    """What went wrong, in words; never nothing."""
    if isinstance(reason, TimeoutError):
        return f"no connection within {TIMEOUT_S:g} s"
    return str(reason) or type(reason).__name__


def _problem(error: urllib.error.HTTPError) -> BackendError:
    try:
        problem = json.loads(error.read())
    except ValueError:
        return BackendError(f"{error.code} {error.reason}")
    for reason in problem.get("reasons", ()):
        print(f"refused: {reason}", file=sys.stderr)
    return BackendError(problem.get("detail", f"{error.code} {error.reason}"))


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "explain": _explain,
    "preview": _preview,
    "override": _override,
    "cancel": _cancel,
    "alarms": _alarms,
}
