"""How fast a backlog leaves, and how much of it is on its way."""

from hypothesis import given
from hypothesis import strategies as st

from duha_edge.drain import (
    FULL_BYTES,
    LARGEST_BYTES,
    SMALLEST_BYTES,
    Drain,
    Window,
    patience_s,
)


def test_a_backlog_goes_at_its_rate_and_never_in_a_burst():
    drain = Drain(per_s=20)
    gone, now = 0, 1000.0
    for _ in range(1000):
        for _ in range(drain.allows(now)):
            drain.took(FULL_BYTES, now)
            gone += 1
        now += 0.01
    assert 195 <= gone <= 20 * 10 + 17


def test_small_batches_are_not_counted_as_full_ones():
    drain = Drain(per_s=20)
    gone, now = 0, 1000.0
    for _ in range(1000):
        for _ in range(drain.allows(now)):
            drain.took(FULL_BYTES // 100, now)
            gone += 1
        now += 0.01
    assert gone > 2000


@given(st.lists(st.integers(-1, 200_000), max_size=200))
def test_a_window_keeps_its_bounds_and_never_closes_for_good(events):
    window = Window()
    for event in events:
        if event < 0:
            window.late()
        else:
            window.acknowledged(event)
        assert 1 <= window.room(0) <= LARGEST_BYTES // FULL_BYTES + 1
        assert window.room(LARGEST_BYTES) == 0


def test_a_window_opens_with_what_arrives_and_closes_with_what_does_not():
    window = Window()
    for _ in range(100):
        window.acknowledged(FULL_BYTES)
    assert window.room(0) == LARGEST_BYTES // FULL_BYTES
    for _ in range(20):
        window.late()
    assert window.room(0) == 1
    assert window.room(SMALLEST_BYTES) == 0


def test_patience_grows_with_what_is_on_the_way():
    assert patience_s(0) == 0
    assert 5 < patience_s(FULL_BYTES) < 30
