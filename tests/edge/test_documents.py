"""What a restart finds: the document in force, the last good one, or the default."""

import msgspec
import pytest

from duha_contract.errors import ContractError
from duha_contract.lighting import Override
from duha_contract.messages import Desired, encode
from duha_contract.programmes import Calendar, Place, Programme, Step, segments
from duha_edge.documents import MOST_REJECTED
from duha_edge.executor import Executor

PLZEN = Place(49.7475, 13.3776, "Europe/Prague")
NIGHT = 1_795_561_200.0  # 2026-11-24 23:00 in Plzeň


def document(revision, level=40.0, **more):
    programme = Programme("p", "P", (Step("sunset", level),))
    return Desired(
        1, revision, f"h{revision}-{level}", 0, PLZEN, (programme,),
        (Calendar("c", "C", "p"),), {"*": "c"}, **more,
    )  # fmt: skip


POISON = [
    pytest.param(b"{", id="cut"),
    pytest.param(b"", id="empty"),
    pytest.param(b"\xff\xfe", id="no text"),
    pytest.param(b'{"v":1,"place":' + b"[" * 60_000, id="deep"),
    pytest.param(
        encode(msgspec.structs.replace(document(2), place=Place(1, 2, "No/Where"))),
        id="no zone",
    ),
    pytest.param(
        encode(document(2, overrides=(Override("o", -1e9, 0, 2**60),))), id="level"
    ),
    pytest.param(encode(document(2)).replace(b"sunset", b"sunnset"), id="no time"),
]


def start(folder):
    return Executor(["L1"], PLZEN, folder / "desired.json", NIGHT)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_document_before_the_one_in_force_stays_on_disk(tmp_path):
    executor = start(tmp_path)
    executor.accept(document(1, 40))
    executor.accept(document(2, 60))
    assert files(tmp_path) == ["desired.json", "desired.last.json"]
    assert start(tmp_path).decide("L1", NIGHT).level == 60


@pytest.mark.parametrize("poison", POISON)
def test_a_kept_document_that_cannot_be_used_is_set_aside_for_the_last_good_one(
    poison, tmp_path
):
    executor = start(tmp_path)
    executor.accept(document(1, 40))
    executor.accept(document(2, 60))
    (tmp_path / "desired.json").write_bytes(poison)
    for _ in range(3):  # it is not tried again
        again = start(tmp_path)
        assert again.revision == 1
        assert again.decide("L1", NIGHT).level == 40
    (aside,) = tmp_path.glob("desired.json.rejected-*")
    assert aside.read_bytes() == poison


def test_without_a_good_document_the_light_is_on_at_night(tmp_path):
    for name in ("desired.json", "desired.last.json"):
        (tmp_path / name).write_bytes(b"{}")
    again = start(tmp_path)
    assert again.revision == 0
    assert again.decide("L1", NIGHT).level == 100
    assert again.accept(document(1))


def test_few_documents_that_were_set_aside_stay(tmp_path):
    for n in range(MOST_REJECTED + 3):
        (tmp_path / "desired.json").write_bytes(b"%d" % n)
        start(tmp_path)
    left = [path.read_bytes() for path in start(tmp_path)._documents.rejected]
    assert left == [b"%d" % n for n in range(3, MOST_REJECTED + 3)]


@pytest.mark.parametrize(
    "bad",
    [
        document(3, overrides=(Override("o", float("inf"), 0, 1),)),
        msgspec.structs.replace(document(3), place=Place(49, 13, "No/Where")),
        msgspec.structs.replace(document(3), programmes=(Programme("p", "P", ()),)),
    ],
)
def test_a_document_is_tried_before_it_is_kept(bad, tmp_path):
    executor = start(tmp_path)
    executor.accept(document(2))
    kept = (tmp_path / "desired.json").read_bytes()
    with pytest.raises(ContractError):
        executor.accept(bad, NIGHT)
    assert executor.revision == 2
    assert (tmp_path / "desired.json").read_bytes() == kept


def test_a_disk_that_cannot_be_written_keeps_no_light_from_obeying(tmp_path):
    executor = start(tmp_path)
    (tmp_path / "desired.new").mkdir()  # where the file would be
    assert executor.accept(document(1, 40))
    assert executor.decide("L1", NIGHT).level == 40


def test_an_older_document_is_not_taken_and_a_new_leader_begins_a_term(tmp_path):
    executor = start(tmp_path)
    assert executor.accept(document(7, 40))
    assert not executor.accept(document(3, 80))
    assert not executor.accept(document(7, 40))
    assert executor.accept(document(7, 50))  # the same leader corrects itself
    assert executor.accept(document(1, 60, term=1))
    assert not executor.accept(document(900, 80))  # a former leader comes back
    assert executor.decide("L1", NIGHT).level == 60
    assert start(tmp_path).desired == document(1, 60, term=1)


def test_nights_of_documents_that_are_gone_are_forgotten(tmp_path):
    executor = start(tmp_path)
    for revision in range(1, 30):
        executor.accept(document(revision, float(revision)))
        executor.decide("L1", NIGHT)
    assert segments.cache_info().currsize <= 2
