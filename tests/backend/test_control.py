"""What controllers are told: documents, overrides, wet roads."""

import asyncio
import math
import threading
import time

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from duha_backend import tables
from duha_backend.control import Control
from duha_backend.errors import Conflict, Invalid, NotFound, Refused, RegistryDown
from duha_backend.lighting.inventory import Asset, Group, LuminaireType, Stretch
from duha_backend.lighting.roads import neighbours
from duha_backend.lighting.wanted import Sensed, StoredOverride
from duha_backend.live import Live
from duha_backend.registry import Registry
from duha_backend.validate import Columns
from duha_contract.clock import Clock
from duha_contract.errors import ProgrammeError
from duha_contract.lighting import Override
from duha_contract.messages import MAX_BYTES, Desired, Report, decode, encode
from duha_contract.programmes import (
    Calendar,
    Effect,
    Period,
    Place,
    Programme,
    Rule,
    Step,
)
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


# -- one bad thing, and the others go on -------------------------------------------------


def put_raw(desk, kind, name, body):
    """Write a document as something else may have left it, past every check."""
    with desk.registry.engine.begin() as db:
        row = {"kind": kind, "id": name, "body": body}
        db.execute(sa.insert(tables.document), row)
    desk.control.touch()


async def test_a_calendar_that_cannot_be_evaluated_leaves_its_cabinets_as_they_were(
    desk,
):
    desk.desk.save(STREET)
    desk.desk.save(Calendar("good", "Good", "p"))
    desk.desk.assign("*", "good")
    await desk.settled()
    before = desk.control.desired["RVO-001"]
    bad = msgspec.json.encode(
        Calendar("bad", "Bad", "p", rules=(Rule("p", holidays="XX"),))
    )
    put_raw(desk, "calendar", "bad", bad)
    desk.registry.assign("RVO-001", "bad")
    found = await desk.settled()
    assert found == {}
    assert "RVO-001" in desk.control.problems
    assert desk.control.desired["RVO-001"] == before
    # The other cabinet goes on.
    desk.desk.add_override("cabinet", "RVO-002", override(desk))
    assert set(await desk.settled()) == {"RVO-002"}
    # And once it is mended, everything is as it should be.
    desk.registry.assign("RVO-001", "good")
    await desk.settled()
    assert desk.control.problems == {}


async def test_what_cannot_be_made_is_not_tried_again_each_second(desk, monkeypatch):
    desk.desk.save(STREET)
    desk.desk.save(Calendar("c", "C", "p"))
    desk.desk.assign("*", "c")
    desk.desk.add_override("city", "", override(desk, minutes=1))
    await desk.settled()
    rules = (Rule("p", holidays="XX"),)
    put_raw(
        desk, "calendar", "bad", msgspec.json.encode(Calendar("bad", "B", "p", rules))
    )
    desk.registry.assign("*", "bad")
    await desk.settled()
    assert set(desk.control.problems) == {"RVO-001", "RVO-002"}
    desk.ms += 120_000  # its override is over, and it stands in what they have
    made: list[object] = []
    monkeypatch.setattr(desk.control, "_compile", counted(made, desk.control._compile))
    for _ in range(5):
        await desk.settled()
        desk.ms += 1000
    assert len(made) == 1


async def test_a_cabinet_that_was_taken_out_is_told_nothing_any_more(desk):
    desk.live.set_assets(
        [a for a in ASSETS if a.cabinet != "RVO-002" and a.id != "RVO-002"]
    )
    desk.control.touch()
    await desk.settled()
    assert set(desk.control.desired) == {"RVO-001"}


async def test_an_infinite_length_of_a_stretch_stops_neither_overrides_nor_emergencies(
    desk,
):
    with pytest.raises(Invalid, match="length_m"):
        desk.desk.save(Stretch("s", "S", length_m=float("inf")))
    put_raw(desk, "stretch", "s", b'{"id": "s", "name": "S", "length_m": null}')
    desk.desk.add_override("city", "", override(desk, 100, emergency=True))
    found = await desk.settled()
    assert {o.level for d in found.values() for o in d.overrides} == {100}
    assert [aside.id for aside in desk.registry.set_aside] == ["s"]
    desk.desk.drop(Stretch, "s")  # it can be taken away
    await desk.settled()
    assert desk.registry.all(Stretch) == []


@pytest.mark.parametrize(
    "document",
    [
        Stretch("s", "S", length_m=1e300),
        Stretch("s", "S", width_m=-1),
        LuminaireType("t", "T", 1e300),
        LuminaireType("t", "T", 62, curve=((0, 1), (100, 1e300))),
        LuminaireType("t", "T", 62, curve=((0, 1, 2),)),  # type: ignore[arg-type]
    ],
)
async def test_a_document_that_cannot_be_carried_out_is_refused(desk, document):
    with pytest.raises(Invalid):
        desk.desk.save(document)
    assert desk.registry.all(type(document)) == []


