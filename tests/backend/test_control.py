"""What controllers are told: documents, overrides, wet roads."""

import pytest

from duha_backend.control import Control
from duha_backend.errors import Conflict, Invalid, NotFound
from duha_backend.live import Live
from duha_backend.registry import Asset, Group, Registry
from duha_backend.validate import Columns
from duha_backend.wet import WET_HOLD_MS
from duha_contract.clock import Clock
from duha_contract.lighting import Calendar, Override, Place, Programme, Step
from duha_contract.messages import Report

PLACE = Place(49.7475, 13.3776, "Europe/Prague")
T0 = 1_800_000_000_000
STREET = Programme("p", "P", (Step("sunset", 60), Step("sunrise", 0)), wet_level=100)


def asset(name, kind, cabinet="", street="", shift=0.0):
    return Asset(name, kind, cabinet, "d", street, 49.7475 + shift, 13.3776)


ASSETS = [
    asset("RVO-001", "cabinet"),
    asset("RVO-002", "cabinet", shift=0.05),
    asset("A1", "luminaire", "RVO-001", "Long"),
    asset("A2", "luminaire", "RVO-001", "Short"),
    asset("B1", "luminaire", "RVO-002", "Long"),
    asset("SR-01", "rain_gauge", "RVO-001"),
    asset("SR-02", "rain_gauge", "RVO-002", shift=0.05),
]


class Desk:
    """A control room over a fresh registry, with a clock that is set by hand."""

    def __init__(self, folder):
        self.ms = T0
        self.sent = []
        self.registry = Registry.in_folder(folder)
        self.live = Live(ASSETS)
        clock = Clock(lambda: self.ms / 1000)
        self.control = Control(self.registry, self.live, clock, PLACE, self._publish)

    async def _publish(self, controller, desired):
        self.sent.append((controller, desired))

    async def settled(self):
        self.sent.clear()
        await self.control.settle()
        return dict(self.sent)

    def rain(self, gauge, mm, age_ms=0):
        ts = self.ms - age_ms
        values = {"device": [gauge], "ts": [ts], "quality": ["good"], "rain_mm": [mm]}
        owner = self.live.assets[gauge].cabinet
        self.live.take(owner, [Columns.of("rain_gauge", values)])

    def report(self, controller, desired, diverged=()):
        report = Report(self.ms, desired.revision, desired.hash, 1, diverged)
        self.live.reported(controller, [report])


@pytest.fixture
async def desk(tmp_path):
    made = Desk(tmp_path)
    await made.control.settle()
    yield made
    made.registry.close()


def override(desk, level=30, minutes=60, **more):
    return Override("", level, desk.ms, desk.ms + minutes * 60_000, **more)


async def test_every_cabinet_gets_a_document_once(tmp_path):
    desk = Desk(tmp_path)
    first = await desk.settled()
    assert {c: d.revision for c, d in first.items()} == {"RVO-001": 1, "RVO-002": 1}
    assert await desk.settled() == {}
    desk.registry.close()


async def test_revisions_go_on_after_a_restart(desk, tmp_path):
    desk.control.save_programme(STREET)
    await desk.control.settle()
    again = Control(
        desk.registry, desk.live, Clock(lambda: desk.ms / 1000), PLACE, desk._publish
    )
    await again.settle()
    assert again.desired["RVO-001"].revision == 2


async def test_the_nearest_assignment_wins(desk):
    desk.control.save_programme(STREET)
    for name in ("city", "cabinet", "lamp"):
        desk.control.save_calendar(Calendar(name, name, "p"))
    desk.control.assign("*", "city")
    desk.control.assign("RVO-001", "cabinet")
    desk.control.assign("A1", "lamp")
    found = await desk.settled()
    assert found["RVO-001"].assignments == {"A1": "lamp", "A2": "cabinet"}
    assert found["RVO-002"].assignments == {"B1": "city"}


