"""The process that parses one document: ``python -m loam_ingestion.parsing`` with a request on stdin, JSON on stdout.

It first takes away from itself what it will not need, then imports the parser.
"""

import ctypes
import importlib
import os
import resource
import sys
from dataclasses import asdict

import orjson

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing import Extracted
from loam_ingestion.parsing.formats import MEDIA_TYPES, format_of

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def main() -> None:
    request = orjson.loads(sys.stdin.buffer.readline())
    isolated = _leave_the_network()
    _limit(request["memory_bytes"], request["cpu_seconds"])
    answer = _answer(request, sys.stdin.buffer.read())
    sys.stdout.buffer.write(orjson.dumps(answer | {"isolated": isolated}))


def _answer(request: dict[str, str], data: bytes) -> dict[str, object]:
    try:
        kind = format_of(request["name"], request["media_type"], data)
        extracted: Extracted = importlib.import_module(f"loam_ingestion.parsing.{kind}").extract(data)
        _check(extracted, int(request["text_characters"]))
    except UnreadableDocumentError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "Parsing it takes more memory than allowed; split the document."}
    return {"media_type": MEDIA_TYPES[kind], "extracted": asdict(extracted)}


def _check(extracted: Extracted, limit: int) -> None:
    if not extracted.text.strip():
        raise UnreadableDocumentError("There is no text in the document; send one with text.")
    if len(extracted.text) > limit:
        raise UnreadableDocumentError(
            f"It holds {len(extracted.text):,} characters of text, more than the {limit:,} allowed; split the document."
        )


def _leave_the_network() -> bool:
    """Move into a network namespace of its own, which has no interfaces; False where the system does not allow it."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return any(libc.unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))


def _limit(memory_bytes: int, cpu_seconds: int) -> None:
    limits = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    if sys.platform == "linux":  # macOS refuses to limit the address space.
        limits[resource.RLIMIT_AS] = memory_bytes
    for kind, limit in limits.items():
        # At the soft limit of CPU time comes a signal that names the cause, at the hard one a plain kill.
        resource.setrlimit(kind, (limit, limit + 1 if kind == resource.RLIMIT_CPU else limit))
    os.umask(0o077)


if __name__ == "__main__":
    main()
