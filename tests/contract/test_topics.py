import pytest
from hypothesis import given
from hypothesis import strategies as st

from duha_contract import topics
from duha_contract.errors import TopicError

ids = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)


@given(ids, ids, st.sampled_from(topics.LEAVES))
def test_a_topic_survives_the_way_there_and_back(city, controller, leaf):
    built = topics.build(city, controller, leaf)
    assert topics.parse(built) == topics.Topic(city, controller, leaf)


@pytest.mark.parametrize(
    "topic",
    [
        "duha/v2/plzen/RVO-001/data",
        "duha/v1/plzen/RVO-001/secrets",
        "duha/v1/plzen/RVO-001",
        "duha/v1/plzen/RVO 001/data",
        "duha/v1/plzen/+/data",
        "",
    ],
)
def test_a_foreign_topic_is_refused(topic):
    with pytest.raises(TopicError):
        topics.parse(topic)


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#", "ž", "x" * 65])
def test_an_id_that_would_break_a_topic_is_refused(name):
    with pytest.raises(TopicError, match="is no id"):
        topics.build("plzen", name, "data")