@pytest.mark.parametrize(
    ("kind", "target", "reach"),
    [
        ("luminaire", "A1", {"RVO-001": ("A1",)}),
        ("cabinet", "RVO-001", {"RVO-001": None}),
        ("street", "Long", {"RVO-001": ("A1",), "RVO-002": None}),
        ("group", "g", {"RVO-001": ("A2",), "RVO-002": None}),
        ("city", "", {"RVO-001": None, "RVO-002": None}),
    ],
)
async def test_an_override_reaches_whom_it_names_and_nobody_else(
    desk, kind, target, reach
):
    desk.control.save_group(Group("g", "G", ("A2", "B1")))
    desk.control.add_override(kind, target, override(desk))
    found = await desk.settled()
    assert {c: d.overrides[0].devices for c, d in found.items() if d.overrides} == reach


async def test_the_life_of_an_override(desk):
    stored = desk.control.add_override("cabinet", "RVO-001", override(desk))
    found = await desk.settled()
    assert desk.control.state_of(stored) == "pending"
    desk.report("RVO-001", found["RVO-001"], diverged=("A2",))
    assert desk.control.state_of(stored) == "diverged"
    assert desk.control.diverged(desk.control.members("cabinet", "RVO-001")) == ["A2"]
    desk.report("RVO-001", found["RVO-001"])
    assert desk.control.state_of(stored) == "applied"
    assert desk.control.decision("A1", desk.ms / 1000).level == 30
    desk.ms += 60 * 60_000
    assert desk.control.state_of(stored) == "expired"
    after = await desk.settled()
    assert after["RVO-001"].overrides == ()


async def test_a_cancelled_override_is_gone(desk):
    stored = desk.control.add_override("luminaire", "A1", override(desk))
    await desk.settled()
    desk.registry.cancel_override(stored.override.id, desk.ms)
    desk.control.touch()
    assert (await desk.settled())["RVO-001"].overrides == ()
    with pytest.raises(NotFound):
        desk.registry.cancel_override(stored.override.id, desk.ms)


@pytest.mark.parametrize(
    ("kind", "target", "change", "error"),
    [
        ("luminaire", "A1", {"level": 101}, Invalid),
        ("luminaire", "A1", {"minutes": -1}, Invalid),
        ("luminaire", "A1", {"minutes": 60 * 24 * 8}, Invalid),
        ("luminaire", "Z9", {}, NotFound),
        ("group", "none", {}, NotFound),
    ],
)
async def test_an_override_that_cannot_be_is_refused(desk, kind, target, change, error):
    with pytest.raises(error):
        desk.control.add_override(kind, target, override(desk, **change))


async def test_a_calendar_names_programmes_that_are_there(desk):
    with pytest.raises(Conflict, match="no programme 'p'"):
        desk.control.save_calendar(Calendar("c", "C", "p"))
    with pytest.raises(NotFound):
        desk.control.assign("*", "c")
    with pytest.raises(NotFound, match="Z9"):
        desk.control.save_group(Group("g", "G", ("Z9",)))


async def test_rain_makes_the_roads_of_the_nearest_cabinet_wet_for_a_while(desk):
    desk.rain("SR-01", 0.2)
    desk.rain("SR-02", 0.0)
    assert await desk.settled() == {}  # one tip is not yet rain
    desk.ms += 60_000
    desk.rain("SR-01", 0.2)
    found = await desk.settled()
    assert set(found) == {"RVO-001"}
    (condition,) = found["RVO-001"].conditions
    assert condition.end == desk.ms + WET_HOLD_MS
    assert condition.detail == "SR-01"
    desk.ms = condition.end + 1000
    desk.rain("SR-01", 0.0)
    desk.rain("SR-02", 0.0)
    assert (await desk.settled())["RVO-001"].conditions == ()


async def test_a_long_rain_does_not_send_a_document_with_each_tip(desk):
    sent = 0
    for _ in range(120):
        desk.ms += 30_000
        desk.rain("SR-01", 0.2)
        desk.rain("SR-02", 0.0)
        sent += len(await desk.settled())
    assert 1 <= sent <= 7  # an hour of rain, moved on in steps of ten minutes


async def test_a_city_without_rain_data_gets_its_normal_light(desk):
    desk.rain("SR-01", 0.0)
    desk.rain("SR-02", 0.0)
    assert await desk.settled() == {}
    desk.ms += 16 * 60_000
    found = await desk.settled()
    assert {d.conditions[0].detail for d in found.values()} == {"no rain data"}
