"""Public holidays as dates, by a library that is kept up. Pure.

Controllers know no holidays: the backend writes the dates into the calendars that it
sends, for this year and the next ones.
"""

import datetime as dt
from functools import lru_cache

import holidays
import msgspec

from duha_backend.errors import Invalid
from duha_contract.programmes import Calendar

YEARS_AHEAD = 3


def dated(calendar: Calendar, today: dt.date) -> Calendar:
    """A calendar whose rules for holidays say on which dates those are.

    Raises
    ------
    Invalid
        There is no such country.
    """
    if not any(rule.holidays for rule in calendar.rules):
        return calendar
    years = tuple(range(today.year - 1, today.year + YEARS_AHEAD))
    rules = [
        msgspec.structs.replace(rule, dates=public(rule.holidays, years))
        if rule.holidays
        else rule
        for rule in calendar.rules
    ]
    return msgspec.structs.replace(calendar, rules=tuple(rules))


@lru_cache(maxsize=64)
def public(country: str, years: tuple[int, ...]) -> tuple[dt.date, ...]:
    """Public holidays of a country (ISO 3166: ``CZ``, ``SK``, ``DE``) in some years."""
    try:
        found = holidays.country_holidays(country, years=years)
    except NotImplementedError:
        raise Invalid(f"no holidays of country {country!r} are known") from None
    return tuple(sorted(found))
