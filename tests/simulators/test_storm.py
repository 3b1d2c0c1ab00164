import pytest

from duha_sim import storm
from duha_sim.streets import PLZEN


def test_the_same_seed_is_the_same_storm():
    assert storm.generate(4, 1000, *PLZEN) == storm.generate(4, 1000, *PLZEN)
    assert storm.generate(4, 1000, *PLZEN) != storm.generate(5, 1000, *PLZEN)


@pytest.mark.parametrize("seed", range(1, 9))
def test_a_storm_arrives_when_it_is_asked_for(seed):
    made = storm.generate(seed, 100_000, *PLZEN)
    before = [made.intensity(100_000 - 60 * m, *PLZEN) for m in range(40, 80)]
    during = [made.intensity(100_000 + 60 * m, *PLZEN) for m in range(90)]
    assert max(before) < 1
    assert 5 < max(during) < 120
    assert 2 < sum(during) / 60 < 60  # mm over the city's centre


def test_a_record_is_replayed_from_the_moment_that_is_asked_for():
    lines = [
        "time,mm_h",
        "2026-06-01T10:00:00+00:00,12",
        "2026-06-01T10:05:00+00:00,3",
        "2026-06-01T10:10:00+00:00,0",
    ]
    replay = storm.read_csv(lines, 5000)
    values = [replay.intensity(t, 0, 0) for t in (4999, 5000, 5299, 5300, 5601)]
    assert values == [0, 12, 12, 3, 0]


@pytest.mark.parametrize(
    "row",
    [
        "yesterday,3",
        "2026-06-01T10:00:00+00:00,much",
        "2026-06-01T10:00:00+00:00,-1",
        "2026-06-01T10:00:00+00:00,nan",
    ],
)
def test_a_broken_record_names_its_row(row):
    with pytest.raises(ValueError, match="row 2"):
        storm.read_csv(["time,mm_h", row], 0)
