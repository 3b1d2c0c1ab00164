"""Write arctic.csv: every rise and set of the sun by PyEphem in a year, UTC.

    pip install ephem && python make_arctic.py > arctic.csv

The convention is that of make.py. Places where the sun grazes the horizon for days.
"""

import datetime as dt
import math
from zoneinfo import ZoneInfo

import ephem

CITIES = (
    ("Rovaniemi", 66.5, 25.73, "Europe/Helsinki"),
    ("Murmansk", 68.97, 33.09, "Europe/Moscow"),
    ("Tromso", 69.65, 18.96, "Europe/Oslo"),
    ("McMurdo", -77.85, 166.67, "Antarctica/McMurdo"),
)


def events(observer, begin, end):
    for find in (observer.next_setting, observer.next_rising):
        observer.date = begin.astimezone(dt.UTC).replace(tzinfo=None)
        while True:
            try:
                moment = find(ephem.Sun()).datetime().replace(tzinfo=dt.UTC)
            except (ephem.AlwaysUpError, ephem.NeverUpError):
                break
            if moment >= end:
                break
            yield moment
            observer.date = (moment + dt.timedelta(minutes=1)).replace(tzinfo=None)


print("city,latitude,longitude,zone,time")
for name, latitude, longitude, zone in CITIES:
    observer = ephem.Observer()
    observer.lat, observer.lon = math.radians(latitude), math.radians(longitude)
    observer.pressure, observer.horizon = 0, "-0:34"
    found = set()
    for day in range(365):
        date = dt.date(2026, 1, 1) + dt.timedelta(days=day)
        noon, following = (
            dt.datetime(d.year, d.month, d.day, 12, tzinfo=ZoneInfo(zone))
            for d in (date, date + dt.timedelta(days=1))
        )
        found |= set(events(observer, noon, following))
    for moment in sorted(found):
        time = moment.isoformat(timespec="seconds")
        print(name, latitude, longitude, zone, time, sep=",")
