"""Images and documents that come inline as data URLs."""

import re
from typing import Any

from loam_shared.errors import InvalidRequestError

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*;base64,([A-Za-z0-9+/]+={0,2})")
_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}


def image_block(url: str, where: str) -> dict[str, Any]:
    """A Converse image block. Raises InvalidRequestError."""
    kind, data = _inline(url, _IMAGES, where)
    return {"image": {"format": kind, "source": {"bytes": data}}}


def document_block(url: str, filename: str, where: str) -> dict[str, Any]:
    """A Converse document block; its name is cut down to the characters that Bedrock allows."""
    kind, data = _inline(url, _DOCUMENTS, where)
    name = re.sub(r"\s+", " ", re.sub(r"[^A-Za-z0-9\s()\[\]-]", " ", filename)).strip()[:200]
    return {"document": {"format": kind, "name": name or "document", "source": {"bytes": data}}}


def _inline(url: str, kinds: dict[str, str], where: str) -> tuple[str, str]:
    match = _DATA_URL.fullmatch(url)
    if match is None:
        raise InvalidRequestError(
            f"{where}: must be a data URL with base64, such as data:image/png;base64,…", param=where
        )
    kind = kinds.get(match[1].lower())
    if kind is None:
        raise InvalidRequestError(f"{where}: {match[1]} is not taken; send one of {', '.join(kinds)}", param=where)
    return kind, match[2]
