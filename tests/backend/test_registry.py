"""The registry on SQLite and on PostgreSQL: one suite, real databases."""

import contextlib
import json
import os
import signal
import sqlite3
import threading
import time

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st

from duha_backend import database, tables
from duha_backend.alarms.channels import Channel
from duha_backend.assets import ASSET_KINDS, PHASES, parse, to_csv, to_geojson
from duha_backend.books import Books
from duha_backend.database import Gate
from duha_backend.errors import Conflict, Invalid, NotFound, RegistryDown, Stale
from duha_backend.leader import LEASE_S, TAKE_OVER_S, Leadership
from duha_backend.lighting.inventory import Asset, Group, LuminaireType, Stretch
from duha_backend.lighting.wanted import Sensed, StoredOverride
from duha_backend.registry import Registry, User, tag
from duha_backend.validate import Examined, Reject
from duha_contract.lighting import Override
from duha_contract.messages import Batch, Desired, Event
from duha_contract.programmes import Effect, Place, Programme
from duha_sim.streets import generate, geojson
from tests import servers


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with servers.postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.system)])
def url(request, tmp_path):
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/registry.db"
        return
    server = request.getfixturevalue("server")
    yield from fresh_database(server)


def fresh_database(server):
    name = f"t{time.time_ns()}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(sa.text(f"CREATE DATABASE {name}"))
    yield server.rsplit("/", 1)[0] + f"/{name}"
    with engine.connect() as db:
        db.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def registry(url):
    made = Registry(url)
    yield made
    made.close()


def asset(n, **more):
    place = {"latitude": 49.7 + n / 1e4, "longitude": 13.3}
    return Asset(**{"id": f"L{n}", "kind": "luminaire", "cabinet": "", "district": "",
                    "street": ""} | place | more)  # fmt: skip


def test_migrations_lead_to_the_present_tables(registry):
    with registry.engine.connect() as db:
        context = MigrationContext.configure(db, opts={"compare_type": True})
        differences = compare_metadata(context, tables.meta)
    assert differences == []


def test_a_registry_from_before_migrations_is_brought_up_to_date(tmp_path):
    url = f"sqlite:///{tmp_path}/registry.db"
    engine = sa.create_engine(url)
    old = sa.MetaData()
    new = {"change", "event", "quarantine", "unrolled", "history", "sensed",
           "alarm", "delivery", "energy", "energy_mark", "energy_stretch", "run",
           "leadership"}  # fmt: skip
    for table in tables.meta.tables.values():
        if table.name not in new:
            table.to_metadata(old)
    with engine.begin() as db:
        old.create_all(db)
        for name, columns in {
            "asset": "feeder type networked stretch pole phase asset_id floor",
            "token": "role",
            "audit": "before after why source",
        }.items():
            for column in columns.split():
                db.execute(sa.text(f"ALTER TABLE {name} DROP COLUMN {column}"))
        old_body = {"id": "p", "name": "P", "steps": [], "wet_level": 80}
        db.execute(
            sa.text("INSERT INTO document VALUES ('programme', 'p', :body)"),
            {"body": json.dumps(old_body).encode()},
        )
        db.execute(
            sa.text("INSERT INTO asset VALUES ('L1', 'luminaire', '', '', '', 49, 13)")
        )
    engine.dispose()
    registry = Registry(url)
    assert registry.assets() == [Asset("L1", "luminaire", "", "", "", 49, 13)]
    wet = Programme("p", "P", (), effects=(Effect("wet_road", 80),))
    assert registry.all(Programme) == registry.all_at(Programme, 0) == [wet]
    registry.save(
        Programme("p", "Q", ()), match=tag(registry.all(Programme)[0])
    )  # whatever form it came in
    registry.close()


