"""Against two independent implementations: an almanac by PyEphem, and astral."""

import csv
import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import astral
import astral.sun
import pytest

from duha_contract import sun

PLACES = [
    ("Plzeň", 49.7475, 13.3776),
    ("Stockholm", 59.3293, 18.0686),
    ("Quito", -0.1807, -78.4678),
    ("Sydney", -33.8688, 151.2093),
    ("Suva", -18.1416, 178.4419),
]


@pytest.mark.parametrize(("name", "latitude", "longitude"), PLACES)
def test_a_year_of_nights_agrees_with_astral(name, latitude, longitude):
    observer = astral.Observer(latitude, longitude)
    for day in range(0, 365, 5):
        date = dt.date(2026, 1, 1) + dt.timedelta(days=day)
        night = sun.night(date, latitude, longitude)
        assert night is not None
        for moment, event in ((night.sunset, "sunset"), (night.sunrise, "sunrise")):
            near = dt.datetime.fromtimestamp(moment, dt.UTC)
            candidates = [
                getattr(astral.sun, event)(
                    observer, near.date() + dt.timedelta(days=shift)
                ).timestamp()
                for shift in (-1, 0, 1)
            ]
            assert min(abs(c - moment) for c in candidates) < 60


ALMANAC = Path(__file__).parent / "almanac" / "almanac.csv"  # make.py there says how


@pytest.mark.parametrize("city", ["Plzen", "Stockholm", "Quito", "Sydney", "Reykjavik"])
def test_a_year_of_nights_is_within_a_minute_of_the_almanac(city):
    with ALMANAC.open() as file:
        rows = [row for row in csv.DictReader(file) if row["city"] == city]
    assert len(rows) == 73
    for row in rows:
        place = float(row["latitude"]), float(row["longitude"])
        sunset, sunrise = (
            dt.datetime.fromisoformat(row[name]).timestamp()
            for name in ("sunset", "sunrise")
        )
        local = dt.datetime.fromtimestamp(sunset + place[1] * 240 - 6 * 3600, dt.UTC)
        night = sun.night(local.date(), *place)
        assert night is not None
        for ours, theirs in ((night.sunset, sunset), (night.sunrise, sunrise)):
            assert abs(ours - theirs) <= 60, row


def test_the_night_is_the_one_that_begins_on_that_evening():
    zone = ZoneInfo("Europe/Prague")
    night = sun.night(dt.date(2026, 11, 23), 49.7475, 13.3776)
    assert night is not None
    sunset = dt.datetime.fromtimestamp(night.sunset, zone)
    sunrise = dt.datetime.fromtimestamp(night.sunrise, zone)
    assert (sunset.day, sunset.hour) == (23, 16)
    assert (sunrise.day, sunrise.hour) == (24, 7)


def test_polar_night_and_day_have_no_sunset():
    assert sun.night(dt.date(2026, 12, 21), 69.65, 18.96) is None
    assert sun.night(dt.date(2026, 6, 21), 69.65, 18.96) is None


def test_elevation_agrees_with_astral():
    observer = astral.Observer(49.7475, 13.3776)
    for hour in range(24):
        moment = dt.datetime(2026, 5, 3, hour, tzinfo=dt.UTC)
        theirs = astral.sun.elevation(observer, moment, with_refraction=False)
        assert sun.elevation(moment.timestamp(), 49.7475, 13.3776) == pytest.approx(
            theirs, abs=0.05
        )
