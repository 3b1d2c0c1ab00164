"""Messages of the wire that are nearly right: valid ones, each damaged once to three times.

Self-contained and fast (tens of thousands a second), the same for the same seed: for the
fuzz tests here and for the bench of robustness.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

CONTROLLERS = tuple(f"MUT-{n:03d}" for n in range(50))
FOREIGN = ("RVO-001", "RVO-001-L001", "SR-01", "", ".", "..", "x" * 65, "Ü", "a b")
"""Names of others, and names that are none."""
LUMINAIRE = (
    "device", "ts", "quality", "level_actual_pct", "power_w", "energy_wh", "lamp_failure",
)  # fmt: skip
RAIN_GAUGE = ("device", "ts", "quality", "counter_raw", "rain_mm", "interval_s")
METER = ("device", "ts", "quality", "power_w", "energy_kwh")

_DEEP = [b"[" * n + b"]" * n for n in (50, 1100, 20_000)]
_DEEP += [b'{"a":' * n + b"1" + b"}" * n for n in (50, 1100, 8000)]
_NASTY = [
    msgspec.Raw(raw)
    for raw in (
        b"null", b"true", b"false", b"[]", b"{}", b'""', b'"x"', b'["x"]', b"[[]]",
        b'{"a":1}', b"0", b"-0", b"-1", b"1", b"1.5", b"-1e308", b"1e308", b"1e999",
        b"-1e999", b"1e-400", b"9" * 30, b"-" + b"9" * 30, b"9" * 400, b"9223372036854775807",
        b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616",
        b"9007199254740993", b'"\\u0000"', b'"a\\u0000b"', b'"' + b"y" * 129 + b'"',
        b'"' + b"z" * 5000 + b'"', b'"1"', b'"good"', b'"2026-01-01T00:00:00Z"',
        b'"../../etc/passwd"', b"\"'; DROP TABLE event;--\"", b'"duha/v1/x/y/data"',
        b"[1,2,3]", b"[[1,9" + b"9" * 29 + b"]]", b"[[-1000000000000000000,1]]",
        b"[null,null,null]",
    )
]  # fmt: skip
_BROKEN = [
    msgspec.Raw(raw)
    for raw in (
        b"", b",", b"NaN", b"Infinity", b"-Infinity", b"9" * 5000, b'"\\ud800"',
        b'"\\udfff\\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b"/**/1", b"0x1F", b"+1",
        b"01", b"1.", b"'x'",
    )
]  # fmt: skip
"""Values that are no JSON: they spoil the whole message, and so come less often."""
_TOPICS: Sequence[Callable[[str, random.Random], str]] = (
    lambda name, _: f"duha/v1/plzen/{name}/data",
    lambda name, _: f"duha/v1/plzen/{name}/status",
    lambda name, _: f"duha/v1/plzen/{name}/ack",
    lambda name, _: f"duha/v1/plzen/{name}/desired",
    lambda name, _: f"duha/v1/other/{name}/data",
    lambda name, _: f"duha/v2/plzen/{name}/data",
    lambda name, _: f"duha/v1/plzen/{name}/data/more",
    lambda _, dice: f"duha/v1/plzen/X-{dice.randrange(10**6)}/data",
    lambda _, dice: f"duha/v1/plzen/X-{dice.randrange(10**6)}/status",
    lambda _, dice: f"duha/v1/plzen/{dice.choice(FOREIGN)}/data",
    lambda _, dice: f"duha/v1/plzen/{dice.choice(FOREIGN)}/status",
)
_OTHER_TOPIC, _BYTES, _RETAINED = 0.05, 0.15, 0.05
"""Shares of messages with another topic, with damaged bytes, and of retained ones."""


def mutated_messages(
    seed: int,
    n: int,
    *,
    controllers: Sequence[str] = CONTROLLERS,
    now_ms: int | None = None,
) -> Iterator[tuple[str, bytes, bool]]:
    """Yield `n` damaged messages: topic, payload and whether it is retained.

    Parameters
    ----------
    controllers : sequence of str
        Who sends them; some go out under invented names.
    now_ms : int, optional
        Time of the readings [ms]; now by default.
    """
    dice = random.Random(seed)
    now = round(time.time() * 1000) if now_ms is None else now_ms
    makers = (_batch, _batch, _batch, _batch, _status, _ack, _desired)
    for number in range(1, n + 1):
        name = dice.choice(controllers)
        leaf, message = dice.choice(makers)(dice, name, number, now)
        topic = f"duha/v1/plzen/{name}/{leaf}"
        yield _damaged(dice, topic, name, message)


def _damaged(
    dice: random.Random, topic: str, name: str, message: dict[str, Any]
) -> tuple[str, bytes, bool]:
    times = dice.randrange(1, 4)
    for _ in range(times):
        _damage(dice, message)
    payload = msgspec.json.encode(message)
    if dice.random() < _BYTES:
        payload = dice.choice(_CUTS)(payload, dice)
    if dice.random() < _OTHER_TOPIC:
        topic = dice.choice(_TOPICS)(name, dice)
    return topic, payload, dice.random() < _RETAINED


# -- valid messages ------------------------------------------------------------------------

Made = tuple[str, dict[str, Any]]


def _batch(dice: random.Random, name: str, number: int, now: int) -> Made:
    kind, columns, values = dice.choice(
        (
            ("luminaire", LUMINAIRE, [50, 30.5, 1234.0, 0]),
            ("rain_gauge", RAIN_GAUGE, [1000, 0.2, 10.0]),
            ("meter", METER, [812.5, 1234.5]),
        )
    )
    rows = [
        [f"{name}-D{i}", now - dice.randrange(60_000), "good", *values]
        for i in range(dice.randrange(1, 4))
    ]
    return "data", {
        "v": 1, "boot": "boot", "outbox": f"box-{name}", "seq": number,
        "clock": "trusted",
        "tables": [{"kind": kind, "columns": list(columns), "rows": rows}],
        "events": [{"ts": now, "code": "door_open", "device": f"{name}-IO", "detail": "d"}],
        "reports": [
            {"ts": now, "revision": 3, "hash": "abc", "applied": 3, "diverged": [f"{name}-D1"]}
        ],
        "since": now - 10**6,
    }  # fmt: skip


def _status(dice: random.Random, name: str, number: int, now: int) -> Made:
    return "status", {
        "v": 1, "online": True, "ts": now, "version": "1.0", "boot": "boot",
        "clock": "trusted", "period_s": 10.0, "backlog": number, "missed_cycles": 0,
        "silent_units": 0, "lost": 0, "alarms": [f"{name} is hot"], "site": "abc",
        "site_error": "",
    }  # fmt: skip


def _ack(dice: random.Random, name: str, number: int, now: int) -> Made:
    return "ack", {
        "v": 1, "outbox": f"box-{name}", "ranges": [[number, number + 2]], "resend": False,
    }  # fmt: skip


def _desired(dice: random.Random, name: str, number: int, now: int) -> Made:
    return "desired", {
        "v": 1, "revision": number, "hash": "abc", "issued": now,
        "place": {"latitude": 49.7, "longitude": 13.4, "zone": "Europe/Prague"},
        "programmes": [
            {"id": "usual", "name": "Usual", "active": [{"start": "sunset", "end": "sunrise"}],
             "steps": [{"at": "sunset", "level": 100.0}, {"at": "22:30", "level": 40.0, "fade_s": 60.0}],
             "effects": [{"on": "wet_road"}]},
        ],
        "calendars": [
            {"id": "all", "name": "All", "default": "usual",
             "rules": [{"programme": "usual", "weekdays": ["sat"], "first": "2026-01-01"}]},
        ],
        "assignments": {"*": "all"},
        "overrides": [
            {"id": "o1", "level": 50.0, "start": now - 1000, "end": now + 3_600_000, "devices": [f"{name}-L001"]},
        ],
        "conditions": [{"kind": "wet_road", "start": now - 1000, "end": now + 60_000}],
        "normals": {f"{name}-L001": 80.0}, "drying": None, "term": 1,
    }  # fmt: skip


# -- damage --------------------------------------------------------------------------------


def _damage(dice: random.Random, message: dict[str, Any]) -> None:
    """Change one place of a message, deep within it or at its top."""
    inside, key = _place(dice, message)
    if inside is None:
        return
    way = dice.randrange(12)
    if way < 7:
        inside[key] = dice.choice(_BROKEN if dice.random() < 0.05 else _NASTY)
    elif way == 7 and isinstance(inside, dict):
        del inside[key]
    elif way == 8:
        inside[key] = dice.choice(FOREIGN)
    elif way == 9:
        inside[key] = [inside[key]] * dice.choice((0, 2, 50, 500))
    elif way == 10 and isinstance(inside, list):
        del inside[dice.randrange(len(inside)) :]
    elif dice.random() < 0.02:
        inside[key] = msgspec.Raw(dice.choice(_DEEP))
    elif isinstance(inside, dict):
        inside[dice.choice(("extra", "", "\u0000", "v", "ts"))] = inside[key]
    else:
        inside.extend(inside[:3])


def _place(dice: random.Random, message: dict[str, Any]) -> tuple[Any, Any]:
    """Some place of a message: what it lies in, and where in it."""
    inside: Any = message
    while True:
        if not inside:
            return None, None
        key = (
            dice.choice(list(inside))
            if isinstance(inside, dict)
            else dice.randrange(len(inside))
        )
        found = inside[key]
        if not isinstance(found, dict | list) or not found or dice.random() < 0.2:
            return inside, key
        inside = found


def _cut(payload: bytes, dice: random.Random) -> bytes:
    return payload[: dice.randrange(len(payload) + 1)]


def _flip(payload: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(payload))
    return payload[:at] + bytes((dice.randrange(256),)) + payload[at + 1 :]


def _insert(payload: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(payload))
    return payload[:at] + dice.choice((b"\x00", b"\xff\xfe", b"\xed\xa0\x80")) + payload[at:]  # fmt: skip


def _swell(payload: bytes, dice: random.Random) -> bytes:
    return payload + b" " * dice.choice((10, 1000, 140_000))


def _double(payload: bytes, dice: random.Random) -> bytes:
    return payload * dice.choice((2, 3))


def _empty(_payload: bytes, _dice: random.Random) -> bytes:
    return b""


_CUTS = (_cut, _flip, _flip, _insert, _cut, _double, _empty, _flip, _swell)