async def test_a_luminaire_without_a_cabinet_is_there_and_nothing_controls_it(tmp_path):
    desk = Desk(tmp_path)
    desk.live.set_assets([*ASSETS, asset("L1", "luminaire")])
    stored = desk.desk.add_override("city", "", override(desk))
    assert set(await desk.settled()) == {"RVO-001", "RVO-002"}
    standing = await desk.standing(stored)
    assert (standing.luminaires, standing.without_control) == (4, 1)
    assert set(standing.reached) == {"RVO-001", "RVO-002"}
    assert desk.control.decision("L1", desk.ms / 1000).reason[0].code == "default"
    desk.registry.close()


async def test_a_controller_that_cannot_be_told_does_not_stop_the_others(desk):
    async def publish(controller, desired):
        if controller == "RVO-001":
            raise RuntimeError("no such topic")
        await desk._publish(controller, desired)

    desk.control._publish = publish
    desk.desk.add_override("city", "", override(desk))
    assert set(await desk.settled()) == {"RVO-002"}
    assert "no such topic" in desk.control.problems["RVO-001"]


async def test_what_could_not_be_stored_is_done_when_it_can(desk, monkeypatch):
    desk.desk.add_override("city", "", override(desk))
    save = desk.registry.save_desired

    def away(*_):
        raise RegistryDown("away")

    monkeypatch.setattr(desk.registry, "save_desired", away)
    with pytest.raises(RegistryDown):
        await desk.control.settle()
    monkeypatch.setattr(desk.registry, "save_desired", save)
    assert set(await desk.settled()) == {"RVO-001", "RVO-002"}


async def test_revisions_go_on_after_a_document_that_cannot_be_read(desk):
    for _ in range(3):
        desk.desk.add_override("city", "", override(desk))
        await desk.settled()
    last = desk.control.desired["RVO-001"].revision
    with desk.registry.engine.begin() as db:
        db.execute(sa.update(tables.desired).values(body=b"null"))
    again = Control(
        desk.registry, desk.live, Clock(lambda: desk.ms / 1000), PLACE, desk._publish
    )
    await again.settle()
    assert again.desired["RVO-001"].revision == last + 1


async def test_a_programme_that_fails_in_some_night_of_the_year_is_refused(desk):
    early = Programme(
        "q",
        "Q",
        (Step("sunset", 60),),
        active=(Period("05:00", "sunrise", early_min=30),),
    )
    with pytest.raises(ProgrammeError):
        desk.desk.save(early)


# -- what is too large to be sent ----------------------------------------------------------


@pytest.fixture
async def wide(tmp_path):
    """A cabinet with so many luminaires that naming most of them takes many bytes."""
    desk = Desk(tmp_path)
    lamps = [asset(f"RVO-001-L{n:04d}", "luminaire", "RVO-001") for n in range(400)]
    desk.live.set_assets([ASSETS[0], *lamps])
    await desk.settled()
    yield desk, ",".join(lamp.id for lamp in lamps[1:])
    desk.registry.close()


async def test_an_override_that_no_document_has_room_for_is_refused_at_once(wide):
    desk, most = wide

    async def forty():
        for _ in range(40):
            desk.desk.add_override("luminaire", most, override(desk))
            await desk.settled()

    with pytest.raises(Invalid, match="RVO-001: its document would have"):
        await forty()
    assert desk.control.problems == {}
    (document,) = desk.control.desired.values()
    assert len(encode(document)) < MAX_BYTES
    assert decode(encode(document), Desired) == document
    # Whole cabinets take no room: the emergency goes through.
    desk.desk.add_override("city", "", override(desk, 100, emergency=True))
    (document,) = (await desk.settled()).values()
    assert document.decide("RVO-001-L0001", desk.ms / 1000).level == 100


async def test_an_input_that_no_document_has_room_for_is_refused_at_once(wide):
    desk, most = wide
    given = Sensed("motion", "luminaire", most, desk.ms, desk.ms + 60_000, "D")

    async def forty():
        for n in range(40):
            desk.desk.sense(given._replace(start=desk.ms + n))
            await desk.settled()

    with pytest.raises(Invalid, match="its document would have"):
        await forty()


async def test_what_came_at_once_and_is_too_much_together_is_left_out_and_named(wide):
    desk, most = wide
    for n in range(40):  # all before any is compiled
        desk.registry.add_override(
            StoredOverride(override(desk, n), "luminaire", most, None)._replace(
                override=msgspec.structs.replace(override(desk, n), id=f"{n:04d}")
            )
        )
    desk.desk.add_override("city", "", override(desk, 100, emergency=True))
    (document,) = (await desk.settled()).values()
    assert len(encode(document)) < MAX_BYTES
    assert any(o.emergency for o in document.overrides)
    assert document.overrides[0].id == "0000"
    assert "left out: override 0039" in desk.control.problems["RVO-001"]


# -- who leads -----------------------------------------------------------------------------


async def test_documents_carry_the_term_of_their_leader(desk):
    await desk.control.lead(True, 3)
    assert {d.term for d in desk.control.desired.values()} == {3}
    desk.desk.add_override("city", "", override(desk))
    assert {d.term for d in (await desk.settled()).values()} == {3}
    desk.sent.clear()
    await desk.control.lead(True, 4)  # a new term: everybody is told
    assert {d.term for _, d in desk.sent} == {4}


