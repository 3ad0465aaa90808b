"""What a disk that failed or is full leaves behind: mended, or told in one sentence, and never taken for written."""

import asyncio
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from loam_cli.adapters.control import RunningPlatform
from loam_cli.errors import CommandError
from loam_cli.local.cluster import LocalCluster
from loam_cli.local.data import DataFolder, PlatformSecrets, Ports
from loam_cli.local.platform import LossyLog, Options, in_background, running
from loam_cli.local.process import Guard, Program, State, Supervised
from loam_cli.local.report import Report
from loam_cli.local.store import Store
from loam_operator.cluster import Manifest, Ref
from loam_shared.errors import UnavailableError

NAMESPACE: Manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acme"}}


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path)
    folder.prepare()
    return folder


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: to whoever writes, that is a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("content", ["", '{"public": 1', "[1]", '{"public": "x"}', '{"public": 99999999}', "\0\0\0"])
def test_a_damaged_list_of_ports_is_made_anew(data: DataFolder, content: str) -> None:
    (data.root / "ports.json").write_text(content)
    port = Ports(data, {}).of("public")
    assert json.loads((data.root / "ports.json").read_text()) == {"public": port}


@pytest.mark.parametrize("damage", ["", "half", "zeros"])
@pytest.mark.parametrize("name", ["admin-token", "signing-key.json", "redis-password", "storage-key-id"])
def test_a_damaged_secret_that_is_told_anew_at_every_start_is_made_anew(
    data: DataFolder, name: str, damage: str
) -> None:
    PlatformSecrets.load(data)
    data.postgres.mkdir()
    before = data.secret(name).read_text()
    data.secret(name).write_text({"": "", "half": before[:7], "zeros": "\0" * len(before)}[damage])
    PlatformSecrets.load(data)
    after = data.secret(name).read_text()
    assert len(after) == len(before)
    assert after != before
    assert after.isprintable()


@pytest.mark.parametrize("name", ["database-password", "encryption-key"])
def test_a_secret_that_the_data_cannot_do_without_is_never_made_anew_over_it(data: DataFolder, name: str) -> None:
    PlatformSecrets.load(data)
    data.postgres.mkdir()
    data.secret(name).write_text("short")
    with pytest.raises(CommandError, match=f"{name} is damaged"):
        PlatformSecrets.load(data)
    data.secret(name).unlink()
    with pytest.raises(CommandError, match=f"{name} is missing"):
        PlatformSecrets.load(data)


def test_whole_secrets_stay(data: DataFolder) -> None:
    assert PlatformSecrets.load(data) == PlatformSecrets.load(data)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"1", b"\xff\0"])
def test_a_damaged_note_of_what_runs_means_that_nothing_does(data: DataFolder, content: bytes) -> None:
    data.running.write_bytes(content)
    assert RunningPlatform.find(data.root) is None


async def test_damaged_objects_are_told_in_one_sentence(data: DataFolder) -> None:
    store = Store(data.objects)
    cluster = LocalCluster(store, lambda *_: "")
    await cluster.apply(NAMESPACE)
    store.close()
    whole = data.objects.read_bytes()
    for damaged in (whole[:2000], os.urandom(8192), whole[:4096] + os.urandom(len(whole) - 4096)):
        data.objects.write_bytes(damaged)
        with pytest.raises(CommandError, match="cannot be read"):
            Store(data.objects)


@pytest.mark.parametrize("lost", ["missing", "empty"])
async def test_objects_that_are_lost_are_not_begun_anew_beside_their_data(data: DataFolder, lost: str) -> None:
    data.postgres.mkdir()
    if lost == "empty":
        data.objects.touch()
    with pytest.raises(CommandError, match="missing or empty"):
        async with running(Options([], data.root), Report(Console(quiet=True))):
            pass


async def test_what_could_not_be_kept_does_not_count_as_written(data: DataFolder) -> None:
    store = Store(data.objects)
    cluster = LocalCluster(store, lambda *_: "")
    await cluster.apply(NAMESPACE)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "key", "namespace": "acme"},
        "data": {"key": "x" * 100_000},
    }
    with files_of_at_most(50_000), pytest.raises(UnavailableError, match="cannot be written"):
        await cluster.create(secret)
    assert cluster.get(Ref.of(secret)) is None
    await cluster.create(secret)
    store.close()
    again = LocalCluster(Store(data.objects), lambda *_: "")
    assert again.get(Ref.of(secret)) is not None


async def test_a_program_comes_back_once_there_is_room_for_its_log(data: DataFolder, tmp_path: Path) -> None:
    guard = await Guard.start(str(data.root))
    log = tmp_path / "logs" / "of.log"
    log.parent.rmdir()
    program = Program("sleep", ("/bin/sleep", "60"), {}, ready=_at_once, cwd=tmp_path)
    states: asyncio.Queue[State] = asyncio.Queue()
    supervised = Supervised(program, guard, log, lambda moved: states.put_nowait(moved.state))
    supervised.start()
    try:
        async with asyncio.timeout(10):
            assert [await states.get(), await states.get()] == [State.STARTING, State.CRASHED]
            log.parent.mkdir()
            assert [await states.get(), await states.get()][-1] is State.READY
    finally:
        await supervised.stop()
        await guard.close()


async def _at_once() -> bool:
    return True


async def test_a_refusal_ends_the_platform_as_itself_and_not_as_one_of_a_group() -> None:
    with pytest.raises(CommandError, match="not ready"):
        async with in_background(asyncio.Event().wait()):
            raise CommandError("not ready")


async def test_what_fails_in_the_background_ends_the_platform_as_itself() -> None:
    async def fails() -> None:
        raise CommandError("no room")

    with pytest.raises(CommandError, match="no room"):
        async with in_background(fails()):
            await asyncio.Event().wait()


def test_a_full_disk_costs_lines_of_the_log_and_nothing_else() -> None:
    with Path("/dev/full").open("ab", buffering=0) as file:
        LossyLog(file).write("no room\n")
