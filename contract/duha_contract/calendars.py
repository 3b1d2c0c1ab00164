"""Calendars: which programme a night has, by ordered rules."""

import datetime as dt

import msgspec

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Use `programme` on the nights that every condition covers; an empty one covers any.

    Attributes
    ----------
    first, last : date
        A range of nights; `yearly` compares month and day only, over New Year too.
    weekdays : tuple of str
        ``mon`` to ``sun``: evenings on which the night begins.
    nth : tuple of int
        Which of these weekdays in the month: 1 to 5, -1 for the last one.
    holidays : str
        Country code: public holidays. Whoever compiles the calendar writes their dates
        into `dates`.
    dates : tuple of date
        These nights.
    """

    programme: str
    first: dt.date | None = None
    last: dt.date | None = None
    yearly: bool = False
    weekdays: tuple[str, ...] = ()
    nth: tuple[int, ...] = ()
    holidays: str = ""
    dates: tuple[dt.date, ...] = ()

    def covers(self, night: dt.date) -> bool:
        """Whether the rule speaks of the night that begins on this date."""
        listed = bool(self.dates or self.holidays)
        return (
            self._in_range(night)
            and (not self.weekdays or WEEKDAYS[night.weekday()] in self.weekdays)
            and (not self.nth or bool(_occurrence(night) & set(self.nth)))
            and (not listed or night in self.dates)
        )

    def _in_range(self, night: dt.date) -> bool:
        first, last = self.first or dt.date.min, self.last or dt.date.max
        if not self.yearly:
            return first <= night <= last
        begins, day, ends = (_day(date) for date in (first, night, last))
        if begins <= ends:
            return begins <= day <= ends
        return day >= begins or day <= ends


def _day(date: dt.date) -> tuple[int, int]:
    return (date.month, date.day)


def _occurrence(night: dt.date) -> set[int]:
    """Which of its weekday in the month a date is: 1 to 5, and -1 for the last."""
    last = (night + dt.timedelta(days=7)).month != night.month
    return {(night.day - 1) // 7 + 1} | ({-1} if last else set())


class Calendar(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ordered rules, the first that covers a night wins; else the default."""

    id: str
    name: str
    default: str
    rules: tuple[Rule, ...] = ()

    def rule_of(self, night: dt.date) -> int | None:
        """Number of the rule that speaks of a night, from 1; None for the default."""
        covering = (n for n, rule in enumerate(self.rules, 1) if rule.covers(night))
        return next(covering, None)

    def programme_of(self, night: dt.date) -> str:
        """Id of the programme of a night."""
        number = self.rule_of(night)
        return self.default if number is None else self.rules[number - 1].programme
