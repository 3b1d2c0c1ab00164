import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_contract.clock import Clock, Timeline
from duha_contract.errors import ContractError

numbers = st.floats(-1e10, 1e10)


@given(numbers, numbers, st.floats(0.001, 1e4))
def test_a_timeline_survives_its_text(real, shown, rate):
    line = Timeline(real, shown, rate)
    assert Timeline.parse(str(line)) == line


def test_a_clock_is_shifted_and_sped_up():
    real = [1000.0]
    clock = Clock(lambda: real[0], Timeline(1000.0, 50_000.0, 20.0))
    assert clock.now() == 50_000.0
    real[0] += 3
    assert clock.now() == 50_060.0
    assert clock.now_ms() == 50_060_000
    assert clock.real_seconds(60) == 3.0


@pytest.mark.parametrize("text", ["1:2", "a:b:c", "1:2:0", "1:2:-3"])
def test_a_broken_timeline_is_named(text):
    with pytest.raises(ContractError):
        Timeline.parse(text)
