"""Which format a document is: its name says what it should be, its first bytes what it is, and both must agree."""

import io
import zipfile
from pathlib import PurePosixPath

from loam_ingestion.errors import UnreadableDocumentError

_BY_SUFFIX = {
    ".txt": "text",
    ".text": "text",
    ".log": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
}
_BY_MEDIA_TYPE = {
    "text/plain": "text",
    "text/markdown": "markdown",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "application/pdf": "pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
}
MEDIA_TYPES = {name: media_type for media_type, name in reversed(_BY_MEDIA_TYPE.items())}
_LABELS = {"pdf": "a PDF", "docx": "a Word document (.docx)"}
_READABLE = "Loam reads .txt, .md, .html, .pdf and .docx"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def format_of(name: str, media_type: str | None, data: bytes) -> str:
    """One of text, markdown, html, pdf and docx.

    Raises UnreadableDocumentError when it is none of them, or when name and content contradict each other.
    """
    if not data.strip():
        raise UnreadableDocumentError("The document is empty; send it again with its content.")
    declared, actual = _declared(name, media_type), _sniffed(data)
    if actual == "ole":
        raise UnreadableDocumentError(
            "This is a password-protected or pre-2007 Office file; save it as .docx without a password and send that."
        )
    if actual is None and declared in _LABELS:
        raise UnreadableDocumentError(
            f"The name says {_LABELS[declared]}, but the content is not one; export it again or correct the name."
        )
    if actual is not None and declared is not None and actual != declared:
        raise UnreadableDocumentError(
            f"The content is {_LABELS[actual]}, but the name says otherwise; give it the suffix .{actual}."
        )
    chosen = actual or declared
    if chosen is None:
        raise UnreadableDocumentError(f"Its type is not known; {_READABLE}, so convert it or correct its suffix.")
    return chosen


def _declared(name: str, media_type: str | None) -> str | None:
    by_suffix = _BY_SUFFIX.get(PurePosixPath(name).suffix.lower())
    return by_suffix or _BY_MEDIA_TYPE.get((media_type or "").partition(";")[0].strip().lower())


def _sniffed(data: bytes) -> str | None:
    if data.startswith(_OLE):
        return "ole"
    # The PDF standard's readers look for the marker in the first kilobyte, and real files do begin with rubbish.
    if b"%PDF-" in data[:1024]:
        return "pdf"
    return "docx" if data.startswith(b"PK\x03\x04") and _is_docx(data) else None


def _is_docx(data: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return "word/document.xml" in archive.namelist()
    except zipfile.BadZipFile:
        return False
