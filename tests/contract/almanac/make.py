"""Write almanac.csv anew: rise and set of the sun by PyEphem, whole minutes UTC.

    pip install ephem && python tests/contract/almanac/make.py > tests/contract/almanac/almanac.csv

PyEphem (libastro, VSOP87) with the convention of the United States Naval Observatory:
upper limb, refraction 34', no air pressure. It knows nothing of Duha's formulas.
"""

import datetime as dt
import math

import ephem

CITIES = (
    ("Plzen", 49.7475, 13.3776),
    ("Stockholm", 59.3293, 18.0686),
    ("Quito", -0.1807, -78.4678),
    ("Sydney", -33.8688, 151.2093),
    ("Reykjavik", 64.1466, -21.9426),
)


def rounded(moment):
    time = moment.datetime() + dt.timedelta(seconds=30)
    return time.strftime("%Y-%m-%dT%H:%MZ")


print("city,latitude,longitude,sunset,sunrise")
for name, latitude, longitude in CITIES:
    observer = ephem.Observer()
    observer.lat, observer.lon = math.radians(latitude), math.radians(longitude)
    observer.pressure, observer.horizon = 0, "-0:34"
    for day in range(0, 365, 5):
        noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
        noon += dt.timedelta(days=day, hours=-longitude / 15)
        observer.date = noon.replace(tzinfo=None)
        sunset = observer.next_setting(ephem.Sun())
        observer.date = sunset
        sunrise = observer.next_rising(ephem.Sun())
        print(name, latitude, longitude, rounded(sunset), rounded(sunrise), sep=",")
