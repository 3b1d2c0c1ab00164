"""Clocks that are not set, that jump, and that are smeared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_edge.timekeeper import BACK_S, FORWARD_S, STALE_S, Timekeeper, boot_id

TODAY = 1_795_000_000.0


class Machine:
    """A monotonic clock, and a wall clock that somebody may set."""

    def __init__(self, wall=TODAY, up=1000.0):
        self.up = up
        self.offset = wall - up

    def monotonic(self):
        return self.up

    def wall(self):
        return self.up + self.offset

    def keeper(self, newest=0.0):
        return Timekeeper(self.wall, self.monotonic, newest)


def test_a_clock_of_1970_is_not_trusted_until_it_is_set():
    machine = Machine(wall=5.0)
    keeper = machine.keeper()
    assert not keeper.trusted(keeper.now())
    machine.up += 10
    assert keeper.look() == 0
    machine.offset += TODAY - 15
    assert keeper.look() == pytest.approx(TODAY - 15)
    assert keeper.trusted(keeper.now())
    assert keeper.now() == pytest.approx(TODAY)


def test_a_clock_that_a_power_cut_left_behind_is_not_trusted():
    keeper = Machine().keeper(newest=TODAY)
    assert not keeper.trusted(TODAY - 1800)
    assert keeper.trusted(TODAY + 1)
    # A record of 2099 must not keep the clock from being believed for ever.
    assert Machine().keeper(newest=TODAY + 2 * STALE_S).trusted(TODAY)


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 30),  # time that passes
            st.floats(-BACK_S * 0.9, FORWARD_S * 0.9),  # a change of the wall clock
        ),
        max_size=60,
    )
)
def test_smears_and_small_steps_never_turn_time_back_or_stop_it(steps):
    machine = Machine()
    keeper = machine.keeper()
    before = keeper.now()
    for passed, change in steps:
        machine.up += passed
        ahead = machine.wall() + change - keeper.now()
        if -BACK_S < ahead < FORWARD_S:
            machine.offset += change
        assert keeper.look() == 0
        now = keeper.now()
        assert now - before >= 0.89 * passed
        before = now


def test_a_leap_second_is_worked_off():
    machine = Machine()
    keeper = machine.keeper()
    machine.offset -= 1.0
    for _ in range(120):
        machine.up += 0.3
        keeper.look()
    assert keeper.now() == pytest.approx(machine.wall(), abs=1e-6)


def test_a_boot_has_one_name():
    assert boot_id() == boot_id()
    assert len(boot_id()) == 12
