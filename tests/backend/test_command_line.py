"""The command line says what is wrong with what it was given, in a sentence."""

import argparse
import contextlib
import socket
import subprocess
import sys

import pytest

from duha_backend import asking
from duha_backend.cli import _address, _place, _port, main
from duha_backend.errors import BackendError, Invalid


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mosquitto", ("mosquitto", 1883)),
        ("mosquitto:1884", ("mosquitto", 1884)),
        (":1884", ("127.0.0.1", 1884)),
        ("[::1]:1884", ("::1", 1884)),
        ("::1", ("::1", 1883)),
        ("[::1]", ("::1", 1883)),
    ],
)
def test_a_broker_has_a_port_or_the_usual_one(text, found):
    assert _address(text, 1883) == found


@pytest.mark.parametrize("text", ["broker:mqtt", "broker:0", "broker:65536", "broker:-1"])  # fmt: skip
def test_a_port_is_a_number(text):
    with pytest.raises(Invalid, match="port"):
        _address(text, 1883)


def test_port_0_is_a_free_port():
    assert _port("0") == 0
    with pytest.raises(argparse.ArgumentTypeError):
        _port("65536")


@pytest.mark.parametrize("text", ["", "49,7,13,3", "north,east", "95,13", "nan,1"])
def test_a_place_is_on_earth(text):
    with pytest.raises(Invalid, match="--place"):
        _place(text, "Europe/Prague")


def test_a_wrong_broker_is_said_in_a_sentence(tmp_path, capsys):
    words = ["run", "--data", str(tmp_path), "--broker", "mosquitto:mqtt"]
    assert main(words) == 2
    assert "'mosquitto:mqtt' has no port" in capsys.readouterr().err


def _options(url, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret")
    return argparse.Namespace(url=url, token_file=token)


@contextlib.contextmanager
def silent():
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_backend_that_does_not_answer_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "TIMEOUT_S", 0.2)
    with silent() as url, pytest.raises(BackendError, match=r"no answer within 0.2 s"):
        asking.fetch(_options(url, tmp_path), "GET", "/alarms")


def test_a_backend_that_is_not_there_is_said(tmp_path, free_port):
    options = _options(f"http://127.0.0.1:{free_port}", tmp_path)
    with pytest.raises(BackendError, match="does the backend run"):
        asking.fetch(options, "GET", "/alarms")


def test_what_answers_and_is_no_backend_is_said(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", "import socket; s = socket.create_server(('127.0.0.1', 0));"
         "print(s.getsockname()[1], flush=True); c = s.accept()[0]; c.recv(9999); c.send(b'rubbish\\n'); c.close()"],
        stdout=subprocess.PIPE,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        port = int(server.stdout.readline())
        with pytest.raises(BackendError, match="rubbish"):
            asking.fetch(_options(f"http://127.0.0.1:{port}", tmp_path), "GET", "/")
