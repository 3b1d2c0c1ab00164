"""The production set: sound by its schema, closed by default, its secrets accepted."""

import contextlib
import importlib.util
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from duha_backend import cli
from duha_sim import cli as sim_cli
from tests.conftest import tool

pytestmark = [pytest.mark.drill, pytest.mark.system]
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE = DEPLOY / "compose.yaml"


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(COMPOSE.read_text("utf-8"))


@pytest.fixture(scope="module")
def make_secrets():
    spec = importlib.util.spec_from_file_location(
        "make_secrets", DEPLOY / "make-secrets.py"
    )
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_it_keeps_to_the_schema_of_compose():
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_each_image_is_named_once_with_its_version():
    images = re.findall(r"image: (\S+)", COMPOSE.read_text("utf-8"))
    assert len(set(images)) == len(images)
    assert all(re.fullmatch(r"[\w./-]+:\d[\w.]*", image) for image in images)


def test_nothing_is_open_and_no_password_stands_in_it(compose):
    for name, service in compose["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith(("127.0.0.1:", "${DUHA_BROKER_BIND:-127.0.0.1}:")), (
                name
            )
        for key, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|TOKEN|SECRET", key):
                assert key.endswith("_FILE"), f"{name}: {key}"
                assert str(value).startswith("/run/secrets/")
        for secret in service.get("secrets", ()):
            assert secret in compose["secrets"]
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).exists(), volume
        assert "healthcheck" in service, name
    assert all(list(secret) == ["file"] for secret in compose["secrets"].values())


def commands(compose):
    """The words of every ``duha`` command, by service."""
    for name, service in compose["services"].items():
        command = service.get("command")
        if not command:
            continue
        text = command if isinstance(command, str) else command[2]
        for variable, value in (service.get("environment") or {}).items():
            text = text.replace(f"$${variable}", str(value))
        for part in text.split("&&"):
            words = shlex.split(part)
            yield name, words[words.index("duha") + 1 :] if "duha" in words else words


def test_every_command_is_one_that_duha_has(compose):
    parsers = {"backend": cli._parser, "sim": sim_cli._parser}
    seen = set()
    for name, (room, *words) in commands(compose):
        options = parsers[room]().parse_args(words)
        seen.add(getattr(options, "role", None) or f"{name}: {options.command}")
    assert seen == {
        "ingest", "control", "runoff", "api", "buckets: init-influx",
        "simulators: plan", "simulators: import", "simulators: field",
    }  # fmt: skip


def started_broker(mosquitto, folder, port):
    """Mosquitto with the set's own settings, over the secrets of a folder."""
    text = (DEPLOY / "mosquitto.conf").read_text("utf-8")
    text = text.replace("/run/secrets/", f"{folder}/secrets/").replace(
        "/mosquitto/data/", f"{folder}/"
    )
    text = text.replace("listener 1883", f"listener {port} 127.0.0.1")
    (folder / "mosquitto.conf").write_text(text + "user root\n")
    return subprocess.Popen(
        [mosquitto, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL
    )


def test_a_real_broker_takes_the_password_and_no_other(
    tmp_path, make_secrets, free_port
):
    mosquitto, publish = tool("mosquitto"), tool("mosquitto_pub")
    made = make_secrets.make(tmp_path / "secrets")
    assert {path.name for path in made} == {*make_secrets.PLAIN, "mqtt_passwords"}
    assert make_secrets.make(tmp_path / "secrets") == [], "what is there stays"
    broker = started_broker(mosquitto, tmp_path, free_port)
    password = (tmp_path / "secrets" / "mqtt_password").read_text()

    def asks(*who):
        return subprocess.run(
            [publish, "-p", str(free_port), "-t", "x", "-m", "y", *who],
            capture_output=True,
            check=False,
        ).returncode

    try:
        deadline = time.monotonic() + 10
        while asks("-u", "duha", "-P", password) != 0:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert asks("-u", "duha", "-P", "wrong") != 0
        assert asks() != 0
    finally:
        broker.terminate()
        broker.wait(10)


def test_the_registrys_password_may_stand_in_a_file(tmp_path):
    (tmp_path / "password").write_text("p@ss/word\n")
    options = cli._parser().parse_args(
        [
            "run",
            "--registry",
            "postgresql+psycopg://duha@db/duha",
            "--registry-password-file",
            str(tmp_path / "password"),
        ]
    )
    assert (
        cli._registry_url(options) == "postgresql+psycopg://duha:p%40ss%2Fword@db/duha"
    )


def test_the_simulated_city_reports_to_the_sets_broker_and_backend(
    tmp_path, compose, make_secrets, free_port
):
    """The commands of the profile, with this machine's paths and the embedded stores."""
    mosquitto = tool("mosquitto")
    make_secrets.make(tmp_path / "secrets")
    password = ["--broker-user", "duha", "--broker-password-file", f"{tmp_path}/secrets/mqtt_password"]  # fmt: skip
    duha = [sys.executable, "-m", "duha"]
    plan, take, field = (words for name, words in commands(compose) if name == "simulators")  # fmt: skip
    take = [*take[: take.index("--registry-password-file")], "--data", "data"]
    small = ["--cabinets", "2", "--luminaires", "3", "--gauges", "1"]
    field = [*field[: field.index("--broker")], "--broker", f"127.0.0.1:{free_port}", *password]  # fmt: skip
    for words in ([*plan, *small], take):
        subprocess.run([*duha, *words], cwd=tmp_path, check=True, capture_output=True)
    running = [started_broker(mosquitto, tmp_path, free_port)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    backend = ["backend", "run", "--data", "data", "--broker", f"127.0.0.1:{free_port}", *password, "--port", str(port)]  # fmt: skip
    for number, words in enumerate((backend, [*field, *small])):
        with (tmp_path / f"{number}.log").open("wb") as log:
            running.append(subprocess.Popen([*duha, *words], cwd=tmp_path, stdout=log, stderr=log))  # fmt: skip
    try:
        assert "RVO-002" in wait_for(port, tmp_path, lambda text: text.count('"online":true') == 2)  # fmt: skip
    finally:
        for child in reversed(running):
            child.terminate()
            child.wait(20)


def wait_for(port, folder, enough, limit=60):
    """What the API says of controllers, once it is enough."""
    deadline, text = time.monotonic() + limit, ""
    while time.monotonic() < deadline:
        time.sleep(0.5)
        found = re.search(
            r"^token: (\S+)", (folder / "0.log").read_text(), re.MULTILINE
        )
        if found is None:
            continue
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/v1/controllers",
            headers={"Authorization": f"Bearer {found[1]}"},
        )
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:  # fmt: skip
            text = answer.read().decode()
        if enough(text):
            return text
    raise AssertionError(f"not within {limit} s: {text}")
