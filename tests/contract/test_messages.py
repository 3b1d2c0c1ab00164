import msgspec
import pytest

from duha_contract.errors import MessageError
from duha_contract.lighting import Override
from duha_contract.messages import (
    MAX_BYTES,
    Ack,
    Batch,
    Desired,
    Event,
    Report,
    Status,
    Table,
    decode,
    encode,
)
from duha_contract.programmes import Calendar, Effect, Place, Programme, Step

PLACE = Place(49.7, 13.4, "Europe/Prague")
MESSAGES = [
    Batch(
        1,
        "boot",
        "box",
        7,
        "trusted",
        (Table("lux", ("device", "ts", "quality"), (("L1", 1, "good"),)),),
        (Event(1, "counter_reset", "SR-01"),),
        (Report(1, 3, "abc", 60, ("L7",)),),
    ),
    Ack(1, "box", ((1, 5), (7, 7))),
    Status(1, online=True, ts=5, version="0.1.0", backlog=3),
    Desired(
        1,
        4,
        "abc",
        99,
        PLACE,
        (
            Programme(
                "p", "P", (Step("sunset", 100),), effects=(Effect("wet_road", 80),)
            ),
        ),
        (Calendar("c", "C", "p"),),
        {"L1": "c"},
        (Override("o", 30, 1, 2, devices=("L1",)),),
    ),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_survives_the_wire(message):
    assert decode(encode(message), type(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_unknown_fields_are_ignored(message):
    raw = msgspec.json.decode(encode(message)) | {"from_the_future": 1}
    assert decode(msgspec.json.encode(raw), type(message)) == message


@pytest.mark.parametrize(
    "payload",
    [b"", b"hello", b"[]", b'{"v":1}', b"\xff\xfe", b'{"v":1,"outbox":5}'],
)
def test_a_payload_that_is_no_message_is_refused(payload):
    with pytest.raises(MessageError):
        decode(payload, Ack)


def test_another_version_is_refused():
    with pytest.raises(MessageError, match="version 2"):
        decode(b'{"v":2,"outbox":"b"}', Ack)


def test_a_message_beyond_the_size_limit_is_refused():
    big = encode(Ack(1, "x" * MAX_BYTES))
    with pytest.raises(MessageError, match="bytes"):
        decode(big, Ack)


DEEP = b'{"x":' + b"[" * 60_000 + b"]" * 60_000 + b',"v":1}'
HUGE = b"1" + b"0" * 400


@pytest.mark.parametrize("kind", [Batch, Ack, Status, Desired])
@pytest.mark.parametrize(
    "payload",
    [DEEP, b'{"v":' + HUGE + b"}", b'{"v":1,"seq":1e400}', b"\xff", b"[" * 70_000],
)
def test_depth_and_huge_numbers_are_refused_as_message_errors(kind, payload):
    with pytest.raises(MessageError):
        decode(payload, kind)


@pytest.mark.parametrize(
    "ranges", [[[1, 10**30]], [[-(10**18), 1]], [[n, n] for n in range(1, 1002)]]
)
def test_ranges_of_an_acknowledgement_are_bounded(ranges):
    with pytest.raises(MessageError):
        decode(msgspec.json.encode({"v": 1, "outbox": "a", "ranges": ranges}), Ack)
