"""The process that parses one document and ends with it."""

import os
import re
import socket
from collections.abc import Callable
from ctypes import Structure
from typing import NoReturn

import orjson

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing import Extracted, TextLimits, docx, html, json, leash, markdown, pdf, seccomp, text
from loam_ingestion.parsing.formats import MEDIA_TYPES, format_of
from loam_ingestion.parsing.wire import HEADINGS, LENGTHS, TITLE_CHARACTERS, Request

_EXTRACT: dict[str, Callable[[bytes, TextLimits], Extracted]] = {
    "text": text.extract,
    "csv": text.extract,
    "tsv": text.extract,
    "jsonl": text.extract,
    "json": json.extract,
    "markdown": markdown.extract,
    "html": html.extract,
    "pdf": pdf.extract,
    "docx": docx.extract,
}
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_NOT_IN_TITLES = re.compile("[\0-\x1f\x7f\ud800-\udfff\ufffd]+")


def warm_up() -> None:
    """Do now, once, what parsers otherwise do at their first document."""
    text.warm_up()
    html.warm_up()
    docx.warm_up()
    pdf.warm_up()


def run(request: Request, document: int, answer: int, zygote: int, filtered: Structure | None) -> NoReturn:
    """Answer and end. Whatever goes wrong shows by the exit status; nothing returns into the zygote."""
    status = 1
    try:
        leash.end_with_parent()
        if os.getppid() == zygote:
            channel = socket.socket(fileno=answer)
            leash.limit(request.memory_bytes, request.cpu_seconds, request.wall_seconds)
            if filtered is not None:
                seccomp.confine(filtered)
            _send(channel, *_answer(request, document))
            status = 0
    finally:
        os._exit(status)


def _answer(request: Request, document: int) -> tuple[dict[str, object], str]:
    try:
        data = _content(document)
        kind = format_of(request.name, request.media_type, data)
        extracted = _EXTRACT[kind](data, TextLimits(request.text_characters, request.pages))
        _check(extracted, request.text_characters)
    except UnreadableDocumentError as error:
        return {"error": str(error)}, ""
    except RecursionError:
        return {"error": "The document is nested too deeply; export it again in a simpler form."}, ""
    except MemoryError:
        return {"error": "Parsing it takes more memory than allowed; split the document."}, ""
    return {"media_type": MEDIA_TYPES[kind]} | _beside_text(extracted), extracted.text


def _content(document: int) -> bytes:
    """All of it, wherever the descriptor's position is, which the worker shares."""
    size, parts, offset = os.fstat(document).st_size, [], 0
    while part := os.pread(document, size - offset, offset):
        parts.append(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _check(extracted: Extracted, limit: int) -> None:
    # Spaces and characters of no width are all that some documents hold.
    if not any(character.isprintable() and not character.isspace() for character in extracted.text):
        raise UnreadableDocumentError("There is no text in the document; send one with text.")
    if len(extracted.text) > limit:
        raise UnreadableDocumentError(
            f"It holds {len(extracted.text):,} characters of text, more than the {limit:,} allowed; split the document."
        )


def _beside_text(extracted: Extracted) -> dict[str, object]:
    headings = [(found.start, found.level, _title(found.title)) for found in extracted.headings[:HEADINGS]]
    return {
        "title": _title(extracted.title or "") or None,
        "headings": [heading for heading in headings if heading[2]],
        "page_starts": extracted.page_starts,
    }


def _title(found: str) -> str:
    return " ".join(_NOT_IN_TITLES.sub("", found[: 2 * TITLE_CHARACTERS]).split())[:TITLE_CHARACTERS]


def _send(channel: socket.socket, header: dict[str, object], found: str) -> None:
    head = orjson.dumps(header)
    # PostgreSQL takes no U+0000 and UTF-8 no lone surrogate; each becomes one other character, so that spans hold.
    body = _UNSTORABLE.sub("\ufffd", found).encode()
    channel.sendall(LENGTHS.pack(len(head), len(body)) + head)
    if body:  # The worker closes once it has all, and even sending nothing would then be an error.
        channel.sendall(body)
