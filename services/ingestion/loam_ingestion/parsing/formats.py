"""Which format a document is: its name says what it should be, its first bytes what it is, and both must agree."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath

from loam_ingestion.errors import UnreadableDocumentError

_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@dataclass(frozen=True)
class _Format:
    suffixes: tuple[str, ...]
    media_types: tuple[str, ...]
    """The first one is the one that documents of the format are said to have."""


_FORMATS = {
    "text": _Format((".txt", ".text", ".log"), ("text/plain",)),
    "markdown": _Format((".md", ".markdown"), ("text/markdown", "text/x-markdown")),
    "html": _Format((".html", ".htm", ".xhtml"), ("text/html", "application/xhtml+xml")),
    "csv": _Format((".csv",), ("text/csv", "application/csv")),
    "tsv": _Format((".tsv",), ("text/tab-separated-values",)),
    "json": _Format((".json",), ("application/json", "text/json")),
    "jsonl": _Format((".jsonl", ".ndjson"), ("application/x-ndjson", "application/jsonl", "application/ndjson")),
    "pdf": _Format((".pdf",), ("application/pdf",)),
    "docx": _Format((".docx",), (_WORD,)),
}
MEDIA_TYPES = {name: known.media_types[0] for name, known in _FORMATS.items()}
_BY_SUFFIX = {suffix: name for name, known in _FORMATS.items() for suffix in known.suffixes}
_BY_MEDIA_TYPE = {media_type: name for name, known in _FORMATS.items() for media_type in known.media_types}
_LABELS = {"pdf": "a PDF", "docx": "a Word document (.docx)"}
_READABLE = "Loam reads .txt, .md, .html, .pdf, .docx, .csv, .tsv, .json and .jsonl"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OTHERS = {
    "ole": "This is a password-protected or pre-2007 Office file; save it as .docx without a password and send that.",
    "rtf": "This is a Rich Text document; save it as .docx and send that.",
    "xlsx": "This is an Excel workbook; save each of its sheets as .csv and send those.",
    "pptx": "This is a PowerPoint presentation; export it as .pdf and send that.",
    "odf": "This is an OpenDocument file; save it as .docx (a spreadsheet as .csv) and send that.",
}
_ZIP_ENTRIES = {"word/document.xml": "docx", "xl/workbook.xml": "xlsx", "ppt/presentation.xml": "pptx"}


def format_of(name: str, media_type: str | None, data: bytes) -> str:
    """One of the names of `MEDIA_TYPES`.

    Raises UnreadableDocumentError when it is none of them, or when name and content contradict each other.
    """
    if not data.strip():
        raise UnreadableDocumentError("The document is empty; send it again with its content.")
    declared = _declared(name, media_type)
    actual = _sniffed(data, may_be_text=declared is not None and declared not in _LABELS)
    if actual in _OTHERS:
        raise UnreadableDocumentError(_OTHERS[actual])
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


def _sniffed(data: bytes, *, may_be_text: bool) -> str | None:
    if data.startswith(_OLE):
        return "ole"
    if data.startswith(b"{\\rtf"):
        return "rtf"
    # The PDF standard's readers look for the marker in the first kilobyte, and real files do begin with rubbish; but a
    # text may speak of the marker.
    if data.startswith(b"%PDF-") or (not may_be_text and b"%PDF-" in data[:1024]):
        return "pdf"
    return _sniffed_zip(data) if data.startswith(b"PK\x03\x04") else None


def _sniffed_zip(data: bytes) -> str | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return None
    if b"mimetypeapplication/vnd.oasis.opendocument" in data[:128]:
        return "odf"
    return next((kind for entry, kind in _ZIP_ENTRIES.items() if entry in entries), None)
