"""A document that crashes, hangs or swells its parser harms no other, and no process outlives its worker."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Iterator

import psutil
import pytest
import pytest_asyncio

from loam_ingestion.errors import ParserUnavailableError, UnreadableDocumentError
from loam_ingestion.parsing.pool import Parsers, parsers
from loam_ingestion.parsing.process import _said
from loam_ingestion.parsing.wire import LENGTHS
from loam_ingestion.settings import ParsingLimits

from ._documents import parse, refusal

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has what this is about")
SLOW = b"<p>" + b"<b>x</b>" * 4_000_000
LONG = b"<p>" + b"<b>x</b>" * 200_000


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[Parsers]:
    async with parsers(ParsingLimits(wall_seconds=60), 2) as running:
        yield running


@contextlib.contextmanager
def started() -> Iterator[list[psutil.Process]]:
    """The zygotes that are started within."""
    before, found = set(psutil.Process().children()), []
    yield found
    found += set(filter(_is_zygote, psutil.Process().children())) - before


async def under_way(pool: Parsers, data: bytes) -> tuple[asyncio.Task[object], psutil.Process, psutil.Process]:
    """A parse with its zygote and its child, once that is at work."""
    task: asyncio.Task[object] = asyncio.create_task(parse(pool, "a.html", data))
    async with asyncio.timeout(30):
        while True:
            for zygote in filter(_is_zygote, psutil.Process().children()):
                for child in zygote.children():
                    return task, zygote, child
            await asyncio.sleep(0.005)


def _is_zygote(process: psutil.Process) -> bool:
    """Other processes of the tests are children of this one, too: the servers' leashes."""
    try:
        return "loam_ingestion.parsing" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


async def ended(*processes: psutil.Process) -> bool:
    """Whether they end within seconds; a zombie has ended."""
    for _ in range(1000):
        if not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_documents_share_a_helper_process_and_each_has_its_own_child(pool):
    with started() as zygotes:
        for _ in range(3):
            assert (await parse(pool, "a.txt", b"hello")).extracted.text == "hello"
    [zygote] = zygotes
    assert zygote.num_threads() == 1
    assert zygote.children() == []


