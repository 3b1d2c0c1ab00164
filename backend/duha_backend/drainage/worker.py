"""The process of one model: asked over its standard input, answers over its output.

``python -I -m duha_backend.drainage.worker`` in an empty folder, which is all that it may
write to. It has one thread and one model; who asks is `process.Process`. Each message is its
length (4 bytes, big-endian) and MessagePack; the first one says how it is confined.
"""

import datetime as dt
import os
import shutil
import signal
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from duha_backend.drainage.confine import confine, end_with_parent, limit_cpu
from duha_backend.drainage.engine import Engine, Snapshot
from duha_backend.drainage.forks import forecast
from duha_backend.drainage.job import run_job
from duha_backend.errors import BackendError
from duha_backend.runoff.study import Job, Rain

LIDS_MIN = 60
MOST_CHARS = 1000
_LENGTH = struct.Struct(">I")
Said = dict[str, Any]


def main() -> None:
    """Serve until nobody asks any more, or whoever began this process is gone."""
    # Whatever a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    end_with_parent(signal.SIGTERM)
    folder = Path.cwd()
    held = confine(folder)
    send(answers, {"files": held.files, "network": held.network})
    model: Engine | None = None
    try:
        while (asked := receive(sys.stdin.buffer)) is not None:
            limit_cpu(asked["cpu_s"])
            model, said = _answer(model, asked)
            send(answers, said)
    except BrokenPipeError:
        pass
    finally:  # whoever asked may have been killed: nothing stays behind
        if model is not None:
            model.close()
        shutil.rmtree(folder, ignore_errors=True)


def _answer(model: Engine | None, asked: Said) -> tuple[Engine | None, Said]:
    try:
        if asked["do"] == "job":
            return model, _job(asked)
        if asked["do"] == "open":
            model = _begin(asked)
            return model, _names(model)
        if model is None:
            return None, {"error": "no model is open"}
        return model, _DOES[asked["do"]](model, asked)
    except BackendError as error:
        return model, {"error": str(error), "kind": type(error).__name__}
    except Exception as error:  # noqa: BLE001 - told to whoever asks, who ends this process
        said = f"the model has failed: {type(error).__name__}: {error}"
        return model, {"error": said[:MOST_CHARS], "kind": "Diverged"}


def receive(pipe: BinaryIO) -> Said | None:
    """The next message; None at the end."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    body = pipe.read(_LENGTH.unpack(head)[0])
    return msgspec.msgpack.decode(body)  # type: ignore[no-any-return]


def pack(said: Said) -> bytes:
    """A message as it is sent."""
    body = msgspec.msgpack.encode(said)
    return _LENGTH.pack(len(body)) + body


def send(pipe: BinaryIO, said: Said) -> None:
    """Send a message."""
    pipe.write(pack(said))
    pipe.flush()


def _begin(asked: Said) -> Engine:
    start = dt.datetime.fromtimestamp(asked["start"], dt.UTC).replace(tzinfo=None)
    return Engine(asked["raw"], start, Path.cwd())


def _job(asked: Said) -> Said:
    rain = np.frombuffer(asked["rain"]).reshape(asked["shape"])
    factors = tuple((name, factor) for name, factor in asked["factors"])
    job = Job(
        asked["model"],
        asked["raw"],
        Rain(asked["name"], rain),
        asked["tail_h"],
        factors,
    )
    return {"outcome": msgspec.to_builtins(run_job(job))}


def _names(model: Engine) -> Said:
    return {
        "gauges": model.gauges,
        "nodes": model.nodes,
        "links": model.links,
        "subcatchments": model.subcatchments,
        "lids": model.lids,
        "full_m": model.full_m.tolist(),
        "area_ha": model.area_ha,
        "changes": model.changes,
    }


def _run(model: Engine, asked: Said) -> Said:
    """Run minutes; a row of results every so many."""
    rain = np.frombuffer(asked["rain"]).reshape(-1, len(model.gauges))
    rows: list[Said] = []
    for row in rain:
        model.advance(row)
        if model.minutes % asked["every"] == 0:
            model.check_rain()
            if rows:  # of peaks only the newest are wanted: a day of rows is large
                rows[-1] |= {"peaks": b"", "link_peaks": b""}
            rows.append(_row(model))
    return {"minutes": model.minutes, "rows": rows}


def _row(model: Engine) -> Said:
    """Results now; of LID units only each hour, as reading them takes its time."""
    found: Snapshot = model.read()
    row: Said = {name: a.tobytes() for name, a in found._asdict().items()}
    totals = model.runoff_mm()
    return row | {
        "minute": model.minutes,
        "lids": model.read_lids().tobytes() if model.minutes % LIDS_MIN == 0 else b"",
        "stored_m3": model.stored_m3(),
        "injected_mm": model.injected,
        "runoff_mm": totals["runoff"] + totals["drains"],
    }


def _forecast(model: Engine, asked: Said) -> Said:
    members = {
        name: np.frombuffer(raw).reshape(-1, len(model.gauges))
        for name, raw in asked["members"].items()
    }
    found = forecast(
        model,
        members,
        (asked["nodes"], asked["links"]),
        asked["every"],
        asked["limit_s"],
    )
    return {
        "members": {
            name: {
                "nodes": one.nodes.tolist(),
                "links": one.links.tolist(),
                "flooding": one.flooding.tolist(),
                "problem": one.problem,
            }
            for name, one in found.items()
        }
    }


_DOES = {"run": _run, "forecast": _forecast}

if __name__ == "__main__":
    main()
