"""What follows from the assets of a city, built whole and then swapped in.

Threads read it while the event loop replaces it: who needs several parts of it takes one
`City` and sees columns of one length.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from duha_backend.latest import Latest
from duha_backend.lighting.inventory import Asset
from duha_backend.validate import Array


@dataclass(frozen=True)
class City:
    """What follows from the assets of a city, built whole.

    The order of luminaires is that of the state bytes.

    Attributes
    ----------
    index : dict of str to int
        Row of each luminaire.
    of_cabinet : mapping of str to list of int
        Rows of the luminaires of each cabinet.
    others : mapping of str to list of Asset
        What else hangs on each cabinet.
    registered : frozenset of str
        Controllers: cabinets, and whatever else owns an asset.
    latest : dict of str to Latest
        The last readings by kind.
    state, stale, diverged, silent : (n,) array
        Of each luminaire: its byte, and what it is judged by.
    """

    assets: Mapping[str, Asset]
    luminaires: list[Asset]
    owners: Mapping[str, str]
    index: Mapping[str, int]
    of_cabinet: Mapping[str, list[int]]
    others: Mapping[str, list[Asset]]
    registered: frozenset[str]
    latest: dict[str, Latest]
    state: Array
    stale: Array
    diverged: Array
    silent: Array

    @classmethod
    def of(
        cls, assets: Iterable[Asset], latest: Mapping[str, Latest], blank: int
    ) -> "City":
        """The city of some assets, all bytes `blank`; what was read stays known."""
        known = {asset.id: asset for asset in assets}
        lamps = [a for a in known.values() if a.kind == "luminaire"]
        of_cabinet: dict[str, list[int]] = {}
        for i, asset in enumerate(lamps):
            of_cabinet.setdefault(asset.cabinet, []).append(i)
        others: dict[str, list[Asset]] = {}
        for asset in known.values():
            if asset.kind != "luminaire" and asset.cabinet:
                others.setdefault(asset.cabinet, []).append(asset)
        index = {asset.id: i for i, asset in enumerate(lamps)}
        owners = {a.id: a.cabinet for a in known.values() if a.cabinet}
        cabinets = {a.id for a in known.values() if a.kind == "cabinet"}
        n = len(lamps)
        return cls(
            known, lamps, owners, index, of_cabinet, others,
            frozenset(cabinets.union(owners.values())),
            {
                kind: of.renewed(known, index if kind == "luminaire" else (), 0)
                for kind, of in latest.items()
            },
            np.full(n, blank, dtype=np.uint8),
            np.ones(n, dtype=bool),
            np.zeros(n, dtype=bool),
            np.array([not a.networked for a in lamps], dtype=bool),
        )  # fmt: skip
