"""Which alarms there are: TALQ's name, how much it matters, how long it must hold."""

from typing import Literal, NamedTuple

Severity = Literal["high", "medium", "low"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")


class Kind(NamedTuple):
    """One kind of alarm.

    Attributes
    ----------
    code : str
        Its name, TALQ's where TALQ has one.
    severity : str
        How soon somebody must look.
    after_s : float
        It is raised when its condition has held for so long [s].
    off_s : float
        And cleared when the condition has been gone for so long [s].
    """

    code: str
    severity: Severity
    after_s: float
    off_s: float = 60.0


_ALL = (
    # of luminaires
    Kind("lampFailure", "medium", 120),
    Kind("lampUnexpectedOn", "medium", 300),
    Kind("cyclingFailure", "medium", 0, 3600),
    Kind("dimmingFailure", "medium", 300),
    Kind("lampPowerTooHigh", "low", 900),
    Kind("lampPowerTooLow", "low", 900),
    Kind("powerFactorTooLow", "low", 900),
    Kind("supplyVoltageTooHigh", "medium", 300),
    Kind("supplyVoltageTooLow", "medium", 300),
    Kind("currentTooHigh", "medium", 300),
    Kind("highTemperature", "medium", 300, 600),
    Kind("controlGearFailure", "medium", 120),
    Kind("controlGearCommFailure", "medium", 300),
    # of cabinets and their lines
    Kind("supplyLoss", "high", 10),
    Kind("circuitBreakerTripped", "high", 10),
    Kind("leakageDetected", "high", 10, 300),
    Kind("leakageInRain", "medium", 10, 300),
    Kind("switchingErrorOn", "high", 30),
    Kind("switchingErrorOff", "high", 30),
    Kind("localOverride", "medium", 60),
    Kind("cabinetDoorOpen", "medium", 10),
    Kind("segmentFailure", "high", 300, 300),
    # of controllers and data
    Kind("communicationFailure", "high", 120),
    Kind("clockError", "medium", 300),
    Kind("programmeNotApplied", "medium", 300),
    Kind("missingData", "low", 900),
    # of parts of a controller or of the backend, and of what is stored
    Kind("partFailed", "high", 10),
    Kind("documentFailed", "medium", 5),
    # of rain and runoff; the conditions themselves say how long they have held
    Kind("rainGaugeBlocked", "medium", 0, 0),
    Kind("rainGaugeFault", "low", 0, 0),
    Kind("rainDataMissing", "medium", 0, 0),
    Kind("floodStage1", "low", 0, 600),
    Kind("floodStage2", "medium", 0, 600),
    Kind("floodStage3", "high", 0, 600),
    Kind("floodForecast", "medium", 0, 900),
    Kind("modelFailure", "medium", 0, 0),
    Kind("forecastFailure", "low", 0, 0),
)
OF_RAIN = tuple(kind.code for kind in _ALL[-9:])
"""Those that the runoff role finds."""
OF_PROCESS = ("partFailed", "documentFailed")
"""Those that a process of the backend finds in itself; a controller has the first, too."""
KINDS: dict[str, Kind] = {kind.code: kind for kind in _ALL}
