"""Line protocol, from columns."""

import gzip

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from duha_backend.lines import lines, packed, time_of

T0 = 1_800_000_000_000
NUMBER = st.floats(allow_infinity=False) | st.sampled_from([0.0, 1.0, 60.0, 0.1])


def frame(rows, names):
    n = len(rows)
    found = {
        "device": np.array([f"L{i}" for i in range(n)], dtype=object),
        "ts": T0 + np.arange(n),
        "quality": np.array(["good"] * n, dtype=object),
        "controller": np.array(["RVO-1"] * n, dtype=object),
    }
    values = np.array(rows, dtype=float).reshape(n, len(names))
    return found | {name: values[:, k] for k, name in enumerate(names)}


@given(st.lists(st.tuples(NUMBER, NUMBER, NUMBER), max_size=30))
def test_every_value_is_written_and_nothing_for_no_value(rows):
    names = ("power_w", "voltage_v", "current_a")
    made = lines("luminaire", frame(rows, names))
    assert len(made) == len(rows)
    for n, (line, row) in enumerate(zip(made, rows, strict=True)):
        head, fields, ts = line.split(" ")
        assert head == f"luminaire,controller=RVO-1,device=L{n}"
        assert int(ts) == time_of(line) == T0 + n
        found = dict(field.split("=") for field in fields.split(","))
        assert found.pop("quality") == '"good"'
        known = {k: v for k, v in zip(names, row, strict=True) if not np.isnan(v)}
        assert {k: float(v) for k, v in found.items()} == known


def test_a_row_without_any_field_is_no_line():
    rows = frame([(1.0,), (float("nan"),), (3.0,)], ("power_w",))
    del rows["quality"]
    assert [time_of(line) - T0 for line in lines("luminaire", rows)] == [0, 2]
    assert lines("luminaire", frame([], ("power_w",))) == []


def test_what_is_packed_is_the_lines():
    assert gzip.decompress(packed(["a b 1", "c d 2"])) == b"a b 1\nc d 2"
