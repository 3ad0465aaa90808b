"""What cannot work ends in one clear sentence and an exit code, and leaves nothing running."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loam_cli.local.data import DataFolder, PlatformSecrets
from loam_cli.local.store import Store

from .conftest import SAMPLE, loam, processes_of

pytestmark = pytest.mark.platform


def refused(*arguments: str, data: Path, **environment: str) -> str:
    """The one sentence with which a command is refused."""
    done = loam(*arguments, data=data, **environment)
    assert done.code == 1, done.out + done.err
    assert done.err.startswith("loam: ")
    assert "Traceback" not in done.err
    assert not processes_of(data)
    return done.err.strip()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A copy of the sample to spoil."""
    return shutil.copytree(SAMPLE, tmp_path / "manifests")


def spoil(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_a_negative_budget(sample: Path, data: Path) -> None:
    spoil(sample / "20-tenant.yaml", 'monthlyUsd: "500"', 'monthlyUsd: "-5"')
    said = refused("up", "-f", str(sample), data=data)
    assert (
        'Tenant.loam.dev "acme" is invalid: spec.budget.monthlyUsd: Invalid value: "-5": must be an amount in' in said
    )
    assert not (data / "postgres").exists()


def test_a_pipeline_in_a_namespace_that_does_not_exist(sample: Path, data: Path) -> None:
    spoil(sample / "40-pipeline.yaml", "namespace: acme", "namespace: nowhere")
    assert 'RagPipeline "handbook": namespaces "nowhere" not found' in refused("up", "-f", str(sample), data=data)


def test_a_port_in_use(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("up", "-f", str(SAMPLE), "--port", str(port), data=data)
    assert said == f"loam: port {port} is already in use on 127.0.0.1; choose another one with --port"


def test_a_data_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused("up", "-f", str(SAMPLE), data=tmp_path / "file" / "data")
    assert "cannot be made: Not a directory" in said


def test_a_database_that_does_not_start(data: Path) -> None:
    folder = DataFolder(data)
    folder.prepare()
    PlatformSecrets.load(folder)
    Store(folder.objects).close()
    folder.postgres.mkdir()
    said = refused("up", "-f", str(SAMPLE), data=data)
    assert said.startswith("loam: postgres did not start: ")
    assert "could not" in said
    assert len(said.splitlines()) == 1


def test_aws_without_a_key_for_it(data: Path) -> None:
    said = refused("up", "-f", str(SAMPLE), "--bedrock", "aws", data=data, AWS_BEARER_TOKEN_BEDROCK="")
    assert "AWS_BEARER_TOKEN_BEDROCK" in said


def test_a_platform_without_anything_to_run(data: Path) -> None:
    assert "name manifests with -f" in refused("up", data=data)


def test_a_question_to_a_platform_that_does_not_run(data: Path) -> None:
    assert "no local platform runs on" in refused("ask", "Is anybody there?", data=data)


def test_a_gateway_that_is_not_there(data: Path) -> None:
    said = refused("usage", "--url", "http://127.0.0.1:1", "--api-key", "loam_x", data=data)
    assert said.startswith("loam: the gateway at http://127.0.0.1:1 does not answer")


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own, in memory."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes small disks, which only root may."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can make a small file system to fill")
    stack = []

    def make(options: str) -> Path:
        disk = small_disk(tmp_path / "disk", options)
        try:
            folder = disk.__enter__()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no file system may be mounted here: {error.stderr.decode().strip()}")
        stack.append(disk)
        return folder

    yield make
    for disk in stack:
        disk.__exit__(None, None, None)


def test_a_disk_with_too_little_room(mounted: Callable[[str], Path]) -> None:
    said = refused("up", "-f", str(SAMPLE), data=mounted("size=64m") / "data")
    assert "MiB left, and the platform needs" in said


def test_a_disk_that_fills_up_while_starting(mounted: Callable[[str], Path]) -> None:
    # Room for bytes, but soon not for files: what a full disk is to a program.
    said = refused("up", "-f", str(SAMPLE), data=mounted("size=1g,nr_inodes=120") / "data")
    assert "could not write; free some space" in said
    assert "is full: " in said
