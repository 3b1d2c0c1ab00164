"""Rain in the forms of others."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_backend.errors import Invalid
from duha_backend.rain.exchange import (
    Series,
    from_csv,
    from_pi,
    from_swmm,
    to_pi,
    to_swmm,
)

T0 = 1_800_000_000.0


def series(values, location="SR-01", step=60.0):
    n = len(values)
    times = T0 + step * np.arange(1, n + 1)
    return Series(
        location, "P.obs", "mm", times, np.array(values, dtype=float),
        np.zeros(n, dtype=int), "Škola", 49.75, 13.37,
    )  # fmt: skip


def test_a_series_as_fews_reads_it():
    made = to_pi([series([0.2, float("nan"), 0.4])])
    (one,) = made["timeSeries"]
    assert one["header"]["timeStep"] == {"unit": "second", "multiplier": "60"}
    assert one["header"]["startDate"] == {"date": "2027-01-15", "time": "08:01:00"}
    assert (one["header"]["stationName"], one["header"]["lat"]) == ("Škola", "49.75")
    assert [event["value"] for event in one["events"]] == ["0.2", "-999.0", "0.4"]
    assert [event["flag"] for event in one["events"]] == ["0", "9", "0"]


depths = st.lists(st.one_of(st.just(float("nan")), st.integers(0, 5000).map(lambda n: n / 100)), max_size=30)  # fmt: skip


@given(depths)
def test_what_is_written_is_read(values):
    (back,) = from_pi(json.dumps(to_pi([series(values)])))
    given_ = series(values)
    assert back.times.tolist() == given_.times.tolist()
    assert np.array_equal(back.values, given_.values, equal_nan=True)
    assert back[:3] == given_[:3]
    assert (back.latitude, back.accumulative) == (49.75, True)


def test_values_that_fews_calls_unreliable_are_missing():
    made = to_pi([series([3.0, 3.0, 3.0])])
    events = made["timeSeries"][0]["events"]
    for event, flag in zip(events, ("0", "6", "9"), strict=True):
        event["flag"] = flag
    (back,) = from_pi(json.dumps(made))
    assert back.values.tolist()[0] == 3.0
    assert np.isnan(back.values[1:]).all()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000,
        '{"timeSeries": 5}',
        '["x"]',
        '{"timeSeries": [["x"]]}',
        '{"timeSeries": [{"header": {"locationId": "a", "parameterId": "P", "lat": "1e999"}}]}',
        '{"timeZone": "1e300", "timeSeries": []}',
    ],
)
def test_what_is_no_pi_document_is_refused(text):
    with pytest.raises(Invalid):
        from_pi(text)


@pytest.mark.parametrize(
    ("read", "text", "named"),
    [
        (from_csv, "gauge,time,rain_mm\na,2026-01-01T00:00Z,inf", "row 2"),
        (from_csv, "gauge,time,rain_mm\na,2026-01-01T00:00Z", "row 2"),
        (from_csv, "gauge,time,rain_mm\n" + "x" * 200_000, "row"),
        (from_csv, "x" * 200_000, "row 1"),
        (from_swmm, "A 99999999999 1 1 0 0 1.0", "line 1"),
        (from_swmm, "A 2026 1 1 0 0 1e999", "line 1"),
    ],
)
def test_a_row_that_cannot_be_is_named(read, text, named):
    with pytest.raises(Invalid, match=named):
        read(text)


def test_times_of_another_zone_are_put_right():
    made = to_pi([series([0.2])])
    made["timeZone"] = "1.0"
    (back,) = from_pi(json.dumps(made))
    assert back.times.tolist() == [T0 + 60 - 3600]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.pop("timeSeries"), "no PI-JSON"),
        (lambda d: d["timeSeries"][0]["header"].pop("locationId"), "series 1"),
        (
            lambda d: d["timeSeries"][0]["events"][1].update(value="much"),
            "SR-01.*event 2",
        ),
        (lambda d: d["timeSeries"][0]["events"][0].update(date="1. 1."), "event 1"),
    ],
)
def test_what_is_no_pi_json_is_named(change, named):
    made = to_pi([series([0.2, 0.4])])
    change(made)
    with pytest.raises(Invalid, match=named):
        from_pi(json.dumps(made))
    with pytest.raises(Invalid, match="no PI-JSON"):
        from_pi(b"[]")


def test_wet_steps_for_swmm():
    text = to_swmm([series([0.2, 0.0, float("nan"), 1.4]), series([0.0], "SR-02")])
    assert text.splitlines() == [
        "SR-01 2027 01 15 08 00 0.2000",
        "SR-01 2027 01 15 08 03 1.4000",
    ]
    assert to_swmm([]) == ""


@pytest.mark.parametrize(
    ("read", "text", "why"),
    [
        (from_csv, "a,b\n1,2\n", "the header has gauge"),
        (from_csv, "gauge,time,rain_mm\nG,yesterday,1\n", "row 2"),
        (from_csv, "gauge,time,rain_mm\nG,2026-01-01T00:00,much\n", "row 2"),
        (from_swmm, "G 2026 13 1 0 0 1.0\n", "line 1"),
        (from_swmm, "G 2026 1 1 0 1.0\n", "line 1"),
    ],
)
def test_what_is_no_rain_of_others_is_refused(read, text, why):
    with pytest.raises(Invalid, match=why):
        read(text)


def test_a_swmm_file_comes_back_as_it_went():
    times = np.arange(1, 6) * 60.0 + 1_782_864_000
    went = Series(
        "G",
        "P.obs",
        "mm",
        times,
        np.array([0.2, 0.0, 0.4, 0.0, 1.0]),
        np.zeros(5, dtype=int),
    )
    (back,) = from_swmm(to_swmm([went]))
    wet = went.values > 0
    assert back.times.tolist() == times[wet].tolist()
    assert back.values.tolist() == went.values[wet].tolist()
