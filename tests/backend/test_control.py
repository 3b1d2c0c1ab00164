"""What controllers are told: documents, overrides, wet roads."""

import msgspec
import pytest

from duha_backend.control import Control
from duha_backend.errors import Conflict, Invalid, NotFound, Refused
from duha_backend.lighting.inventory import Asset, Group, Stretch
from duha_backend.lighting.wanted import Sensed
from duha_backend.live import Live
from duha_backend.registry import Registry
from duha_backend.validate import Columns
from duha_contract.clock import Clock
from duha_contract.lighting import Override
from duha_contract.messages import Report
from duha_contract.programmes import Calendar, Effect, Period, Place, Programme, Step
from duha_contract.roads import Drying

PLACE = Place(49.7475, 13.3776, "Europe/Prague")
T0 = 1_800_000_000_000
STREET = Programme(
    "p",
    "P",
    (Step("sunset", 60), Step("sunrise", 0)),
    effects=(Effect("wet_road", 100),),
)


def asset(name, kind, cabinet="", street="", shift=0.0):
    return Asset(name, kind, cabinet, "d", street, 49.7475 + shift, 13.3776)


ASSETS = [
    asset("RVO-001", "cabinet"),
    asset("RVO-002", "cabinet", shift=0.05),
    asset("A1", "luminaire", "RVO-001", "Long"),
    asset("A2", "luminaire", "RVO-001", "Short"),
    asset("B1", "luminaire", "RVO-002", "Long", shift=0.05),
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
        self.desk = self.control.desk

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

    async def standing(self, stored):
        await self.control.overrides.refresh()
        return self.control.overrides.find(stored.override.id)

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
    desk.desk.add_override("city", "", override(desk))
    await desk.control.settle()
    again = Control(
        desk.registry, desk.live, Clock(lambda: desk.ms / 1000), PLACE, desk._publish
    )
    await again.settle()
    assert again.desired["RVO-001"].revision == 2


async def test_the_nearest_assignment_wins(desk):
    desk.desk.save(STREET)
    for name in ("city", "cabinet", "lamp"):
        desk.desk.save(Calendar(name, name, "p"))
    desk.desk.assign("*", "city")
    desk.desk.assign("RVO-001", "cabinet")
    desk.desk.assign("A1", "lamp")
    found = await desk.settled()
    assert found["RVO-001"].assignments == {"*": "lamp", "A2": "cabinet"}
    assert found["RVO-002"].assignments == {"*": "city"}


DIM = Programme("dim", "Dim", (Step("sunset", 30),), (Period(),))
FULL = Programme("full", "Full", (Step("sunset", 90),), (Period(),))


def classed(desk):
    """A1 lies in a stretch whose class needs 60 %; its cabinet is dim, it is not."""
    lamps = [a._replace(stretch="s") if a.id == "A1" else a for a in ASSETS]
    desk.live.set_assets(lamps)
    for name, programme in (("dim", DIM), ("full", FULL)):
        desk.desk.save(programme)
        desk.desk.save(Calendar(name, name, name))
    desk.desk.assign("A1", "full")
    desk.desk.assign("*", "dim")
    desk.desk.save(Stretch("s", "S", "M4", levels={"M4": 60.0}))


async def test_a_change_that_would_bring_a_street_below_its_class_is_refused(desk):
    classed(desk)
    for change in (
        lambda: desk.desk.assign("A1", "dim"),
        lambda: desk.desk.assign(
            "A1", None
        ),  # then the city's calendar would be its own
        lambda: desk.desk.save(msgspec.structs.replace(FULL, steps=DIM.steps)),
        lambda: desk.desk.save(Calendar("full", "full", "dim")),
        lambda: desk.desk.save(Stretch("s", "S", "M4", levels={"M4": 95.0})),
    ):
        with pytest.raises(Refused, match="the lighting class needs"):
            change()
    assert desk.registry.assignments() == {"A1": "full", "*": "dim"}


async def test_a_stretch_is_not_held_up_by_streets_that_are_not_its_own(desk):
    classed(desk)
    dark = Programme("dim", "Dim", (Step("sunset", 0),), (Period(),))
    desk.registry.save(dark)  # somehow it has come there
    desk.desk.save(Stretch("s", "S", "M4", levels={"M4": 70.0}))
    desk.desk.save(Stretch("t", "T", "P4"))


async def test_what_is_assigned_to_a_stretch_stays(desk):
    classed(desk)
    desk.desk.assign("stretch:s", "full")
    with pytest.raises(Conflict, match="stretch:s"):
        desk.desk.drop(Stretch, "s")
    desk.desk.assign("A1", None)  # the stretch's own calendar is full, too
    assert desk.desk.wanted().calendar_of(desk.live.assets["A1"]) == "full"


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
    desk.desk.save(Group("g", "G", ("A2", "B1")))
    desk.desk.add_override(kind, target, override(desk))
    found = await desk.settled()
    assert {c: d.overrides[0].devices for c, d in found.items() if d.overrides} == reach


async def test_the_life_of_an_override(desk):
    stored = desk.desk.add_override("cabinet", "RVO-001", override(desk))
    found = await desk.settled()
    standing = await desk.standing(stored)
    assert standing.state == "pending"
    begun = desk.ms
    desk.report("RVO-001", found["RVO-001"], diverged=("A2",))
    standing = await desk.standing(stored)
    assert standing.state == "diverged"
    assert standing.diverged == {"RVO-001": {"A2": begun}}
    desk.report("RVO-001", found["RVO-001"])
    assert (await desk.standing(stored)).state == "applied"
    assert desk.control.decision("A1", desk.ms / 1000).level == 30
    desk.ms += 60 * 60_000
    assert (await desk.standing(stored)).state == "expired"
    after = await desk.settled()
    assert after["RVO-001"].overrides == ()


async def test_a_luminaire_that_does_not_obey_says_since_when(desk):
    desk.desk.add_override("cabinet", "RVO-001", override(desk))
    found = await desk.settled()
    begun = desk.ms
    for _ in range(3):
        desk.report("RVO-001", found["RVO-001"], diverged=("A2",))
        desk.ms += 60_000
    assert desk.live.diverged_since("A2") == begun
    assert desk.live.diverged_since("A1") is None
    desk.report("RVO-001", found["RVO-001"])
    assert desk.live.diverged_since("A2") is None


async def test_an_override_names_the_cabinets_that_have_not_carried_it_out(desk):
    stored = desk.desk.add_override("street", "Long", override(desk))
    found = await desk.settled()
    board = desk.control.overrides
    assert (await desk.standing(stored)).pending == {"RVO-001", "RVO-002"}
    number = board.number
    desk.report("RVO-001", found["RVO-001"])
    standing = await desk.standing(stored)
    assert (standing.pending, standing.state) == ({"RVO-002"}, "pending")
    assert board.number == number + 1  # pages look again
    await board.refresh()
    assert board.number == number + 1  # and not when nothing has happened
    desk.report("RVO-002", found["RVO-002"])
    standing = await desk.standing(stored)
    assert (standing.pending, standing.state) == (set(), "applied")


async def test_a_cancelled_override_is_gone(desk):
    stored = desk.desk.add_override("luminaire", "A1", override(desk))
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
        desk.desk.add_override(kind, target, override(desk, **change))


async def test_a_calendar_names_programmes_that_are_there(desk):
    with pytest.raises(Conflict, match="no programme 'p'"):
        desk.desk.save(Calendar("c", "C", "p"))
    with pytest.raises(NotFound):
        desk.desk.assign("*", "c")
    with pytest.raises(NotFound, match="Z9"):
        desk.desk.save(Group("g", "G", ("Z9",)))


async def test_one_tip_makes_the_roads_near_its_gauge_wet_for_a_while(desk):
    desk.rain("SR-01", 0.2)
    desk.rain("SR-02", 0.0)
    found = await desk.settled()
    assert set(found) == {"RVO-001"}
    (condition,) = found["RVO-001"].conditions
    assert condition.end >= desk.ms + 1000 * Drying().hold_s
    assert condition.detail == "SR-01"
    assert desk.control.roads.state_of("RVO-001", "A1", desk.ms) == "wet"
    assert desk.control.roads.state_of("RVO-002", "B1", desk.ms) == "dry"
    desk.ms = condition.end + 1000
    desk.rain("SR-01", 0.0)
    desk.rain("SR-02", 0.0)
    assert (await desk.settled())["RVO-001"].conditions == ()
    assert desk.control.roads.state_of("RVO-001", "A1", desk.ms) == "dry"


async def test_a_rain_detector_wets_the_roads_and_its_cold_makes_snow(desk):
    values = {"device": ["RD-1"], "ts": [desk.ms], "quality": ["good"],
              "precipitation": [1.0], "temperature_c": [-4.0]}  # fmt: skip
    desk.live.set_assets([*ASSETS, asset("RD-1", "rain_detector", "RVO-001")])
    desk.live.take("RVO-001", [Columns.of("rain_detector", values)])
    desk.rain("SR-01", 0.0)
    desk.rain("SR-02", 0.0)
    assert set(await desk.settled()) == {"RVO-001"}
    assert desk.control.roads.state_of("RVO-001", "A1", desk.ms) == "snow"


async def test_of_several_gauges_near_a_street_one_that_answers_is_enough(tmp_path):
    desk = Desk(tmp_path)
    desk.live.set_assets(
        [*ASSETS, asset("SR-03", "rain_gauge", "RVO-001", shift=0.001)]
    )
    for gauge in ("SR-01", "SR-02", "SR-03"):
        desk.rain(gauge, 0.0)
    await desk.control.settle()
    desk.ms += 16 * 60_000
    desk.rain("SR-03", 0.0)
    found = await desk.settled()
    assert set(found) == {"RVO-002"}  # whose only gauge is silent
    desk.ms += 60_000
    desk.rain("SR-03", 0.4)
    assert (await desk.settled())["RVO-001"].conditions[0].detail == "SR-03"
    desk.registry.close()


async def test_what_was_sensed_reaches_its_target_and_its_neighbours(desk):
    near = desk.desk.near("luminaire", "A1", 300)
    assert near == ["A1", "A2"]  # they stand on one spot here
    given = Sensed("motion", "luminaire", "A1", desk.ms, desk.ms + 60_000, "D-17")
    desk.desk.sense(given)
    found = await desk.settled()
    (condition,) = found["RVO-001"].conditions
    assert (condition.kind, condition.devices) == ("motion", ("A1",))
    desk.ms += 60_000
    assert (await desk.settled())["RVO-001"].conditions == ()
    with pytest.raises(Invalid, match="within an hour"):
        desk.desk.sense(given._replace(end=desk.ms + 2 * 3_600_000))
    with pytest.raises(NotFound, match="Z9"):
        desk.desk.sense(given._replace(target="Z9", end=desk.ms + 1000))


async def test_a_long_rain_does_not_send_a_document_with_each_tip(desk):
    sent = 0
    for _ in range(120):
        desk.ms += 30_000
        desk.rain("SR-01", 0.2)
        desk.rain("SR-02", 0.0)
        sent += len(await desk.settled())
    assert 1 <= sent <= 8  # an hour of rain, moved on in steps of ten minutes


async def test_a_city_without_rain_data_gets_its_normal_light(desk):
    desk.rain("SR-01", 0.0)
    desk.rain("SR-02", 0.0)
    assert await desk.settled() == {}
    desk.ms += 16 * 60_000
    found = await desk.settled()
    assert {d.conditions[0].detail for d in found.values()} == {"no rain data"}
