"""Energy indicators of EN 13201-5 for a stretch. Pure.

Power density indicator D_P = P / sum(E_i A_i) [W/(lx m²)] and annual energy consumption
indicator D_E = sum(P_j t_j) / A [Wh/(m² a)], EN 13201-5:2015, clauses 5 and 6. Classes M are
stated in luminance; their illuminance is taken as E = L / q0 with q0 = 0.07 cd/(m² lx), the
usual dry asphalt (r-table R3, CIE 144:2001), and marked as converted.
"""

from typing import NamedTuple

from duha_backend.lighting.inventory import MAINTAINED, Stretch

Q0 = 0.07


class Indicators(NamedTuple):
    """Of one stretch; None where class, length, width or energy is not known."""

    stretch: str
    power_w: float
    area_m2: float
    illuminance_lx: float | None
    converted: bool
    density_w_lx_m2: float | None
    annual_wh_m2: float | None


def indicators(stretch: Stretch, power_w: float, annual_wh: float | None) -> Indicators:
    """The indicators of a stretch.

    Parameters
    ----------
    stretch : Stretch
        With its class and size.
    power_w : float
        Power of its luminaires at the level of the normal class [W].
    annual_wh : float or None
        Their own energy in a year [Wh]; None where it is not known.
    """
    area = stretch.length_m * stretch.width_m
    maintained = MAINTAINED.get(stretch.normal)
    converted = stretch.normal.startswith("M")
    lux = None if maintained is None else maintained / Q0 if converted else maintained
    known = area > 0 and lux is not None
    return Indicators(
        stretch.id,
        power_w,
        area,
        lux,
        converted,
        power_w / (lux * area) if known and lux else None,
        annual_wh / area if area > 0 and annual_wh is not None else None,
    )
