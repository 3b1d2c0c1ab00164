"""Rain of others' gauges: read from files and addresses, taken once, never in the way."""

import asyncio
import http.server
import json
import threading

import pytest

from duha_backend.drainage.external import External
from duha_backend.errors import Invalid
from duha_backend.lighting.inventory import Asset
from duha_backend.rain.chmi import read
from duha_backend.readings import rows_of
from tests.backend.wet_city import MINUTE, T0, wet_city

WSI = "0-20000-0-11450"
NOW = T0 + 60 * MINUTE


def document(*rows):
    table = {"header": "STATION,ELEMENT,DT,VAL,FLAG,QUALITY", "values": list(rows)}
    return json.dumps({"data": {"type": "DataCollection", "data": table}})


def row(minutes, mm, element="SRA10M", station=WSI):
    hour, minute = divmod(minutes, 60)
    return [station, element, f"2026-07-01T{hour:02d}:{minute:02d}:00Z", mm, "", ""]


@pytest.fixture
async def city(tmp_path):
    async with wet_city(tmp_path) as made:
        external = Asset("CHMI-1", "rain_gauge", "", "", "", 49.76, 13.38, asset_id=WSI)
        made.registry.put_assets([external])
        made.live.set_assets(made.registry.assets())
        yield made


def taker(city, *sources):
    return External(sources, city.readings, city.live, city.books)


async def test_a_station_is_taken_once_and_only_its_rain(city, tmp_path):
    path = tmp_path / "10m-20260701.json"
    path.write_text(
        document(
            row(10, 0.4),
            row(10, 12.0, "T"),
            row(20, None),
            row(30, 1.2),
            row(10, 9, station="other"),
        )
    )
    external = taker(city, str(tmp_path / "10m-{date}.json"))
    assert await external.take(NOW) == 2
    assert await external.take(NOW) == 0
    frame = await city.readings.window("rain_gauge", "CHMI-1", T0, T0 + 60 * MINUTE)
    assert [(r["ts"] - T0, r["rain_mm"]) for r in rows_of(frame)] == [
        (10 * MINUTE, 0.4),
        (30 * MINUTE, 1.2),
    ]
    await city.until(60)
    gauges = [g.id for g in city.rainfall.gauges]
    rain, _ = await city.rainfall.minutes(T0, T0 + 60 * MINUTE)
    mine = rain[gauges.index("CHMI-1")]
    assert mine[:10].sum() == pytest.approx(0.4)
    assert mine[20:30].sum() == pytest.approx(1.2)


async def test_an_address_is_read(city):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = document(row(10, 0.6)).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            external = taker(city, f"http://127.0.0.1:{server.server_port}/x.json")
            assert await external.take(NOW) == 1
        finally:
            server.shutdown()
            thread.join()
    assert await external.take(NOW) == 0
    assert external.problems, "nobody is there any more"


async def test_a_server_that_answers_no_http_is_a_problem_of_its_own(city):
    async def garbage(_, writer):
        writer.write(b"\x00\xff\x00 nothing of HTTP\r\n" * 200)
        writer.close()

    async with await asyncio.start_server(garbage, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        external = taker(city, f"http://127.0.0.1:{port}/x.json")
        assert await external.take(NOW) == 0
    assert "cannot be read" in next(iter(external.problems.values()))


async def test_a_value_that_cannot_be_hides_nothing_that_follows(city, tmp_path):
    path = tmp_path / "file.json"
    far = [WSI, "SRA10M", "2999-01-01T00:00:00Z", 0.1, "", ""]
    path.write_text(document(far, row(10, 9e9), row(20, 0.4)))
    external = taker(city, str(path))
    assert await external.take(NOW) == 1
    path.write_text(document(row(30, 0.2)))
    assert await external.take(NOW) == 1


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("nonsense", "no open data"),
        ("[" * 50_000, "nested"),
        ('{"a":' * 900 + "1" + "}" * 900, "n"),
        ('{"a": 1}', "no table"),
        ('{"header": "A,B", "values": []}', "no column STATION"),
        (
            '{"header": "STATION,ELEMENT,DT,VAL", "values": [["x","SRA10M","yesterday",1]]}',
            "row 1",
        ),
    ],
)
def test_what_is_no_such_document_is_refused(raw, why):
    with pytest.raises(Invalid, match=why):
        read(raw)


async def test_a_missing_file_is_said_and_nothing_else_happens(city):
    external = taker(city, "/nowhere/file.json")
    assert await external.take(NOW) == 0
    assert "/nowhere/file.json" in external.problems
