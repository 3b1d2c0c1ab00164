"""How well a model meets what was measured. Pure.

Every score is None where it is not defined, as without any change in what was measured.
"""

from typing import NamedTuple

import numpy as np

from duha_backend.validate import Array

KGE_VARIANT = "KGE 2009"


class Scores(NamedTuple):
    """Scores of one event; `n` pairs count, those with both values.

    `kge` is the variant of 2009 (Gupta et al., J. Hydrol. 377), `kge_2012` that of Kling
    et al. (J. Hydrol. 424-425); volume and peak errors in percent of what was measured,
    the time of the peak in steps (positive: too late).
    """

    n: int
    nse: float | None
    kge: float | None
    kge_2012: float | None
    volume_pct: float | None
    peak_pct: float | None
    peak_late_steps: int | None


def scores(measured: Array, modelled: Array) -> Scores:
    """Scores of a modelled series against a measured one; NaN is left out.

    Nash and Sutcliffe (1970), J. Hydrol. 10: NSE = 1 - sum (m - o)² / sum (o - mean o)².
    """
    seen = np.asarray(measured, dtype=float)
    told = np.asarray(modelled, dtype=float)
    both = ~(np.isnan(seen) | np.isnan(told))
    seen, told = seen[both], told[both]
    if not len(seen):
        return Scores(0, None, None, None, None, None, None)
    total, top = float(seen.sum()), float(seen.max())
    return Scores(
        len(seen),
        nse(seen, told),
        kge(seen, told),
        kge(seen, told, modified=True),
        100 * (float(told.sum()) - total) / total if total else None,
        100 * (float(told.max()) - top) / top if top else None,
        int(told.argmax()) - int(seen.argmax()) if top else None,
    )


def nse(seen: Array, told: Array) -> float | None:
    """Nash-Sutcliffe efficiency; None where nothing has changed."""
    spread = float(((seen - seen.mean()) ** 2).sum())
    if spread <= 0:
        return None
    return 1 - float(((told - seen) ** 2).sum()) / spread


def kge(seen: Array, told: Array, *, modified: bool = False) -> float | None:
    """Kling-Gupta efficiency: 1 - |(r - 1, alpha - 1, beta - 1)|.

    alpha is the ratio of standard deviations (2009), or of coefficients of variation
    (`modified`, 2012); None where one of them is not defined.
    """
    if seen.std() <= 0 or told.std() <= 0 or seen.mean() == 0 or told.mean() == 0:
        return None
    r = float(np.corrcoef(seen, told)[0, 1])
    beta = float(told.mean() / seen.mean())
    alpha = float(told.std() / seen.std())
    if modified:
        alpha /= beta
    return 1 - float(np.sqrt((r - 1) ** 2 + (alpha - 1) ** 2 + (beta - 1) ** 2))
