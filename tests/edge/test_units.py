"""Devices behind gateways: few requests, refused registers, groups."""

from hypothesis import given
from hypothesis import strategies as st

from duha_edge import profiles
from duha_edge.executor import together
from duha_edge.pace import Pace
from duha_edge.points import Block
from duha_edge.site import DeviceConfig
from duha_edge.units import Device, Unit

FAST = frozenset(("fast",))


def gateway(profile, places):
    made = profiles.load(profile)
    return Unit(
        5,
        [
            Device(DeviceConfig(f"L{n}", "b", 5, profile, at=at), made.placed(at))
            for n, at in enumerate(places)
        ],
    )


def test_64_lamps_of_a_gateway_are_one_request():
    unit = gateway("bacmove-dalion", [{"channel": 1, "lamp": n} for n in range(64)])
    assert unit.blocks(FAST, 20) == (Block("holding", 128, 64),)


def test_one_read_tells_the_failures_of_a_whole_dali_line():
    unit = gateway("intesis-inmbsdal", [{"channel": 1, "short": n} for n in range(64)])
    blocks = unit.blocks(FAST, 20)
    assert blocks[0] == Block("holding", 7000, 16)  # and the level of ballast 0
    assert len(blocks) == 64
    assert [
        d.profile.point_of("lamp_failure").bit
        for d in (unit.devices[3], unit.devices[19])
    ] == [3, 3]


def test_a_refused_request_is_parted_at_holes_and_then_at_points():
    unit = gateway("luminaire-generic", [{}])
    (whole,) = unit.blocks(FAST)
    assert whole == Block("holding", 0, 11)
    assert unit.learn(whole)
    parts = unit.blocks(FAST)
    assert [b.address for b in parts] == [0, 1, 2, 3, 5, 7, 8, 9, 10]
    assert not unit.learn(parts[3])  # a value of two registers cannot be parted


names = st.sampled_from([f"L{n}" for n in range(8)])


@given(
    st.dictionaries(names, st.sampled_from([0, 40, 100])),
    st.dictionaries(names, st.sampled_from([None, 0, 40, 100])),
    st.lists(st.frozensets(names, min_size=2), max_size=5),
)
def test_a_group_is_written_only_where_everybody_in_it_shall_have_that_level(
    due, commanded, groups
):
    wanted = commanded | due
    members = dict(enumerate(groups))
    chosen, single = together(due, wanted, members)
    served = [name for _, told in chosen for name in told] + single
    assert sorted(served) == sorted(due)  # each due lamp once
    for group, told in chosen:
        levels = {wanted.get(name) for name in members[group]}
        assert levels == {due[name] for name in told}
        assert len(levels) == 1


def test_the_gap_of_a_serial_line_follows_its_measured_turnaround():
    pace = Pace(22 / 9600, 12)
    for n in range(60):
        length = 1 + n % 11
        pace.saw(length, 22 / 9600 * length + 0.080)
    assert pace.settle() == int(0.080 / (22 / 9600))
    assert pace.request_s is not None
    assert abs(pace.request_s - 0.080) < 1e-6


def test_over_a_network_the_cost_of_a_register_is_fitted():
    native, hidden = Pace(None, 125), Pace(None, 125)
    for n in range(200):
        length, noise = 1 + n % 11, 1e-5 * (n * 7 % 5)
        native.saw(length, 0.0006 + noise)
        hidden.saw(length, 0.03 + length * 22 / 9600 + noise)  # a slow line behind it
    assert native.settle() == 125
    assert 11 <= hidden.settle() <= 14


def test_a_gap_does_not_flutter():
    pace = Pace(0.001, 20)
    for _ in range(50):
        pace.saw(1, 0.001 + 0.022)
    assert pace.settle() == 20
