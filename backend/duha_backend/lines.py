"""Line protocol of InfluxDB, built directly from columns. Pure.

A reading becomes one line: the kind is the measurement, controller and device are the only
tags, so that a city has as many series as it has devices; everything else is a field.
"""

from collections.abc import Iterator

from duha_backend.readings import Frame
from duha_backend.validate import Array

TAGS = ("controller", "device")
_TEXT = ("quality",)


def lines(measurement: str, frame: Frame) -> list[str]:
    """Lines of a frame, in its order; a line without any field is left out.

    Names of devices and controllers are ids of the contract, which need no escaping.
    """
    tags = [name for name in TAGS if name in frame]
    heads = zip(*(frame[name].tolist() for name in tags), strict=True)
    fields = [
        list(_field(name, column))
        for name, column in frame.items()
        if name not in TAGS and name != "ts"
    ]
    shape = measurement + "".join(f",{name}=%s" for name in tags)
    return [
        f"{shape % head} {body} {ts}"
        for head, body, ts in zip(
            heads,
            (",".join(filter(None, row)) for row in zip(*fields, strict=True)),
            frame["ts"].tolist(),
            strict=True,
        )
        if body
    ]


def _field(name: str, column: Array) -> Iterator[str]:
    if name in _TEXT:
        return (f'{name}="{value}"' for value in column.tolist())
    # NaN alone differs from itself: no value is no field.
    return (f"{name}={v!r}" if v == v else "" for v in column.tolist())  # noqa: PLR0124
