import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_contract.quantities import BY_NAME
from duha_edge import profiles
from duha_edge.errors import ConfigError, NotAllowed
from duha_edge.points import MAX_WORDS, blocks, decode, encode, encode_write
from duha_edge.profiles import WORDS, Point

points = st.builds(
    Point,
    quantity=st.just("power_w"),
    table=st.sampled_from(["holding", "input"]),
    address=st.integers(0, 60_000),
    type=st.sampled_from(sorted(WORDS)),
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
    point = Point("power_w", "holding", 7, kind, scale)
    words = encode(point, raw * scale)
    assert decode(point, {7 + i: w for i, w in enumerate(words)}) == pytest.approx(
        raw * scale
    )


def test_a_missing_register_is_no_value():
    assert decode(Point("power_w", "holding", 7, "u32"), {7: 1}) is None


def test_a_sentinel_and_nan_are_no_value():
    point = Point("power_w", "holding", 0, "s16", invalid=0x8000)
    assert decode(point, {0: 0x8000}) is None
    assert decode(Point("power_w", "input", 0, "f32"), {0: 0x7FC0, 1: 0}) is None


def test_words_stand_high_first_and_signs_are_kept():
    assert decode(Point("power_w", "input", 0, "u32"), {0: 1, 1: 2}) == 65_538
    assert decode(Point("power_w", "input", 0, "s16", 0.1), {0: 0xFFF6}) == -1.0
    assert decode(
        Point("power_w", "input", 0, "f32"), {0: 0x4366, 1: 0x6666}
    ) == pytest.approx(230.4, abs=1e-4)


@pytest.mark.parametrize("name", profiles.names())
def test_a_shipped_profile_reads_in_few_requests(name):
    profile = profiles.load(name)
    assert {p.quantity for p in profile.point} <= set(BY_NAME[profile.kind])
    assert len(blocks(profile.point)) <= 3


def test_only_what_the_profile_names_is_written_and_within_its_range():
    profile = profiles.load("luminaire-generic")
    assert encode_write(profile, "level_in_effect_pct", 40) == (0, 40)
    for quantity, value in (("power_w", 1), ("level_in_effect_pct", 101), ("no", 0)):
        with pytest.raises(NotAllowed):
            encode_write(profile, quantity, value)
    with pytest.raises(NotAllowed):
        encode_write(profile, "level_in_effect_pct", math.nan)


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
