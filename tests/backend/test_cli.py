"""``duha backend`` on the command line: who may sign in, and what is in the inventory."""

import pytest

from duha_backend.cli import main
from duha_backend.lighting.inventory import Asset
from duha_backend.registry import Registry


@pytest.fixture
def folder(tmp_path):
    registry = Registry.in_folder(tmp_path)
    registry.put_assets([Asset("L1", "luminaire", "", "", "", 49.7, 13.3)])
    registry.close()
    return ["--data", str(tmp_path)]


def test_a_token_is_made_listed_and_revoked(folder, capsys):
    assert main(["token", "eva", "--role", "viewer", *folder]) == 0
    assert main(["tokens", *folder]) == 0
    assert "viewer    eva" in capsys.readouterr().out
    assert main(["token", "eva", "--revoke", *folder]) == 0
    assert "1 tokens and sessions ended" in capsys.readouterr().out
    assert main(["tokens", *folder]) == 0
    assert "eva" not in capsys.readouterr().out
    assert main(["token", "eva", "--revoke", *folder]) == 2


def test_an_asset_is_taken_out_of_the_inventory(folder, capsys):
    assert main(["remove-asset", "L1", *folder]) == 0
    assert "luminaire L1" in capsys.readouterr().out
    assert main(["remove-asset", "L1", *folder]) == 2
    assert "no asset 'L1'" in capsys.readouterr().err
