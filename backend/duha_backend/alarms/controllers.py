"""What is wrong with a controller, by what it says and does. Pure."""

from duha_backend.live import Controller
from duha_contract.messages import Desired

MOST_SKEW_S = 5.0
PART_FAILED = "part "
"""How a controller's sentence about a failing part of its own begins."""


def clock_error(known: Controller) -> tuple[bool, str]:
    """Whether the clock of a controller is wrong, and by how much."""
    skew: float | None = getattr(known, "clock_skew_s", None)
    if skew is not None and abs(skew) > MOST_SKEW_S:
        return True, f"{skew:+.0f} s"
    return known.status is not None and known.status.clock == "unset", ""


def failed_parts(known: Controller) -> str:
    """What a controller says of parts of its own that fail."""
    said = known.status.alarms if known.status is not None else ()
    return "; ".join(one for one in said if one.startswith(PART_FAILED))[:300]


def late(known: Controller, wanted: Desired | None) -> bool:
    """Whether a controller has not reported the document that it shall carry out."""
    return wanted is not None and (
        known.report is None or known.report.hash != wanted.hash
    )
