"""The production set: sound by its schema, closed by default, its secrets accepted."""

import importlib.util
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from duha_backend import cli
from tests.conftest import tool

pytestmark = pytest.mark.system
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


def test_every_command_is_one_that_duha_has(compose):
    parser = cli._parser()
    roles = set()
    for service in compose["services"].values():
        command = service.get("command")
        if not command:
            continue
        text = command if isinstance(command, str) else command[2]
        text = text.replace(
            "$$STORES", (service.get("environment") or {}).get("STORES", "")
        )
        words = shlex.split(text.removeprefix("exec duha "))
        assert words.pop(0) == "backend"
        options = parser.parse_args(words)
        roles.add(getattr(options, "role", None))
    assert roles == {"ingest", "control", "runoff", "api", None}


def test_a_real_broker_takes_the_password_and_no_other(
    tmp_path, make_secrets, free_port
):
    mosquitto, publish = tool("mosquitto"), tool("mosquitto_pub")
    made = make_secrets.make(tmp_path / "secrets")
    assert {path.name for path in made} == {*make_secrets.PLAIN, "mqtt_passwords"}
    assert make_secrets.make(tmp_path / "secrets") == [], "what is there stays"
    text = (DEPLOY / "mosquitto.conf").read_text("utf-8")
    text = text.replace("/run/secrets/", f"{tmp_path}/secrets/").replace(
        "/mosquitto/data/", f"{tmp_path}/"
    )
    text = text.replace("listener 1883", f"listener {free_port} 127.0.0.1")
    (tmp_path / "mosquitto.conf").write_text(text + "user root\n")
    broker = subprocess.Popen(
        [mosquitto, "-c", str(tmp_path / "mosquitto.conf")], stderr=subprocess.DEVNULL
    )
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
