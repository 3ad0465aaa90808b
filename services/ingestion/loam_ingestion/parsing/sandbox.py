"""Parsing in a process of its own: a document that crashes, hangs or swells its parser takes nothing else with it.

What holds: limits on address space, CPU and wall time, no file may be written, no inherited descriptor and no variable
of the worker's environment (so no credential) reaches the process, and on Linux it has no network wherever the kernel
lets a process leave it (as root, or with user namespaces). Where it does not, the pod's NetworkPolicy is what remains.
"""

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass

import orjson

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing import Extracted, Heading
from loam_ingestion.settings import ParsingLimits

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
# JSON needs at most six bytes for a character; headings and page starts come on top of the text.
_ANSWER_BYTES_PER_CHARACTER = 6
_ANSWER_BYTES_BESIDE_TEXT = 16 << 20


@dataclass(frozen=True)
class Parsed:
    """A document's text, what its bytes turned out to be, and whether its parser had no network."""

    extracted: Extracted
    media_type: str
    isolated: bool


async def parse(name: str, media_type: str | None, data: bytes, limits: ParsingLimits) -> Parsed:
    """Parse `data` in a fresh process. Raises UnreadableDocumentError."""
    request = limits.model_dump() | {"name": name, "media_type": media_type}
    most = _ANSWER_BYTES_PER_CHARACTER * limits.text_characters + _ANSWER_BYTES_BESIDE_TEXT
    output, status = await _run(orjson.dumps(request) + b"\n" + data, limits.wall_seconds, most)
    if status != 0:
        raise UnreadableDocumentError(_explained(status))
    answer = orjson.loads(output)
    if "error" in answer:
        raise UnreadableDocumentError(answer["error"])
    return Parsed(_extracted(answer["extracted"]), answer["media_type"], answer["isolated"])


async def _run(request: bytes, wall_seconds: float, limit: int) -> tuple[bytes, int]:
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "loam_ingestion.parsing"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # A parser's complaints may quote the document, and documents do not go into logs.
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(wall_seconds):
            output = await _exchange(process, request, limit)
            return output, await process.wait()
    except TimeoutError:
        raise UnreadableDocumentError(
            f"Parsing took longer than {wall_seconds:.0f} seconds; split the document or simplify it."
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _exchange(process: asyncio.subprocess.Process, request: bytes, limit: int) -> bytes:
    """Give the process its request and take its answer, of at most `limit` bytes: it might be the document's by now."""
    assert process.stdin is not None
    assert process.stdout is not None
    sending = asyncio.create_task(_send(process.stdin, request))
    try:
        output = bytearray()
        while part := await process.stdout.read(1 << 18):
            output += part
            if len(output) > limit:
                raise UnreadableDocumentError("The document holds more text than allowed; split it.")
        return bytes(output)
    finally:
        sending.cancel()


async def _send(stdin: asyncio.StreamWriter, request: bytes) -> None:
    # A process that dies before it has read everything shows by its exit status.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(request)
        await stdin.drain()
        stdin.close()


def _explained(status: int) -> str:
    if status == -signal.SIGXCPU:
        return "Parsing took more processor time than allowed; split the document or simplify it."
    return "The parser gave up on the document, which is broken or too large; export it again, or split it."


def _extracted(found: dict[str, object]) -> Extracted:
    headings = tuple(Heading(**heading) for heading in found["headings"])  # type: ignore[attr-defined]  # our own JSON
    # A title is kept in PostgreSQL, which takes no U+0000; UTF-16 and PDF have a place for it.
    title = found["title"] and str(found["title"]).replace("\0", "")
    return Extracted(str(found["text"]), title or None, headings, tuple(found["page_starts"]))  # type: ignore[arg-type]  # our own JSON
