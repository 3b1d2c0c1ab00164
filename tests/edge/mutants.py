"""Messages that are valid first, then changed one to three times."""

import copy
import json

from duha_contract.lighting import Condition, Override
from duha_contract.messages import Ack, Desired, encode
from duha_contract.programmes import (
    Calendar,
    Effect,
    Period,
    Place,
    Programme,
    Rule,
    Step,
)
from duha_contract.roads import Drying

PLZEN = Place(49.7475, 13.3776, "Europe/Prague")
NOW = 1_795_561_200.0  # 2026-11-24 23:00 in Plzeň
NOW_MS = round(NOW * 1000)
STREET = Programme(
    "p", "P", (Step("sunset", 100, 60), Step("22:00", 40), Step("sunrise-60", 80)),
    (Period("sunset", "sunrise", 20, 20),),
    (Effect("wet_road"), Effect("motion", 90, start="23:00", end="04:00")),
)  # fmt: skip
DOCUMENT = Desired(
    1, 7, "h", NOW_MS, PLZEN, (STREET,), (Calendar("c", "C", "p", (Rule("p"),)),),
    {"*": "c", "L1": "c"}, (Override("o", 50, NOW_MS, NOW_MS + 3_600_000, fade_s=60.0),),
    (Condition("wet_road", NOW_MS, NOW_MS + 900_000, "G1", ("L2",)),), {"L1": 80.0},
    Drying(), 3,
)  # fmt: skip
ACK = Ack(1, "outbox", ((1, 5), (7, 9)))
NASTY: tuple[object, ...] = (
    None, True, -1, 0, 1, 10**30, -(10**18), 2**53, 2**63, 1e308, -1e9, 1e-320, 0.5, "",
    "\0", "x" * 5000, "No/Where", "Europe", "../../etc/passwd", "25:99", "sunset+999",
    "sunrise-999", "12:00", "*", [], {}, [[]], [None], ["L1"], {"a": 1}, "9999-12-31",
    "0001-01-01", "\ud83d\ude00", -273.15, 90.0, 180.0, 100.00001,
)  # fmt: skip
RAW = (
    b"Infinity",
    b"-Infinity",
    b"NaN",
    b"1e999",
    b"[" * 3000,
    b"\xff",
    b"\\ud800",
    b"\0",
)


def places(value, path=()):
    """Where anything lies in a document."""
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from places(inner, (*path, key))


def mutated(document, chance):
    """A document with something else at one place."""
    path = chance.choice([path for path in places(document) if path])
    *way, last = path
    inside = document
    for key in way:
        inside = inside[key]
    how = chance.randrange(6)
    if how == 0 and isinstance(inside, dict):
        del inside[last]
    elif how == 1 and isinstance(inside, list):
        inside *= chance.choice([2, 300])
    elif how == 2 and isinstance(inside, dict):
        inside[chance.choice(["L9", "term", "\0", "v"])] = inside[last]
    elif how == 3 and isinstance(inside[last], int | float):
        inside[last] = inside[last] * chance.choice([-1, 1e3, 1e12, 1e-12, 10**25])
    else:
        inside[last] = copy.deepcopy(chance.choice(NASTY))
    return document


def payload(message, chance):
    """A message as it might come."""
    document = json.loads(encode(message))
    for _ in range(chance.randint(1, 3)):
        if not isinstance(document, dict) or not document:
            break
        document = mutated(document, chance)
    found = json.dumps(document).encode()
    if chance.random() < 0.2:
        at = chance.randrange(len(found))
        found = found[:at] + chance.choice(RAW) + found[at + chance.randint(0, 3) :]
    return found
