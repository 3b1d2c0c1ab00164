"""SWMM's own statistics of a run, over every routing step, read from its library.

The toolkit has calls for them, too; each of those leaves its answer in memory for good
(0.1 MB for a thousand nodes), and a live model reads them every five minutes for weeks.
"""

import ctypes
from pathlib import Path
from typing import NamedTuple

import numpy as np

from duha_backend.validate import Array

_WIDTH = 40
"""Room for one answer [numbers]; SWMM 5.2 needs 16 of a node and 22 of a link."""


class Nodes(NamedTuple):
    """Arrays in the model's units: depth, flows, volume; and hours flooded."""

    depth: Array
    inflow: Array
    flooding: Array
    spilled: Array
    flooded_h: Array


class Links(NamedTuple):
    """Arrays in the model's units: greatest flow either way, and depth."""

    flow: Array
    depth: Array


class Statistics:
    """Statistics of the model that this process has open.

    Parameters
    ----------
    folder : Path
        Where the toolkit's library lies.
    nodes, links : int
        How many the model has.
    """

    def __init__(self, folder: Path, nodes: int, links: int) -> None:
        (library,) = folder.glob("libswmm5.*")
        known = ctypes.CDLL(str(library))
        self._node, self._link = known.swmm_getNodeStats, known.swmm_getLinkStats
        for call in (self._node, self._link):
            call.argtypes = (ctypes.c_int, ctypes.c_void_p)
        self._nodes = np.zeros((nodes, _WIDTH))
        self._links = np.zeros((links, _WIDTH))

    def nodes(self) -> Nodes:
        """Of every node (n,): its members 1, 10, 11, 4 and 5 of ``SM_NodeStats``."""
        found = _filled(self._nodes, self._node)
        return Nodes(*(found[:, at].copy() for at in (1, 10, 11, 4, 5)))

    def links(self) -> Links:
        """Of every link (m,): its members 0 and 3 of ``SM_LinkStats``."""
        found = _filled(self._links, self._link)
        return Links(found[:, 0].copy(), found[:, 3].copy())


def _filled(rows: Array, call: "ctypes._NamedFuncPointer") -> Array:
    at, width = rows.ctypes.data, rows.strides[0]
    for number in range(len(rows)):
        call(number, at + number * width)
    return rows
