import json
import logging

from duha_backend.logs import JsonLines


def test_a_record_is_one_line_of_json_with_what_was_given_more():
    made = logging.getLogger("duha").makeRecord(
        "duha", logging.WARNING, "f", 1, "refused: %s", ("ž\n",), None,
        extra={"controller": "RVO-001"},
    )  # fmt: skip
    line = JsonLines().format(made)
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == "refused: ž\n"
    assert found["level"] == "WARNING"
    assert found["controller"] == "RVO-001"
    assert found["time"].endswith("+00:00")


def test_an_error_comes_with_its_trace():
    error = ValueError("why")
    info = (type(error), error, error.__traceback__)
    made = logging.getLogger("duha").makeRecord(
        "duha", logging.ERROR, "f", 1, "store", (), info
    )
    assert "ValueError: why" in json.loads(JsonLines().format(made))["error"]
