"""Secrets within documents: they go in, and do not come out."""

import json
import re
import urllib.parse
from typing import Any

MASK = "***"
_TOKEN = re.compile(r"[^/]{20,}")


def masked(address: str) -> str:
    """An address without user, query, and what looks like a token in its path."""
    if not address.startswith(("http://", "https://")):
        return address
    try:
        parts = urllib.parse.urlsplit(address)
    except ValueError:
        return MASK
    _, at, host = parts.netloc.rpartition("@")
    return urllib.parse.urlunsplit(
        (
            parts.scheme,
            f"{MASK}@{host}" if at else host,
            _TOKEN.sub(MASK, parts.path),
            MASK if parts.query else "",
            MASK if parts.fragment else "",
        )
    )


def without_secrets(document: Any) -> Any:
    """A document as it may be shown: a webhook's address is masked."""
    if isinstance(document, dict) and document.get("kind") == "webhook":
        return document | {"to": masked(str(document.get("to", "")))}
    return document


def text_without_secrets(text: str) -> str:
    """The same of a document's JSON."""
    if '"webhook"' not in text:
        return text
    try:
        document = json.loads(text)
    except ValueError:
        return text
    return json.dumps(without_secrets(document), ensure_ascii=False)
