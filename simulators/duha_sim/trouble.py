"""Trouble on request: what is broken now, kept in a small file that people can edit.

The file is JSON: ``{"RVO-001-L007": "dead", "RVO-002": "link_cut"}``. A running
simulator notices a change within a second.
"""

import json
import random
from pathlib import Path
from typing import Literal, get_args

Trouble = Literal[
    "dead", "late", "garbled", "blocked", "burnt_out", "weak", "day_burner", "link_cut"
]  # fmt: skip
TROUBLES: tuple[str, ...] = get_args(Trouble)
HELP = {
    "dead": "the device does not answer at all",
    "late": "the device answers after 0.7 s",
    "garbled": "every other answer has a flipped bit",
    "blocked": "a gauge's funnel is blocked: it rains and nothing tips",
    "burnt_out": "a lamp gives no light, and its driver says so",
    "weak": "some LEDs of a lamp are dark: it takes little more than half its power",
    "day_burner": "a lamp burns on whatever it is told",
    "link_cut": "the field lines of a cabinet are cut: none of its devices answers",
}
LATE_S = 0.7


class Troubles:
    """The troubles of now; unknown devices in the file harm nobody."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._stamp = 0
        self._random = random.Random(7)
        self.now: dict[str, str] = {}

    def refresh(self) -> None:
        """Read the file again if it has changed; keep the old state if it is broken."""
        if self._path is None or not self._path.exists():
            return
        stamp = self._path.stat().st_mtime_ns
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.now = load(self._path)
        except ValueError as error:
            print(f"trouble: {error}; the old troubles stay", flush=True)

    def of(self, device: str) -> str | None:
        """The trouble of a device or cabinet."""
        return self.now.get(device)

    def spoil(self, device: str, frame: bytes) -> bytes:
        """Flip a bit of every other frame of a garbled device."""
        if self.of(device) != "garbled" or self._random.random() < 0.5:
            return frame
        place = self._random.randrange(len(frame))
        return frame[:place] + bytes((frame[place] ^ 0x10,)) + frame[place + 1 :]


def load(path: Path) -> dict[str, str]:
    """Read a trouble file.

    Raises
    ------
    ValueError
        It is not a JSON object of device to trouble; names the entry.
    """
    if not path.exists():
        return {}
    found = json.loads(path.read_text("utf-8") or "{}")
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not a JSON object of device to trouble")  # noqa: TRY004
    for device, trouble in found.items():
        if trouble not in TROUBLES:
            raise ValueError(f"{device}: {trouble!r} is none of {', '.join(TROUBLES)}")
    return found


def change(path: Path, device: str, trouble: str | None) -> dict[str, str]:
    """Give a device a trouble, or None to mend it; returns all troubles."""
    found = load(path)
    found.pop(device, None)
    if trouble is not None:
        found[device] = trouble
    new = path.with_suffix(".new")
    new.write_text(json.dumps(found, indent=2), "utf-8")
    new.replace(path)
    return found
