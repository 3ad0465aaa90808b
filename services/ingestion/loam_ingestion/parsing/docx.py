"""Word documents: paragraphs and tables in the order of the body."""

import io
import zipfile
from collections.abc import Iterator

from docx import Document
from docx.opc.exceptions import OpcError
from docx.table import Table
from docx.text.paragraph import Paragraph

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing import Extracted, Heading

_UNPACKED_BYTES = 256 * 1024 * 1024
_BROKEN = "The Word document is broken; open it in Word or LibreOffice, save it as .docx and send it again."


def extract(data: bytes) -> Extracted:
    """Raises UnreadableDocumentError for broken files and for those that unpack to an absurd size."""
    _refuse_bomb(data)
    try:
        document = Document(io.BytesIO(data))
    except (OpcError, SyntaxError, KeyError, ValueError, zipfile.BadZipFile):  # lxml's XML errors are SyntaxErrors
        raise UnreadableDocumentError(_BROKEN) from None
    lines, headings, offset = [], [], 0
    for text, level in _blocks(document):
        if level:
            headings.append(Heading(offset, level, text))
        lines.append(text)
        offset += len(text) + 2
    text = "\n\n".join(lines)
    if not text.strip():
        raise UnreadableDocumentError("The Word document has no text (only pictures, perhaps); send one with text.")
    title = document.core_properties.title or next((heading.title for heading in headings), None)
    return Extracted(text, title, tuple(headings))


def _refuse_bomb(data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile:
        raise UnreadableDocumentError(_BROKEN) from None
    if unpacked > _UNPACKED_BYTES:
        raise UnreadableDocumentError(
            f"The Word document unpacks to {unpacked // 2**20} MiB, more than the {_UNPACKED_BYTES // 2**20} allowed; "
            "remove its pictures or split it."
        )


def _blocks(document: "Document") -> Iterator[tuple[str, int]]:
    """Each block's text and its heading level, 0 for ordinary text."""
    for block in document.iter_inner_content():
        if isinstance(block, Table):
            rows = ("\t".join(cell.text.strip() for cell in row.cells) for row in block.rows)
            yield "\n".join(rows), 0
        elif isinstance(block, Paragraph) and block.text.strip():
            yield block.text.strip(), _level(block)


def _level(paragraph: Paragraph) -> int:
    style = paragraph.style.name if paragraph.style is not None else ""
    if style == "Title":
        return 1
    kind, _, number = style.partition(" ")
    return int(number) if kind == "Heading" and number.isdigit() else 0
