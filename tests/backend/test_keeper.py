"""Roll-ups: the present first, and one that fails holds up no other."""

import asyncio

import pytest

from duha_backend import keeper as keeper_module
from duha_backend.books import Books
from duha_backend.duck import DuckReadings
from duha_backend.errors import StoreDown
from duha_backend.keeper import ATTEMPTS, Keeper
from duha_backend.readings import DAY_MS, QUARTER_MS, USUAL
from duha_backend.registry import Registry
from duha_contract.clock import Clock

DAY = 1_799_971_200_000  # midnight UTC


class House:
    """A keeper over real stores; `broken` are starts of steps that cannot be rolled up."""

    def __init__(self, folder):
        self.store = DuckReadings(folder / "r.duckdb")
        self.registry = Registry.in_folder(folder)
        self.books = Books(self.registry.engine)
        self.now_s = (DAY + DAY_MS) / 1000 + 600
        self.rolled: list[tuple[str, int]] = []
        self.broken: dict[int, Exception] = {}
        self.keeper = Keeper(self.store, self.books, USUAL, Clock(lambda: self.now_s))
        real = self.store.roll

        async def roll(kind, step, start):
            self.rolled.append((step, start))
            if start in self.broken and step == "15m":
                raise self.broken[start]
            await real(kind, step, start)

        self.store.roll = roll  # type: ignore[method-assign]

    def mark(self, *quarters):
        self.books.mark([("luminaire", "15m", DAY + n * QUARTER_MS) for n in quarters])

    def marked(self):
        return [(step, start) for _, step, start, _ in self.books.marked()]


@pytest.fixture
async def house(tmp_path):
    made = House(tmp_path)
    yield made
    await made.store.close()
    made.registry.close()


async def test_the_newest_are_worked_out_first_and_a_day_after_its_quarters(house):
    house.mark(3, 9, 5)
    house.books.mark([("luminaire", "15m", DAY - 7 * QUARTER_MS)])
    await house.keeper.tend()
    assert house.rolled == [
        ("15m", DAY + 9 * QUARTER_MS),
        ("15m", DAY + 5 * QUARTER_MS),
        ("15m", DAY + 3 * QUARTER_MS),
        ("15m", DAY - 7 * QUARTER_MS),
    ]
    del house.rolled[:]
    await house.keeper.tend()
    assert house.rolled == [("1d", DAY), ("1d", DAY - DAY_MS)]
    assert house.marked() == []


async def test_many_past_quarters_hold_up_no_new_one(house, monkeypatch):
    monkeypatch.setattr(keeper_module, "TEND_S", 0.3)
    house.mark(*range(-3000, 0))
    await asyncio.wait_for(house.keeper.tend(), 10)
    assert house.keeper.waiting > 1000
    house.mark(40)
    del house.rolled[:]
    await house.keeper.tend()
    assert house.rolled[0] == ("15m", DAY + 40 * QUARTER_MS)


@pytest.mark.parametrize("error", [StoreDown("no memory"), ValueError("a fault")])
async def test_one_that_goes_on_failing_is_set_aside_and_holds_up_no_other(
    house, error
):
    bad = DAY + 50 * QUARTER_MS
    house.broken = {bad: error}
    for n in range(ATTEMPTS + 3):
        house.mark(50 if n == 0 else n, n + 10)
        await house.keeper.tend()
        assert ("15m", DAY + (n + 10) * QUARTER_MS) not in house.marked()
    assert house.rolled.count(("15m", bad)) == ATTEMPTS
    assert house.keeper.failures == ATTEMPTS
    assert len(house.keeper.aside) == 1
    house.mark(50)  # new readings are a new chance
    house.broken = {}
    await house.keeper.tend()
    assert ("15m", bad) not in house.marked()
    assert not house.keeper.aside


async def test_a_store_that_is_down_sets_nothing_aside(house):
    house.mark(*range(20))
    house.broken = {DAY + n * QUARTER_MS: StoreDown("gone") for n in range(20)}
    for _ in range(3 * ATTEMPTS):
        await house.keeper.tend()
    assert not house.keeper.aside
    assert len(house.rolled) < 20 * ATTEMPTS  # it is not asked for each
    house.broken = {}
    await house.keeper.tend()
    await house.keeper.tend()
    assert house.marked() == []


async def test_several_that_fail_do_not_starve_the_others(house):
    house.broken = {DAY + n * QUARTER_MS: StoreDown("no") for n in range(40, 50)}
    house.mark(*range(40, 50), *range(10))
    for _ in range(12):
        await house.keeper.tend()
    left = {start for step, start in house.marked() if step == "15m"}
    assert left == set(house.broken)