def test_several_processes_may_start_at_once(url):
    made, errors = [], []

    def start():
        try:
            made.append(Registry(url))
        except Exception as error:
            errors.append(error)

    # SQLite belongs to one process: there they start one after the other.
    together = 4 if url.startswith("postgresql") else 1
    threads = [threading.Thread(target=start) for _ in range(together)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for registry in made:
        registry.close()
    assert errors == []
    assert len(made) == together


def test_assets_are_put_and_replaced(registry):
    registry.put_assets([asset(1, cabinet="R1"), asset(2)])
    registry.put_assets([asset(2, type="LED-40", feeder="F2", networked=False)])
    assert [a.id for a in registry.assets()] == ["L1", "L2"]
    assert registry.assets()[1].type == "LED-40"
    assert registry.assets()[1].networked is False
    assert registry.owners() == {"L1": "R1"}
    assert [a.id for a in registry.asset_page("luminaire", None, "L1", 9)] == ["L2"]


def test_whoever_looks_sees_that_something_has_changed(registry):
    assert registry.change("wanted") == 0
    registry.save(Group("g", "G", ("L1",)))
    registry.assign("*", "c")
    assert registry.change("wanted") == 2
    assert registry.change("assets") == 0
    registry.put_assets([asset(1)])
    assert registry.change("assets") == 1
    assert registry.all(Group) == [Group("g", "G", ("L1",))]


def test_of_two_who_edit_the_second_is_told(registry):
    first = Group("g", "G", ("L1",))
    registry.save(first, 1, "eva")
    registry.save(Group("g", "G", ("L2",)), 2, "jan", match=tag(first))
    with pytest.raises(Stale, match="look again"):
        registry.save(Group("g", "G", ("L3",)), 3, "eva", match=tag(first))
    with pytest.raises(Stale):
        registry.save(Group("h", "H"), 3, "eva", match="something")
    with pytest.raises(Stale):
        registry.drop(Group, "g", 4, "eva", match=tag(first))
    assert registry.find(Group, "g") == Group("g", "G", ("L2",))


def test_documents_that_belong_together_are_stored_together_or_not_at_all(registry):
    first = Group("g", "G", ("L1",))
    registry.save(first, 1, "eva")
    both = [(Group("new", "N"), ""), (Group("g", "G", ("L2",)), "something else")]
    with pytest.raises(Stale, match="'g'"):
        registry.save_all(both, 2, "jan")
    assert registry.all(Group) == [first]
    assert len(registry.history(Group, "g")) == 1
    registry.save_all([both[0], (both[1][0], tag(first))], 3, "jan")
    assert [group.id for group in registry.all(Group)] == ["g", "new"]


def test_every_version_stays_and_any_time_can_be_asked_for(registry):
    registry.save(Group("g", "old"), 10, "eva")
    registry.save(Group("g", "new"), 20, "jan")
    registry.drop(Group, "g", 30, "jan")
    registry.assign("*", "c", 10)
    registry.assign("*", None, 20)
    assert [g.name for t in (9, 10, 25, 30) for g in registry.all_at(Group, t)] == ["old", "new"]  # fmt: skip
    assert [v.who for v in registry.history(Group, "g")] == ["jan", "jan", "eva"]
    assert [registry.assignments_at(t) for t in (9, 10, 20)] == [{}, {"*": "c"}, {}]
    with pytest.raises(NotFound, match="no group 'g'"):
        registry.drop(Group, "g", 40, "jan")


def test_what_detectors_have_said_is_forgotten_after_a_month(registry):
    day = 24 * 3_600_000
    wet = Sensed("wet_road", "gauges", "SR-01", 0, day, "SR-01")
    for n in range(0, 60, 10):
        given = Sensed("motion", "luminaire", "L1", n * day, n * day + 1000)
        registry.add_sensed(given)
        registry.add_sensed(wet._replace(start=n * day, end=n * day + 1000))
    found = registry.sensed(0)
    assert [x.start // day for x in found if x.kind == "motion"] == [20, 30, 40, 50]
    assert len([x for x in found if x.kind == "wet_road"]) == 6
    assert [x.start // day for x in registry.sensed(25 * day, 35 * day)] == [30, 30]


def test_tokens_and_audit(registry):
    token = registry.new_token("eva", 5000, "operator")
    assert registry.who(token, 4999) == User("eva", "operator", session=True)
    assert registry.who(token, 5000) is None
    registry.record(1, "eva", "override", "city", "why")
    registry.record(2, "eva", "cancel", "city", "")
    assert [line["action"] for line in registry.audit_page(None, 9)] == ["cancel", "override"]  # fmt: skip


def test_books_keep_events_once_and_poison_bounded(registry, monkeypatch):
    books = Books(registry.engine)
    events = (Event(5, "counter_reset", "SR-01"), Event(5, "outbox_full"))
    batch = Batch(1, "b", "o", 1, "trusted", events=events)
    for _ in range(2):
        books.write([Examined("RVO-001", batch)], 7)
    assert {e["code"] for e in books.events(0, 9, "RVO-001", 9)} == {"counter_reset", "outbox_full"}  # fmt: skip
    monkeypatch.setattr("duha_backend.books.MOST_QUARANTINED", 10)
    monkeypatch.setattr("duha_backend.books._TRIM_EVERY", 20)
    for n in range(60):
        books.refuse([Reject("RVO-001", f"reason {n}", b"\x00raw")], n)
    assert books.count() == {"event": 2, "quarantine": 10}
    page = books.quarantine(None, 3)
    assert [row["reason"] for row in page] == ["reason 59", "reason 58", "reason 57"]
    assert bytes(page[0]["raw"]) == b"\x00raw"
    assert [r["reason"] for r in books.quarantine(page[-1]["id"], 1)] == ["reason 56"]
    assert books.quarantine(None, 9, "RVO-002") == []


class Seconds:
    """A monotonic clock that is set by hand [s]."""

    now = 0.0

    def __call__(self):
        return self.now


def cut_leaders(database):
    """End the sessions that hold a lock, as a server does that has lost its clients."""
    with database.begin() as db:
        db.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_locks"
                " WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            )
        )
    time.sleep(0.2)


@pytest.fixture
def leaders(server):
    """Two processes that would lead, on a clock that is set by hand."""
    for url in fresh_database(server):
        seconds, registries = Seconds(), [Registry(url), Registry(url)]
        both = [
            Leadership(r.engine, monotonic=seconds, wall=lambda: 0) for r in registries
        ]
        yield seconds, registries, *both
        for leadership, registry in zip(both, registries, strict=True):
            leadership.close()
            registry.close()


def asked(leadership):
    try:
        return leadership.ask()
    except RegistryDown:
        return leadership.held


@pytest.mark.system
def test_one_leads_and_the_next_takes_over_when_the_first_cannot_think_it_leads(
    leaders,
):
    seconds, registries, a, b = leaders
    assert a.ask()
    assert a.term == 1
    assert not b.ask()
    cut_leaders(registries[1].engine)
    assert not b.ask()  # it has the lock, and waits: the first may not know it yet
    assert a.held
    seconds.now += LEASE_S
    assert not a.held  # by its own clock, without any answer
    assert not b.ask()
    assert not asked(a)
    seconds.now += TAKE_OVER_S - LEASE_S
    assert b.ask()
    assert b.term == 2
    assert not asked(a)
    b.close()  # who resigns is followed at once
    assert a.ask()
    assert a.term == 3


@pytest.mark.system
def test_a_leader_that_gets_its_lock_back_in_time_goes_on_in_its_term(leaders):
    seconds, registries, a, _ = leaders
    assert a.ask()
    cut_leaders(registries[1].engine)
    seconds.now += 1
    assert asked(a)
    assert asked(a)
    assert a.term == 1


def test_a_registry_that_was_silent_is_tried_by_one_at_a_time():
    seconds = Seconds()
    gate = Gate(0.5, seconds)
    gate.enter()
    gate.failed()
    with pytest.raises(RegistryDown):
        gate.enter()  # too early
    seconds.now += 0.6
    gate.enter()
    with pytest.raises(RegistryDown):
        gate.enter()  # one tries already
    gate.answered()
    gate.enter()
    gate.enter()


def test_what_a_database_cannot_keep_is_the_callers_mistake(registry):
    with pytest.raises(Invalid):
        registry.record(10**30, "eva", "test", "", "")


def test_a_file_that_another_process_keeps_locked_is_waited_for_a_while_only(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(database, "BUSY_MS", 200)
    registry = Registry.in_folder(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "registry.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryDown, match="locked"):
            registry.record(1, "eva", "test", "", "")
        assert registry.audit_page(None, 9) == []  # reading goes on
    registry.record(1, "eva", "test", "", "")
    registry.close()


def test_each_error_of_the_driver_is_a_registry_that_is_down(registry):
    with registry.engine.begin() as db:
        db.execute(sa.text("DROP TABLE audit"))
    with pytest.raises(RegistryDown, match="audit"):
        registry.record(1, "eva", "test", "", "")


def test_with_sqlite_there_is_no_other(tmp_path):
    registry = Registry.in_folder(tmp_path)
    first = Leadership(registry.engine, wall=lambda: 0)
    assert first.ask()
    assert first.term == 1
    again = Leadership(registry.engine, wall=lambda: 0)
    assert again.ask()
    assert again.term == 2  # each start is a term of its own
    registry.close()


def test_an_emptied_registry_begins_above_every_term_that_was_seen(tmp_path):
    terms = [0]
    for now in (1000.0, 1001.0):
        folder = tmp_path / f"{now:.0f}"
        folder.mkdir()
        registry = Registry.in_folder(folder)
        leader = Leadership(registry.engine, wall=iter((now,)).__next__)
        leader.ask()
        terms.append(leader.term)
        registry.close()
    assert terms == [0, 1000, 1001]


# -- files -------------------------------------------------------------------------------

CSV = """\
ID;Kind;Cabinet;Latitude;Longitude;Street;Networked;Note
RVO-001;cabinet;;49,7475;13,3776;Křižíkova;ano;
L1;luminaire;RVO-001;49,7476;13,3777;Křižíkova;;
L2;luminaire;;49.7477;13.3778;Křižíkova;ne;on a house
L1;luminaire;RVO-001;49,7;13,3;;;
L 3;luminaire;RVO-001;49,7;13,3;;;
L4;toaster;RVO-001;49,7;13,3;;;
L5;luminaire;RVO-009;49,7;13,3;;;
L6;luminaire;RVO-001;north;13,3;;;
L7;luminaire;RVO-001;49,7;313;;;
L8;luminaire;RVO-001;49,7;13,3;;perhaps;
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1250"])
def test_a_spreadsheet_is_read_and_each_bad_row_is_named(encoding):
    found = parse(CSV.encode(encoding))
    assert [a.id for a in found.assets] == ["RVO-001", "L1", "L2"]
    assert found.assets[1] == Asset("L1", "luminaire", "RVO-001", "", "Křižíkova", 49.7476, 13.3777)  # fmt: skip
    assert found.assets[2].networked is False
    reasons = {p.row: p.reason for p in found.problems}
    assert list(reasons) == [5, 6, 7, 8, 9, 10, 11]
    for row, named in zip(
        reasons,
        ("row 3", "L 3", "toaster", "RVO-009", "north", "313", "perhaps"),
        strict=True,
    ):
        assert named in reasons[row]


def test_a_cabinet_may_be_there_already():
    line = b"id,kind,cabinet,latitude,longitude\nL5,luminaire,RVO-009,49,13\n"
    assert parse(line).problems
    assert not parse(line, ["RVO-009"]).problems


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"a,b\n1,2\n", "lacks id, kind, latitude, longitude"),
        (b'{"type": "Topology"}', "no FeatureCollection"),
        (b'{"features": [null]}', "geometry"),
        (b'{"features": [{"geometry": {"type": "Polygon"}}]}', "Polygon"),
        (
            b'{"features": [{"properties": {"kind": "street"}}]}',
            "street without a line",
        ),
        (b"\x00\xff\xfe", "lacks"),
    ],
)
def test_what_is_no_such_file_is_said(raw, named):
    found = parse(raw)
    assert found.assets == []
    assert named in found.problems[0].reason


names = st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True)
words = st.text("ěščřžýáíé abcXYZ,;\"'1", max_size=12).map(str.strip)
some_assets = st.lists(
    st.builds(
        Asset, names, st.sampled_from(ASSET_KINDS), st.just(""), words, words,
        st.floats(-90, 90), st.floats(-180, 180), words, words, st.booleans(),
        words, words, st.sampled_from(PHASES), words, st.none() | st.floats(0, 100),
    ),
    unique_by=lambda a: a.id,
)  # fmt: skip


@given(some_assets)
def test_what_is_exported_is_imported(assets):
    assert parse(to_csv(assets).encode()).assets == assets
    text = json.dumps(to_geojson(assets, []))
    assert parse(text.encode()).assets == assets


def test_the_generated_city_is_imported(registry):
    city = geojson(generate(2, 5, 2))
    found = parse(json.dumps(city).encode())
    assert found.problems == []
    registry.put_assets(found.assets, found.streets)
    again = parse(
        json.dumps(to_geojson(registry.assets(), registry.streets())).encode()
    )
    assert sorted(again.assets) == sorted(found.assets)
    assert again.streets == found.streets


def put_raw(registry, kind, name, body):
    """Write a document as something else, or an older version, may have left it."""
    with registry.engine.begin() as db:
        row = {"kind": kind, "id": name, "body": body}
        db.execute(sa.insert(tables.document), row)


def test_a_document_that_cannot_be_read_is_set_aside_and_the_others_go_on(registry):
    good = Group("good", "Good")
    registry.save(good)
    put_raw(registry, "group", "bad", b'{"id": "bad", "name": 7}')
    assert registry.all(Group) == [good]
    (aside,) = registry.set_aside
    assert (aside.kind, aside.id) == ("group", "bad")
    assert "str" in aside.reason
    assert registry.find(Group, "bad") is None
    mended = Group("bad", "Mended")
    registry.save(mended)  # what replaces it is read again
    assert registry.all(Group) == [mended, good]
    assert registry.set_aside == []


def test_a_document_that_cannot_be_read_can_be_taken_away(registry):
    put_raw(registry, "group", "bad", b"{")
    registry.drop(Group, "bad", 0, "eva")
    assert registry.all(Group) == []


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_is_not_finite_is_not_stored(registry, value):
    for document in (
        Stretch("s", "S", length_m=value),
        Stretch("s", "S", "M4", levels={"M4": value}),
        LuminaireType("t", "T", 62.0, curve=((0.0, 1.0), (100.0, value))),
    ):
        with pytest.raises(Invalid, match="no finite number"):
            registry.save(document)
    assert registry.all(Stretch) == []


@pytest.mark.parametrize("name", ["", "a\x00b", "x" * 300])
def test_an_id_that_no_database_keeps_is_refused(registry, name):
    with pytest.raises(Invalid, match="id"):
        registry.save(Group(name, "G"))


def test_overrides_and_desired_documents_are_read_one_by_one(registry):
    made = Override("1", 30.0, 0, 2**40)
    registry.add_override(StoredOverride(made, "city", "", None))
    with registry.engine.begin() as db:
        row = {"id": "2", "target_kind": "city", "target": "", "body": b"{}", "end": 9}
        db.execute(sa.insert(tables.override), row)
        bad = {"controller": "R1", "revision": 7, "body": b"null"}
        db.execute(sa.insert(tables.desired), bad)
    assert [stored.override for stored in registry.overrides(0)] == [made]
    assert registry.desired() == {}
    assert registry.revisions() == {"R1": 7}
    kinds = [aside.kind for aside in registry.set_aside]
    assert sorted(kinds) == ["desired", "override"]


def test_only_what_concerns_the_lights_settles_them(registry):
    registry.save(Channel("c", "webhook", "https://example.org/"))
    assert (registry.change("documents"), registry.change("wanted")) == (1, 0)
    registry.save(Group("g", "G"))
    assert (registry.change("documents"), registry.change("wanted")) == (2, 1)


def test_of_two_who_assign_the_second_is_told(registry):
    registry.assign("*", "a", match="")
    for match in ("", "b"):
        with pytest.raises(Stale):
            registry.assign("*", "c", match=match)
        with pytest.raises(Stale):
            registry.assign("*", None, match=match)
    registry.assign("*", "b", match="a")
    registry.assign("*", None, match="b")
    registry.assign("*", None, match="")
    assert registry.assignments() == {}


def test_who_judges_and_stores_is_alone(url):
    first, second = Registry(url), Registry(url)
    others = first if "sqlite" in url else second
    order = []

    def judge():
        with others.judging():
            order.append("second")

    with first.judging():
        thread = threading.Thread(target=judge)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    first.close()
    second.close()


def test_an_asset_is_taken_out_and_a_cabinet_that_feeds_others_stays(registry):
    cabinet = asset(1, id="R1", kind="cabinet")
    registry.put_assets([cabinet, asset(2, cabinet="R1")])
    registry.assign("L2", "c")
    with pytest.raises(Conflict, match="L2"):
        registry.drop_asset("R1")
    registry.drop_asset("L2")
    assert registry.assets() == [cabinet]
    assert registry.assignments() == {}
    registry.drop_asset("R1")
    with pytest.raises(NotFound):
        registry.drop_asset("R1")


def test_a_name_is_revoked_with_its_sessions(registry):
    token = registry.new_token("eva")
    session = registry.new_token("eva", 10_000)
    other = registry.new_token("jan")
    assert registry.who(session, 0).session
    assert not registry.who(token, 0).session
    assert registry.revoke("eva") == 2
    assert registry.who(token, 0) is registry.who(session, 0) is None
    assert registry.who(other, 0) is not None
    with pytest.raises(NotFound):
        registry.revoke("eva")


def test_a_former_leader_stores_no_documents(registry):
    document = Desired(1, 1, "h", 0, Place(49.7, 13.3, "Europe/Prague"))
    with registry.engine.begin() as db:
        row = {"name": "control", "term": 2, "holder": "b"}
        db.execute(sa.insert(tables.leadership), row)
    with pytest.raises(Stale, match="term 1"):
        registry.save_desired({"R1": document}, 1)
    registry.save_desired({"R1": document}, 2)
    assert registry.desired() == {"R1": document}


def stopped(server):
    """The processes of a PostgreSQL server that listens at a URL."""
    import subprocess

    port = sa.make_url(server).port
    found = subprocess.run(
        ["pgrep", "-f", f"postgres .*-p {port} "],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    parent = int(found[0])
    children = subprocess.run(
        ["pgrep", "-P", str(parent)], capture_output=True, text=True, check=True
    ).stdout.split()
    return [parent, *map(int, children)]


@pytest.mark.system
def test_a_server_that_is_stopped_is_noticed_and_is_back_by_itself(tmp_path_factory):
    with servers.postgres(tmp_path_factory.mktemp("hung")) as url:
        registry = Registry(url)
        leader = Leadership(registry.engine)
        assert leader.ask()
        processes = stopped(url)
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                began = time.monotonic()
                with pytest.raises(RegistryDown):
                    registry.change("assets")
                assert time.monotonic() - began < 5
            with pytest.raises(RegistryDown):
                leader.ask()
            deadline = time.monotonic() + LEASE_S + 1
            while leader.held:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            for pid in processes:
                os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + 10
        while True:
            try:
                registry.change("assets")
                break
            except RegistryDown:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        while not asked(leader):
            assert time.monotonic() < deadline + TAKE_OVER_S
            time.sleep(0.1)
        leader.close()
        registry.close()
