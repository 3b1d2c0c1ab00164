import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_contract.quantities import BY_NAME
from duha_edge import profiles
from duha_edge.errors import ConfigError, NotAllowed
from duha_edge.points import (
    MAX_WORDS,
    blocks,
    decode,
    decoder,
    encode,
    register_write,
    worth_reading,
)
from duha_edge.profiles import Fence, Order, Point

points = st.builds(
    Point,
    quantity=st.just("power_w"),
    table=st.sampled_from(["holding", "input"]),
    address=st.integers(0, 60_000),
    type=st.sampled_from(["u16", "s32", "f32", "u64"]),
)


@given(st.lists(points, min_size=1, max_size=60), st.integers(0, 40))
def test_blocks_cover_every_point_once_within_the_limits(wanted, gap):
    made = blocks(wanted, gap)
    assert all(1 <= block.length <= MAX_WORDS for block in made)
    for point in wanted:
        covering = [
            block
            for block in made
            if block.table == point.table
            and block.address <= point.address
            and point.address + point.words <= block.address + block.length
        ]
        assert len(covering) == 1


@given(
    st.sampled_from(["u16", "s16", "u32", "s32"]),
    st.sampled_from([1.0, 0.1, 0.01]),
    st.integers(0, 30_000),
)
def test_a_value_survives_its_registers(kind, scale, raw):
    point = Point("power_w", 7, "holding", kind, scale=scale)
    words = encode(point, raw * scale)
    assert decode(point, {7 + i: w for i, w in enumerate(words)}) == pytest.approx(
        raw * scale
    )


def test_a_missing_register_is_no_value():
    assert decode(Point("power_w", 7, "holding", "u32"), {7: 1}) is None


def test_a_sentinel_and_nan_are_no_value():
    point = Point("power_w", 0, "holding", "s16", invalid=(0x8000,))
    assert decode(point, {0: 0x8000}) is None
    assert decode(Point("power_w", 0, "input", "f32"), {0: 0x7FC0, 1: 0}) is None


def test_words_stand_high_first_and_signs_are_kept():
    assert decode(Point("power_w", 0, "input", "u32"), {0: 1, 1: 2}) == 65_538
    assert decode(Point("power_w", 0, "input", "s16", scale=0.1), {0: 0xFFF6}) == -1.0
    assert decode(
        Point("power_w", 0, "input", "f32"), {0: 0x4366, 1: 0x6666}
    ) == pytest.approx(230.4, abs=1e-4)


@pytest.mark.parametrize("name", profiles.names())
def test_a_shipped_profile_is_read_in_few_requests(name):
    profile = profiles.load(name)
    assert {p.quantity for p in profile.point} <= set(BY_NAME[profile.kind])
    made = blocks(profile.point, fences=profile.fence, alone=profile.alone)
    assert len(made) <= (len(profile.point) if profile.alone else 6)


@given(
    st.sampled_from(["u32", "s32", "u64", "f32"]),
    st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]),
    st.integers(0, 2**23),
)
def test_a_value_survives_every_order_of_its_bytes(kind, order, raw):
    point = Point("power_w", 7, "input", kind, order)
    words = encode(point, raw)
    assert decode(point, {7 + i: w for i, w in enumerate(words)}) == raw


@given(
    st.sampled_from(["u16", "s16", "u32", "s32", "u64", "f32"]),
    st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]),
    st.sampled_from([(1.0, 0.0), (0.1, 0.0), (0.5, -40.0)]),
    st.lists(
        st.sampled_from([0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x1234]), min_size=4, max_size=4
    ),
    st.sets(st.integers(0, 3)),
    st.sampled_from([None, 0, 15]),
)
def test_the_quick_way_says_what_the_long_way_says(
    kind, order, scale, words, lost, bit
):
    bit = bit if kind == "u16" else None
    point = Point(
        "power_w",
        7,
        "input",
        kind,
        order,
        scale=scale[0],
        offset=scale[1],
        bit=bit,
        invalid=(0x8000, 0xFFFFFFFF),
    )
    read = {7 + i: word for i, word in enumerate(words) if i not in lost}
    assert decoder(point)(read) == decode(point, read)


def test_the_orders_are_those_of_the_trade():
    """12.5 as a float is 41 48 00 00."""
    orders: list[tuple[Order, list[int]]] = [
        ("ABCD", [0x4148, 0x0000]),
        ("CDAB", [0x0000, 0x4148]),
        ("BADC", [0x4841, 0x0000]),
        ("DCBA", [0x0000, 0x4841]),
    ]
    for order, words in orders:
        assert encode(Point("power_w", 0, "input", "f32", order), 12.5) == words


fences = st.lists(
    st.builds(
        lambda table, first, length: Fence(table, first, first + length),
        st.sampled_from(["holding", "input"]),
        st.integers(0, 400),
        st.integers(0, 20),
    ),
    max_size=4,
)
near = st.builds(
    Point,
    quantity=st.just("power_w"),
    address=st.integers(0, 400),
    table=st.sampled_from(["holding", "input"]),
    type=st.sampled_from(["u16", "u32", "u64"]),
)


@given(
    st.lists(near, min_size=1, max_size=40),
    fences,
    st.integers(0, 125),
    st.integers(4, 125),
)
def test_no_request_crosses_a_fence_or_a_limit(wanted, standing, gap, most):
    made = blocks(wanted, gap, fences=standing, max_words=most)
    lie = {(p.table, p.address + i) for p in wanted for i in range(p.words)}
    for block in made:
        assert block.length <= most
        for fence in standing:
            touched = {
                (block.table, a)
                for a in range(block.address, block.address + block.length)
                if block.table == fence.table and fence.first <= a <= fence.last
            }
            assert touched <= lie  # only where a point itself lies behind the fence


@pytest.mark.parametrize(
    ("baud", "turnaround_s", "registers"),
    [
        (9600, 0.005, 12),
        (9600, 0.02, 18),
        (19_200, 0.005, 14),
        (19_200, 0.02, 27),
        (115_200, 0.005, 51),
        (115_200, 0.02, 125),
    ],
)
def test_the_hole_that_is_worth_reading_is_that_of_the_arithmetic(
    baud, turnaround_s, registers
):
    assert abs(worth_reading(baud, turnaround_s) - registers) <= 1


def test_only_what_the_profile_names_is_written_and_within_its_range():
    profile = profiles.load("luminaire-generic")

    def written(quantity, value):
        return register_write(profile.point_of(quantity), profile.name, quantity, value)

    assert written("level_in_effect_pct", 40)[:2] == (0, 40)
    for quantity, value in (("power_w", 1), ("level_in_effect_pct", 101), ("no", 0)):
        with pytest.raises(NotAllowed):
            written(quantity, value)
    with pytest.raises(NotAllowed):
        written("level_in_effect_pct", math.nan)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name = 1", "str"),
        ('name="x"\nkind="toaster"\ntitle="T"\npoint=[]', "toaster"),
        (
            'name="x"\nkind="meter"\ntitle="T"\n[[point]]\nquantity="love"\n'
            'table="input"\naddress=1\ntype="u16"',
            "love",
        ),
        ("[[", "profile"),
    ],
)
def test_a_broken_profile_is_named(text, named):
    with pytest.raises(ConfigError, match=named):
        profiles.parse(text)
