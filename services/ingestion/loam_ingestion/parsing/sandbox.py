"""Parsing in a process of its own: a document that crashes, hangs or swells its parser takes nothing else with it.

What holds: limits on address space, CPU and wall time, no file may be written, no inherited descriptor and no variable
of the worker's environment (so no credential) reaches the process, and on Linux it has no network wherever the kernel
lets a process leave it (as root, or with user namespaces). Where it does not, the pod's NetworkPolicy is what remains.
"""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass

import orjson

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing import Extracted, Heading
from loam_ingestion.settings import ParsingLimits

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True)
class Parsed:
    """A document's text, what its bytes turned out to be, and whether its parser had no network."""

    extracted: Extracted
    media_type: str
    isolated: bool


async def parse(name: str, media_type: str | None, data: bytes, limits: ParsingLimits) -> Parsed:
    """Parse `data` in a fresh process. Raises UnreadableDocumentError."""
    request = limits.model_dump() | {"name": name, "media_type": media_type}
    output, status = await _run(orjson.dumps(request) + b"\n" + data, limits.wall_seconds)
    if status != 0:
        raise UnreadableDocumentError(_explained(status))
    answer = orjson.loads(output)
    if "error" in answer:
        raise UnreadableDocumentError(answer["error"])
    return Parsed(_extracted(answer["extracted"]), answer["media_type"], answer["isolated"])


async def _run(request: bytes, wall_seconds: float) -> tuple[bytes, int]:
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
            output, _ = await process.communicate(request)
    except TimeoutError:
        raise UnreadableDocumentError(
            f"Parsing took longer than {wall_seconds:.0f} seconds; split the document or simplify it."
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return output, process.returncode


def _explained(status: int) -> str:
    if status == -signal.SIGXCPU:
        return "Parsing took more processor time than allowed; split the document or simplify it."
    return "The parser gave up on the document, which is broken or too large; export it again, or split it."


def _extracted(found: dict[str, object]) -> Extracted:
    headings = tuple(Heading(**heading) for heading in found["headings"])  # type: ignore[attr-defined]  # our own JSON
    return Extracted(str(found["text"]), found["title"], headings, tuple(found["page_starts"]))  # type: ignore[arg-type]  # our own JSON