async def test_who_may_not_lead_any_more_sends_nothing(tmp_path):
    desk = Desk(tmp_path)
    lapsed = False
    desk.control._lapsed = lambda: lapsed
    await desk.control.lead(True, 1)
    await desk.settled()
    desk.desk.add_override("city", "", override(desk))
    lapsed = True
    assert await desk.settled() == {}
    assert not desk.control.leading
    desk.registry.close()


async def test_who_finds_a_later_term_in_the_registry_sends_nothing(desk):
    await desk.control.lead(True, 1)
    with desk.registry.engine.begin() as db:
        row = {"name": "control", "term": 2, "holder": "another"}
        db.execute(sa.insert(tables.leadership), row)
    desk.desk.add_override("city", "", override(desk))
    assert await desk.settled() == {}


# -- a large city --------------------------------------------------------------------------


async def longest_step(work):
    """The longest time [s] for which some work has kept the loop from anything else."""
    worst, running = 0.0, True

    async def watch():
        nonlocal worst
        last = time.perf_counter()
        while running:
            await asyncio.sleep(0)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now
            await asyncio.sleep(0.001)
            last = time.perf_counter()

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    worst = 0.0
    await work
    running = False
    await watching
    return worst


async def test_states_of_city_wide_overrides_are_kept_and_not_worked_out_for_each_who_asks(
    tmp_path, monkeypatch
):
    desk = Desk(tmp_path)
    cabinets = [asset(f"RVO-{n:03d}", "cabinet") for n in range(170)]
    lamps = [
        asset(f"{cabinet.id}-L{n:03d}", "luminaire", cabinet.id)
        for cabinet in cabinets
        for n in range(100)
    ]
    desk.live.set_assets([*cabinets, *lamps])
    for _ in range(10):
        desk.desk.add_override("city", "", override(desk))
    found = await desk.settled()
    board = desk.control.overrides
    await board.refresh()
    for controller, document in found.items():
        desk.report(controller, document, (f"{controller}-L000",))
    reads: list[object] = []
    counting = counted(reads, desk.registry.engine.connect)
    monkeypatch.setattr(desk.registry.engine, "connect", counting)
    took = await longest_step(board.refresh())
    assert len(reads) == 1  # whether anything was changed
    assert took < 0.25
    assert {s.state for s in board.newest_first()} == {"diverged"}
    assert board.newest_first()[0].luminaires == 17_000
    number = board.number
    desk.report("RVO-000", found["RVO-000"])  # one of 170 obeys: only that is looked at
    began = time.perf_counter()
    board.look()
    assert time.perf_counter() - began < 0.05
    assert board.number == number + 1
    desk.registry.close()


def counted(calls, function):
    def call(*args):
        calls.append(args)
        return function(*args)

    return call


def test_neighbours_are_those_within_the_distance_anywhere_on_earth():
    for latitude, longitude in ((49.7, 13.4), (-43.9, 179.9999), (69.6, 18.9)):
        metre = 1 / 111_195
        east = metre / math.cos(math.radians(latitude))
        lamps = [
            Asset(f"L{n}", "luminaire", "", "", "", latitude + north * metre,
                  (longitude + away * east + 180) % 360 - 180)
            for n, (north, away) in enumerate([(0, 0), (90, 0), (0, 90), (80, 80), (0, 300)])
        ]  # fmt: skip
        assert neighbours(lamps, lamps[:1], 100) == ["L0", "L1", "L2"]
        assert neighbours(lamps, lamps[:1], 0) == ["L0"]
        assert len(neighbours(lamps, lamps, 500)) == 5


def test_neighbours_of_a_whole_city_are_found_quickly():
    rng = np.random.default_rng(1)
    places = rng.uniform(-0.05, 0.05, (17_000, 2))
    lamps = [
        Asset(f"L{n}", "luminaire", "", "", "", 49.7 + a, 13.4 + b)
        for n, (a, b) in enumerate(places.tolist())
    ]
    began = time.perf_counter()
    found = neighbours(lamps, lamps[::2], 50)
    assert time.perf_counter() - began < 5
    assert len(found) > 8_500


async def test_a_programme_is_not_dropped_while_a_calendar_that_names_it_is_judged(
    desk, monkeypatch
):
    desk.desk.save(STREET)
    judged, may_go_on = threading.Event(), threading.Event()
    refuse = desk.desk._refuse_darkness

    def slowly(*args):
        judged.set()
        may_go_on.wait(10)
        refuse(*args)

    monkeypatch.setattr(desk.desk, "_refuse_darkness", slowly)
    calendar = Calendar("c", "C", "p")
    saving = asyncio.create_task(asyncio.to_thread(desk.desk.save, calendar))
    await asyncio.to_thread(judged.wait, 10)
    dropping = asyncio.create_task(asyncio.to_thread(desk.desk.drop, Programme, "p"))
    await asyncio.sleep(0.1)
    assert not dropping.done()
    may_go_on.set()
    await saving
    with pytest.raises(Conflict, match="in use: calendar c"):
        await dropping
