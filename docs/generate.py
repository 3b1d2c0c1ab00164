"""Writes docs/reference/ from the code: ``make docs``. A test holds it to be current."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from duha_backend.alarms.kinds import KINDS as ALARMS
from duha_backend.api.app import describe
from duha_contract import messages, topics
from duha_contract.quantities import DERIVED, KINDS
from duha_edge import profiles
from duha_edge.site import SiteFile

MESSAGES = {
    "status": (messages.Status, "state of the controller; retained, and its last will"),
    "data": (messages.Batch, "a batch from the outbox"),
    "ack": (messages.Ack, "what the backend has committed"),
    "desired": (messages.Desired, "what the controller shall do; retained"),
}
UP = ("status", "data")


def quantities() -> str:
    """The data dictionary as Markdown."""
    lines = [
        "# Quantities",
        "",
        "Written by `make docs` from `duha_contract.quantities`.",
    ]
    for kind, found in (KINDS | DERIVED).items():
        lines += ["", f"## `{kind}`", ""]
        if kind in DERIVED:
            lines += ["Worked out by the backend; controllers do not send it.", ""]
        lines += [
            "| column | unit | range | meaning |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| `{q.name}` | {q.unit} | {q.low:g} … {q.high:g} | {q.title} |"
            for q in found
        ]
    return "\n".join(lines) + "\n"


def alarms() -> str:
    """The alarms as Markdown."""
    lines = [
        "# Alarms",
        "",
        "Written by `make docs` from `duha_backend.alarms.kinds`.",
        "",
        "| alarm | severity | raised after [s] | cleared after [s] |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{k.code}` | {k.severity} | {k.after_s:g} | {k.off_s:g} |"
        for k in ALARMS.values()
    ]
    return "\n".join(lines) + "\n"


def devices() -> str:
    """The device profiles as Markdown."""
    lines = [
        "# Device profiles",
        "",
        "Written by `make docs` from `duha_edge/profiles/*.toml`. Addresses are zero-based,",
        "as the protocol has them; a value is raw × scale.",
    ]
    for name in profiles.names():
        lines += ["", *device(profiles.load(name))]
    return "\n".join(lines) + "\n"


def device(profile: profiles.Profile) -> list[str]:
    """One device profile as lines of Markdown."""
    lines = [f"## `{profile.name}`", "", f"{profile.title}; a `{profile.kind}`."]
    if profile.serial:
        lines.append(f"Factory setting of the line: {profile.serial}.")
    if profile.alone:
        lines.append("Each value is requested by itself.")
    for index, where in profile.index.items():
        lines.append(
            f"`at.{index}`: 0 to {where.count - 1}, {where.step} registers apart."
        )
    for group in profile.group:
        steps = "".join(f", {of.step} × `{at}`" for at, of in group.index.items())
        lines.append(
            f"Group write `{group.name}`: `{group.quantity}` at {group.address}{steps}."
        )
    if profile.counter:
        found = profile.counter
        lines.append(
            f"Rain counter ({found.kind}): {found.modulus} states, {found.mm_per_count:g} mm each."
        )
    if profile.source:
        lines.append(f"Source: {profile.source}.")
    heads = ("quantity", "table", "address", "type", "order", "scale", "poll", "write")
    lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for point in profile.point:
        bit = f" bit {point.bit}" if point.bit is not None else ""
        bit += f", a bit for each `{point.packed}`" if point.packed else ""
        write = f"{point.write.low:g} … {point.write.high:g}" if point.write else ""
        order = point.order if point.words > 1 else ""
        lines.append(
            f"| `{point.quantity}` | {point.table} | {point.address} | {point.type}{bit}"
            f" | {order} | {point.scale:g} | {point.poll} | {write} |"
        )
    return lines


def asyncapi() -> dict[str, Any]:
    """The wire as an AsyncAPI 3 document."""
    types = [kind for kind, _ in MESSAGES.values()]
    _, schemas = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    channels, operations = {}, {}
    for leaf, (_, text) in MESSAGES.items():
        channels[leaf] = {
            "address": f"{topics.ROOT}/{{city}}/{{controller}}/{leaf}",
            "description": text,
            "parameters": {"city": {}, "controller": {}},
            "messages": {leaf: {"$ref": f"#/components/messages/{leaf}"}},
        }
        operations[leaf] = {
            "action": "send" if leaf in UP else "receive",
            "channel": {"$ref": f"#/channels/{leaf}"},
            "bindings": {"mqtt": {"qos": 1, "retain": leaf in {"status", "desired"}}},
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Duha on the wire, as a controller sees it",
            "version": str(messages.VERSION),
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {
                leaf: {"payload": {"$ref": f"#/components/schemas/{kind.__name__}"}}
                for leaf, (kind, _) in MESSAGES.items()
            },
            "schemas": schemas,
        },
    }


def site_schema() -> dict[str, Any]:
    """JSON Schema of a site file, for editors."""
    return msgspec.json.schema(SiteFile)


def pages() -> dict[str, str]:
    """Every generated file by its name."""
    documents = {
        "openapi.json": describe(),
        "asyncapi.json": asyncapi(),
        "site.schema.json": site_schema(),
    }
    texts = {
        name: json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        for name, document in documents.items()
    }
    texts |= {"quantities.md": quantities(), "devices.md": devices()}
    return texts | {"alarms.md": alarms()}


def main() -> int:
    """Write the files; with --check only say which are not current."""
    folder = Path(__file__).parent / "reference"
    stale = []
    for name, text in pages().items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, "utf-8")
    print(f"docs/reference: {', '.join(stale) or 'current'}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
