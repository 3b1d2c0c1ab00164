"""What energy costs and causes: declared by the city, never invented."""

import msgspec

from duha_backend.errors import Invalid

UNDIMMED = "the same luminaires undimmed from sunset to sunrise"
BEFORE = "lamps of before"


class Tariff(msgspec.Struct, frozen=True, omit_defaults=True):
    """Price and emission factor of energy, and what savings are measured against.

    Attributes
    ----------
    price_per_kwh, co2_kg_per_kwh : float or None
        Price [`currency`/kWh] and emissions [kg/kWh]; None where nobody has said.
    source : str
        Where both come from: contract, year, authority.
    baseline_w : dict of str to float
        Power [W] of the lamps that stood there before, by type of luminaire; for the
        others the baseline is the same lamp undimmed.
    cabinet_w : float
        What a cabinet takes for itself [W].
    reactive_share : float
        Reactive energy beyond this share of active energy is paid for; 0 is unknown.
    """

    id: str = "energy"
    name: str = ""
    price_per_kwh: float | None = None
    currency: str = "CZK"
    co2_kg_per_kwh: float | None = None
    source: str = ""
    baseline_w: dict[str, float] = {}
    cabinet_w: float = 0.0
    reactive_share: float = 0.0

    @property
    def baseline(self) -> str:
        """The declared baseline in words."""
        if not self.baseline_w:
            return UNDIMMED
        old = ", ".join(
            f"{name} {watts:g} W" for name, watts in self.baseline_w.items()
        )
        return f"{BEFORE}: {old}; others undimmed; from sunset to sunrise"

    def check(self) -> None:
        """Raise Invalid for what cannot be."""
        for value in (
            self.price_per_kwh,
            self.co2_kg_per_kwh,
            *self.baseline_w.values(),
        ):
            if value is not None and value < 0:
                raise Invalid("prices, emissions and powers are not negative")
        if (self.price_per_kwh, self.co2_kg_per_kwh) != (
            None,
            None,
        ) and not self.source:
            raise Invalid("say in `source` where price and emission factor come from")
