"""Against two independent implementations: an almanac by PyEphem, and astral."""

import csv
import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import astral
import astral.sun
import pytest

from duha_contract import sun

DAY_S = 86_400.0


def night(date, latitude, longitude):
    """The night that begins on a date, by a clock that goes with the sun."""
    noon = dt.datetime(date.year, date.month, date.day, 12, tzinfo=dt.UTC).timestamp()
    noon -= longitude * 240
    return sun.night(noon, noon + DAY_S, latitude, longitude)


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
        there = night(date, latitude, longitude)
        assert there is not None
        for moment, event in ((there.sunset, "sunset"), (there.sunrise, "sunrise")):
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
        there = night(local.date(), *place)
        assert there is not None
        for ours, theirs in ((there.sunset, sunset), (there.sunrise, sunrise)):
            assert abs(ours - theirs) <= 60, row


def test_the_night_is_the_one_that_begins_on_that_evening():
    zone = ZoneInfo("Europe/Prague")
    there = night(dt.date(2026, 11, 23), 49.7475, 13.3776)
    assert there is not None
    sunset = dt.datetime.fromtimestamp(there.sunset, zone)
    sunrise = dt.datetime.fromtimestamp(there.sunrise, zone)
    assert (sunset.day, sunset.hour) == (23, 16)
    assert (sunrise.day, sunrise.hour) == (24, 7)


def civil(date, zone):
    following = date + dt.timedelta(days=1)
    return tuple(
        dt.datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(zone)).timestamp()
        for day in (date, following)
    )


@pytest.mark.parametrize(
    ("latitude", "longitude", "zone"),
    [
        pytest.param(1.87, -157.4, "Pacific/Kiritimati", id="Kiritimati"),
        pytest.param(-13.83, -171.77, "Pacific/Apia", id="Apia"),
        pytest.param(-21.14, -175.2, "Pacific/Tongatapu", id="Nuku'alofa"),
        pytest.param(-43.95, -176.56, "Pacific/Chatham", id="Chatham"),
        pytest.param(-18.2, -178.8, "Pacific/Fiji", id="Lau"),
        pytest.param(39.47, 75.99, "Asia/Shanghai", id="Kashgar"),
        pytest.param(51.88, -176.66, "America/Adak", id="Adak"),
        pytest.param(42.88, -8.54, "Europe/Madrid", id="Santiago"),
    ],
)
def test_a_night_lies_between_the_noons_of_a_clock_far_from_the_sun(
    latitude, longitude, zone
):
    for day in range(0, 365, 7):
        noon, next_noon = civil(dt.date(2026, 1, 1) + dt.timedelta(days=day), zone)
        there = sun.night(noon, next_noon, latitude, longitude)
        assert there is not None
        assert noon < there.sunset < there.sunrise < next_noon
        assert sun.darkness(noon, next_noon, latitude, longitude) == (there,)
        assert sun.elevation(there.sunset + 7200, latitude, longitude) < -10
        assert sun.elevation(there.sunrise + 7200, latitude, longitude) > 10


def test_polar_night_lasts_from_noon_to_noon_and_midnight_sun_has_no_night():
    noon, next_noon = civil(dt.date(2026, 12, 21), "Europe/Oslo")
    assert sun.night(noon, next_noon, 69.65, 18.96) == (noon, next_noon)
    assert sun.darkness(noon, next_noon, 69.65, 18.96) == ((noon, next_noon),)
    noon, next_noon = civil(dt.date(2026, 6, 21), "Europe/Oslo")
    assert sun.night(noon, next_noon, 69.65, 18.96) is None
    assert sun.darkness(noon, next_noon, 69.65, 18.96) == ()


ARCTIC = Path(__file__).parent / "almanac" / "arctic.csv"  # make_arctic.py says how


def test_edges_of_polar_night_and_day_are_within_a_minute_of_the_almanac():
    """Every rise and set of a year, where the sun grazes the horizon for minutes."""
    with ARCTIC.open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["city"] for row in rows}) == 4
    for city, zone in {(row["city"], row["zone"]) for row in rows}:
        mine = [row for row in rows if row["city"] == city]
        place = float(mine[0]["latitude"]), float(mine[0]["longitude"])
        ours = []
        for day in range(365):
            noons = civil(dt.date(2026, 1, 1) + dt.timedelta(days=day), zone)
            for part in sun.darkness(*noons, *place):
                ours += [t for t in part if t not in noons]
        theirs = [dt.datetime.fromisoformat(row["time"]).timestamp() for row in mine]
        assert len(ours) == len(theirs)
        late = [abs(a - b) for a, b in zip(sorted(ours), theirs, strict=True)]
        assert max(late) <= 60, city


def test_elevation_agrees_with_astral():
    observer = astral.Observer(49.7475, 13.3776)
    for hour in range(24):
        moment = dt.datetime(2026, 5, 3, hour, tzinfo=dt.UTC)
        theirs = astral.sun.elevation(observer, moment, with_refraction=False)
        assert sun.elevation(moment.timestamp(), 49.7475, 13.3776) == pytest.approx(
            theirs, abs=0.05
        )
