"""The log: sentences for people, or one JSON object a line for machines."""

import datetime as dt
import json
import logging
import os
import time

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

MOST_KINDS = 200
"""Kinds of lines that are told apart; those beyond count as one."""


class JsonLines(logging.Formatter):
    """Each record as one JSON object: time, level, logger, message, what was given more."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _OWN}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def begin() -> None:
    """Set the log up: DUHA_LOG is its level, DUHA_LOG_FORMAT `text` or `json`."""
    handler = logging.StreamHandler()
    if os.environ.get("DUHA_LOG_FORMAT") == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=os.environ.get("DUHA_LOG", "INFO"), handlers=[handler])
    for chatty in ("alembic", "fontTools"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class Seldom(logging.Filter):
    """Lets one line of each kind through in a while, with the number of those left out.

    A kind is a message before its arguments are put in, of one controller where the line
    names one. So a flood of messages is no flood of lines.
    """

    def __init__(self, every_s: float = 10.0) -> None:
        super().__init__()
        self._every_s = every_s
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written."""
        now = time.monotonic()
        kind = (str(record.msg), str(getattr(record, "controller", "")))
        if kind not in self._said and len(self._said) >= MOST_KINDS:
            self._said = {k: v for k, v in self._said.items() if v[0] > now}
            if len(self._said) >= MOST_KINDS:
                kind = ("", "")
        until, left_out = self._said.get(kind, (float("-inf"), 0))
        if now < until:
            self._said[kind] = (until, left_out + 1)
            return False
        self._said[kind] = (now + self._every_s, 0)
        if left_out:
            record.msg = f"{record.msg} ({left_out} lines like this left out)"
        return True