@linux
async def test_the_helper_process_has_neither_the_worker_s_variables_nor_its_files(pool, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with started() as zygotes, (tmp_path / "key").open("w") as key:
        os.set_inheritable(key.fileno(), True)
        await parse(pool, "a.txt", b"hello")
    [zygote] = zygotes
    assert not set(zygote.environ()) - {"PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LC_CTYPE"}
    assert zygote.num_fds() == 4  # three to nowhere, and its end of the worker's line
    assert zygote.open_files() == []


async def test_a_parser_that_wants_too_much_memory_is_stopped():
    async with parsers(ParsingLimits(memory_bytes=100 << 20), 1) as small:
        assert "split" in await refusal(small, "a.html", LONG)
        assert (await parse(small, "a.txt", b"hello")).extracted.text == "hello"


async def test_a_parser_that_takes_too_long_is_stopped_and_says_what_took_too_long():
    async with parsers(ParsingLimits(cpu_seconds=1), 1) as pool:
        assert "processor time" in await refusal(pool, "a.html", SLOW)
    async with parsers(ParsingLimits(wall_seconds=0.1), 1) as pool:
        assert "took longer" in await refusal(pool, "a.html", SLOW)
        # The process that was killed for it is replaced.
        assert (await parse(pool, "a.txt", b"hello")).extracted.text == "hello"


async def test_others_are_parsed_while_one_document_keeps_its_parser_busy(pool):
    task, zygote, child = await under_way(pool, SLOW)
    for number in range(20):
        assert (await parse(pool, "a.txt", b"text %d" % number)).extracted.text == f"text {number}"
    assert not task.done()
    child.send_signal(signal.SIGSEGV)
    with pytest.raises(UnreadableDocumentError, match="gave up on the document"):
        await task
    assert zygote.is_running()  # a crash is the child's alone


async def test_a_cancelled_parse_ends_its_child(pool):
    task, zygote, child = await under_way(pool, SLOW)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ended(zygote, child)
    assert (await parse(pool, "a.txt", b"hello")).extracted.text == "hello"


async def test_a_helper_process_that_dies_is_replaced(pool):
    with started() as zygotes:
        await asyncio.gather(parse(pool, "a.txt", b"one"), parse(pool, "a.txt", b"two"))
    for zygote in zygotes:
        zygote.kill()
    assert (await parse(pool, "a.txt", b"hello")).extracted.text == "hello"


async def test_a_document_whose_helper_process_dies_once_is_parsed_by_the_next(pool):
    task, zygote, child = await under_way(pool, LONG)
    zygote.kill()
    assert (await task).extracted.text.startswith("xxx")
    assert await ended(child)


async def test_nothing_runs_on_once_the_pool_is_closed():
    async with parsers(ParsingLimits(), 2) as pool:
        task, zygote, child = await under_way(pool, SLOW)
        task.cancel()
    assert await ended(zygote, child)


async def test_a_document_that_is_parsed_while_the_pool_closes_may_be_tried_again():
    async with parsers(ParsingLimits(), 2) as pool:
        task, zygote, child = await under_way(pool, SLOW)
    with pytest.raises(ParserUnavailableError) as refused:
        await task
    assert refused.value.passing
    assert await ended(zygote, child)


@linux
async def test_nothing_runs_on_once_the_worker_is_killed(tmp_path):
    (tmp_path / "slow.html").write_bytes(SLOW)
    code = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from loam_ingestion.parsing.pool import parsers\nfrom loam_ingestion.settings import ParsingLimits\n"
        "async def main():\n"
        "    async with parsers(ParsingLimits(), 1) as pool:\n"
        "        await pool.parse('a.html', None, Path(sys.argv[1]).open('rb'))\n"
        "asyncio.run(main())\n"
    )
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path / "slow.html"))
    helpers: list[psutil.Process] = []
    async with asyncio.timeout(30):
        while len(helpers) < 2:
            await asyncio.sleep(0.01)
            helpers = psutil.Process(worker.pid).children(recursive=True)
        while helpers[-1].cpu_times().user < 0.1:  # noqa: ASYNC110 - until it is at the document
            await asyncio.sleep(0.01)
    # One that cannot come to its own end.
    helpers[-1].suspend()
    worker.kill()
    await worker.wait()
    assert await ended(*helpers)


async def test_a_long_text_is_in_the_worker_twice_at_most():
    text = "words of it " * 400_000
    async with parsers(ParsingLimits(), 1) as pool:
        await parse(pool, "a.txt", b"hello")
        with tempfile.TemporaryFile() as file:
            file.write(text.encode())
            file.flush()
            tracemalloc.start()
            parsed = await pool.parse("a.txt", None, file)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert parsed.extracted.text == text
    assert peak < 2.2 * len(text)


@pytest.mark.parametrize(
    "answer",
    [
        LENGTHS.pack(2**32 - 1, 0),
        LENGTHS.pack(2, 2**32 - 1) + b"{}",
        LENGTHS.pack(2, 0) + b"[]",
        LENGTHS.pack(17, 0) + b'{"headings": [1]}',
        LENGTHS.pack(21, 0) + b'{"page_starts": [-1]}',
        LENGTHS.pack(2, 3) + b"{}\xed\xa0\x80",
    ],
    ids=["endless-header", "endless-text", "no-object", "no-headings", "before-the-text", "lone-surrogate"],
)
async def test_an_answer_that_no_parser_gives_is_not_believed(answer):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(answer)
        with pytest.raises(ValueError, match=r"."):
            await _said(ours, 1000)


@linux
@pytest.mark.parametrize(
    "act",
    [
        "open('/etc/hostname')",
        "open('made', 'w')",
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "os.fork()",
        "os.kill(os.getppid(), 0)",
        "os.execv('/bin/true', ['true'])",
        "os.unlink('made')",
        "os.memfd_create('x')",
    ],
)
def test_a_parser_that_a_document_has_taken_over_reaches_nothing(act, tmp_path):
    code = (
        "import os, socket\nfrom loam_ingestion.parsing import leash, seccomp\n"
        "filtered = seccomp.program()\nleash.limit(1 << 30, 10, 10)\nseccomp.confine(filtered)\n"
        f"try:\n    {act}\nexcept PermissionError:\n    os._exit(7)\nos._exit(0)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 7
