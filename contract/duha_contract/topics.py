"""Every topic of Duha is built and parsed here; nobody else formats one."""

import re
from typing import Literal, NamedTuple, get_args

from duha_contract.errors import TopicError

ROOT = "duha/v1"
Leaf = Literal["status", "data", "ack", "desired"]
LEAVES = get_args(Leaf)
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Topic(NamedTuple):
    """``duha/v1/<city>/<controller>/<leaf>``."""

    city: str
    controller: str
    leaf: Leaf

    def __str__(self) -> str:
        return f"{ROOT}/{self.city}/{self.controller}/{self.leaf}"


def is_id(text: str) -> bool:
    """Whether `text` may name a city, a controller or a device."""
    return _ID.fullmatch(text) is not None


def build(city: str, controller: str, leaf: Leaf) -> str:
    """Build a topic.

    Raises
    ------
    TopicError
        An id has other characters than letters, digits, dot, underscore, hyphen.
    """
    for name in (city, controller):
        if not is_id(name):
            raise TopicError(f"{name!r} is no id: 1 to 64 of A-Z a-z 0-9 . _ -")
    return str(Topic(city, controller, leaf))


def pattern(city: str, leaf: Leaf) -> str:
    """The subscription for one leaf of every controller of a city."""
    return f"{ROOT}/{city}/+/{leaf}"


def parse(topic: str) -> Topic:
    """Take a topic apart.

    Raises
    ------
    TopicError
        It is not a topic of this version of the contract.
    """
    parts = topic.split("/")
    if len(parts) != 5 or "/".join(parts[:2]) != ROOT or parts[4] not in LEAVES:
        raise TopicError(f"{topic!r} is not {ROOT}/<city>/<controller>/<leaf>")
    if not (is_id(parts[2]) and is_id(parts[3])):
        raise TopicError(f"{topic!r} names a city or controller that is no id")
    return Topic(parts[2], parts[3], parts[4])  # type: ignore[arg-type]
