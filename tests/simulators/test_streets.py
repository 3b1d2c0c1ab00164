import json

import pytest

from duha_contract.topics import is_id
from duha_sim import streets


@pytest.mark.parametrize(
    ("cabinets", "luminaires", "gauges"),
    [(1, 1, 1), (4, 60, 6), (9, 250, 3), (2, 13, 0)],
)
def test_a_city_has_what_was_ordered(cabinets, luminaires, gauges):
    city = streets.generate(cabinets, luminaires, gauges)
    devices = [d for c in city.cabinets for d in c.devices]
    count = {
        k: sum(d.kind == k for d in devices)
        for k in ("luminaire", "meter", "rain_gauge")
    }
    assert count == {
        "luminaire": cabinets * luminaires,
        "meter": cabinets,
        "rain_gauge": gauges,
    }
    assert len({d.id for d in devices}) == len(devices)
    assert all(is_id(d.id) for d in devices)
    addresses = [(c.id, d.bus, d.unit) for c in city.cabinets for d in c.devices]
    assert len(set(addresses)) == len(addresses)
    assert all(1 <= d.unit <= 247 for d in devices)
    assert all(
        abs(d.latitude - 49.7475) < 0.1 and abs(d.longitude - 13.3776) < 0.1
        for d in devices
    )


def test_the_last_cabinets_have_serial_lines():
    city = streets.generate(4, rtu=1)
    assert [c.buses[0].type for c in city.cabinets] == ["tcp", "tcp", "tcp", "rtu"]


def test_the_plan_is_geojson():
    plan = json.loads(json.dumps(streets.geojson(streets.generate(2, 10, 2))))
    kinds = [f["properties"]["kind"] for f in plan["features"]]
    assert kinds.count("luminaire") == 20
    assert kinds.count("street") == 12
