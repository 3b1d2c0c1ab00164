"""Databases, or buckets, of an InfluxDB and how long they keep readings."""

from typing import Any

from duha_backend.errors import Invalid, StoreDown
from duha_backend.influx_server import Server
from duha_backend.readings import Retention, Step

_HOUR_S, _DAY_S = 3600, 86_400


async def prepare(server: Server, retention: Retention) -> list[str]:
    """Make or adjust databases, or buckets, with their durations; says what it did.

    Raises
    ------
    Invalid
        The organisation is not there, or the token belongs to another one.
    StoreDown
        The server cannot be reached, or refuses.
    """
    place = server.place
    kept: dict[Step, int | None] = {
        "raw": retention.raw,
        "15m": retention.quarters,
        "1d": retention.days,
    }
    done = []
    old = await server.is_old()
    org = "" if old else await _organisation(server)
    for step, days in kept.items():
        name = place.of(step)
        await (
            _database(server, name, days) if old else _bucket(server, org, name, days)
        )
        done.append(f"{name}: kept {f'{days} days' if days else 'for ever'}")
    if not old:
        await _try_reading(server)
    return done


def _shard_s(days: int | None) -> int:
    """Duration of a shard [s], which must not be longer than readings are kept."""
    if not days or days >= 180:
        return 7 * _DAY_S
    return _DAY_S if days >= 2 else _HOUR_S


async def _database(server: Server, name: str, days: int | None) -> None:
    duration = f"{days}d" if days else "INF"
    await server.series("", f'CREATE DATABASE "{name}"')
    await server.series(
        "",
        f'ALTER RETENTION POLICY "autogen" ON "{name}" DURATION {duration}'
        f" SHARD DURATION {_shard_s(days)}s",
    )


async def _organisation(server: Server) -> str:
    """Number of the organisation that readings belong to."""
    name = server.place.org
    found = await server.json("GET", "/api/v2/orgs", {"org": name})
    for org in found.get("orgs", ()):
        if org.get("name") == name:
            return str(org["id"])
    raise Invalid(
        f"InfluxDB at {server.place.url}: there is no organisation {name!r}, or the token"
        " may not see it: give --influx-org"
    )


async def _bucket(server: Server, org: str, name: str, days: int | None) -> None:
    # For ever is said as 0: a list without any rule would change nothing.
    rule = {
        "type": "expire",
        "everySeconds": (days or 0) * _DAY_S,
        "shardGroupDurationSeconds": _shard_s(days),
    }
    bucket: dict[str, Any] = {"name": name, "retentionRules": [rule]}
    found = await server.json("GET", "/api/v2/buckets", {"name": name, "orgID": org})
    mine = [
        one
        for one in found.get("buckets", ())
        if one.get("name") == name and one.get("orgID") == org
    ]
    if mine:
        path = f"/api/v2/buckets/{mine[0]['id']}"
        made = await server.json("PATCH", path, {}, bucket)
    else:
        made = await server.json("POST", "/api/v2/buckets", {}, bucket | {"orgID": org})
    rules = made.get("retentionRules") or [{"everySeconds": 0}]
    if rules[0].get("everySeconds", 0) != rule["everySeconds"]:
        raise StoreDown(
            f"InfluxDB at {server.place.url}: bucket {name!r} keeps readings for"
            f" {rules[0].get('everySeconds', 0)} s, not {rule['everySeconds']} s"
        )


async def _try_reading(server: Server) -> None:
    """Find out whether the token reads what it writes.

    A write names its organisation; a question in InfluxQL is asked in the token's own.
    """
    try:
        await server.series(server.place.of("raw"), "SHOW MEASUREMENTS LIMIT 1")
    except StoreDown as error:
        if "database not found" not in str(error):
            raise
        raise Invalid(
            f"InfluxDB at {server.place.url}: the token writes into organisation"
            f" {server.place.org!r} but reads in its own: make one that belongs to it"
        ) from error
