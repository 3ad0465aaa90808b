"""The data folder: whose it is, its secrets, its ports."""

import json
import socket
from pathlib import Path

import pytest

from loam_cli.errors import CommandError
from loam_cli.local.data import DataFolder, PlatformSecrets, Ports


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "data")
    folder.prepare()
    return folder


def test_secrets_are_made_once_and_are_for_their_owner_only(data: DataFolder) -> None:
    first, second = PlatformSecrets.load(data), PlatformSecrets.load(data)
    assert first == second
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in data.credentials.iterdir())
    assert data.root.stat().st_mode & 0o777 == 0o700


def test_two_platforms_never_share_a_secret(tmp_path: Path) -> None:
    folders = [DataFolder(tmp_path / name) for name in ("one", "two")]
    for folder in folders:
        folder.prepare()
    one, two = map(PlatformSecrets.load, folders)
    assert one.database_password != two.database_password
    assert one.encryption_key_file.read_text() != two.encryption_key_file.read_text()


def test_a_folder_in_use_is_refused_and_free_again_afterwards(data: DataFolder) -> None:
    with data.lock(), pytest.raises(CommandError, match="in use by another `loam up`"), data.lock():
        pass
    with data.lock():
        pass


def test_ports_are_remembered_and_never_given_twice(data: DataFolder) -> None:
    ports = Ports(data, {})
    names = [f"listener {number}" for number in range(20)]
    chosen = [ports.of(name) for name in names]
    assert len(set(chosen)) == len(names)
    again = Ports(data, {})
    assert [again.of(name) for name in names] == chosen


def test_a_port_that_somebody_took_meanwhile_is_given_up(data: DataFolder) -> None:
    port = Ports(data, {}).of("public")
    with socket.create_server(("127.0.0.1", port)):
        assert Ports(data, {}).of("public") != port


def test_a_given_port_counts_and_is_refused_when_taken(data: DataFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"port {port} is already in use"):
            Ports(data, {"public": port})
    assert Ports(data, {"public": port}).of("public") == port
    assert json.loads((data.root / "ports.json").read_text())["public"] == port
