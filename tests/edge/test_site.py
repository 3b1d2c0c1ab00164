import pytest

from duha_edge import cli, site
from duha_edge.errors import ConfigError

GOOD = """\
[site]
city = "plzen"
controller = "RVO-001"
latitude = 49.7
longitude = 13.4
zone = "Europe/Prague"

[[bus]]
name = "line1"
type = "tcp"
host = "127.0.0.1"
port = 5020

[[device]]
id = "L1"
bus = "line1"
unit = 1
profile = "luminaire-generic"
writes = ["level_in_effect_pct"]

[[device]]
id = "L2"
bus = "line1"
unit = 2
profile = "luminaire-generic"
"""


def test_a_good_file_is_read():
    found = site.parse(GOOD)
    assert found.site.controller == "RVO-001"
    assert [device.id for device in found.device] == ["L1", "L2"]


@pytest.mark.parametrize(
    ("old", "new", "line", "named"),
    [
        ('city = "plzen"', 'city = "plzen"\ncolour = "red"', 3, "unknown key `colour`"),
        ("unit = 2\n", "unit = 2\nunits = 3\n", 25, "unknown key `units`"),
        ('host = "127.0.0.1"', 'hosts = "127.0.0.1"', 11, "unknown key `hosts`"),
        ("unit = 2\n", "unit = 0\n", 24, ">= 1"),
        ("latitude = 49.7", "latitude = 149.7", 4, "<= 90"),
        ("unit = 2\n", "unit = 1\n", 24, "used twice"),
        ('id = "L2"', 'id = "L1"', 22, "used twice"),
        ('zone = "Europe/Prague"', 'zone = "Europe/Plzen"', 6, "time zone"),
        (
            'unit = 2\nprofile = "luminaire-generic"',
            'unit = 2\nprofile = "lamp"',
            25,
            "no profile",
        ),
        ('writes = ["level_in_effect_pct"]', 'writes = ["power_w"]', 18, "writable"),
        ('id = "L2"\nbus = "line1"', 'id = "L2"\nbus = "line7"', 23, "line7"),
        ('type = "tcp"', 'type = "udp"', 10, "udp"),
    ],
)
def test_a_mistake_is_named_with_its_line(old, new, line, named):
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        site.parse(GOOD.replace(old, new, 1), "site.toml")
    assert named in str(caught.value)
    assert str(caught.value).startswith(f"site.toml:{line}: ")


def test_what_is_no_toml_says_where():
    with pytest.raises(ConfigError, match="line 2"):
        site.parse("[site]\ncity = \n", "site.toml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        site.load(tmp_path / "site.toml")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("latitude = 49.7", "latitude = nan", "nan is no number"),
        ("longitude = 13.4", "longitude = -inf", "no number"),
        ("port = 5020", "port = 5020\nbaud = 0", ">= 50"),
        ("port = 5020", f"port = {10**30}", "64 bits"),
        ('zone = "Europe/Prague"', 'zone = "Europe"', "time zone"),
        ('zone = "Europe/Prague"', 'data = "a\\u0000b"', "NUL"),
        ('zone = "Europe/Prague"', 'zone = "UTC"\nperiod_s = 1e9', "<= 86400"),
        ('zone = "Europe/Prague"', "zone = " + "[" * 20_000, "nested"),
        ('zone = "Europe/Prague"', f"zone = {'1' * 5000}", "digits"),
    ],
)
def test_a_setting_that_cannot_work_is_named(old, new, named):
    with pytest.raises(ConfigError, match=named):
        site.parse(GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\xff\xfe[site]", "utf-8"),
        (b"#" * (site.MOST_BYTES + 1), "more than"),
    ],
)
def test_a_file_that_is_no_site_file_is_one_clear_sentence(content, named, tmp_path):
    path = tmp_path / "site.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=named):
        site.load(path)


@pytest.mark.parametrize(
    ("setting", "content", "named"),
    [
        ("password_file", None, "password_file .*No such file"),
        ("password_file", b"\xff", "password_file .*utf-8"),
        ("tls_ca", None, "tls_ca .*No such file"),
        ("tls_ca", b"no certificate", "tls_ca"),
    ],
)
def test_files_that_the_broker_needs_are_read_with_the_site_file(
    setting, content, named, tmp_path
):
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    path = tmp_path / "site.toml"
    path.write_text(f'{GOOD}\n[broker]\n{setting} = "{secret}"\n', "utf-8")
    site.load(path)  # what a technician checks on another machine
    with pytest.raises(ConfigError, match=named):
        site.Source(path).load()


def test_a_password_is_read_without_its_line_end(tmp_path):
    (tmp_path / "secret").write_text("s3cret\n", "utf-8")
    broker = site.Broker(password_file=str(tmp_path / "secret"))
    assert broker.password() == "s3cret"


def test_a_missing_password_is_a_note_to_a_technician_and_ends_a_start(
    tmp_path, capsys
):
    path = tmp_path / "site.toml"
    path.write_text(f'{GOOD}\n[broker]\npassword_file = "{tmp_path}/no"\n', "utf-8")
    assert cli.main(["check", str(path)]) == 0
    assert "note: password_file" in capsys.readouterr().out
    assert cli.main(["run", str(path)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith(f"password_file {tmp_path}/no")
