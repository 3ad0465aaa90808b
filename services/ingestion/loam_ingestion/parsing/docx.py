"""Word documents: paragraphs and tables in the order of the body, as they read with all changes accepted."""

import io
import zipfile
from dataclasses import dataclass, field

from docx import Document
from docx.document import Document as OpenDocument
from docx.opc.exceptions import OpcError
from docx.oxml.ns import qn
from lxml import etree

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing import Extracted, Heading, TextLimits

_UNPACKED_BYTES = 256 * 1024 * 1024
_ENTRIES = 10_000
_BROKEN = "The Word document is broken; open it in Word or LibreOffice, save it as .docx and send it again."
_BREAK = "\n\n"
_TITLE_LEVEL = 1
_DEEPEST_STYLE = 32

_PARAGRAPH, _TABLE, _ROW, _CELL = qn("w:p"), qn("w:tbl"), qn("w:tr"), qn("w:tc")
_TEXT, _STYLE, _OUTLINE = qn("w:t"), qn("w:pStyle"), qn("w:outlineLvl")
_SPACES = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
# What was moved away or deleted, what is written twice for old readers, and the properties, which hold no text.
_SKIPPED = {
    *(qn("w:del"), qn("w:moveFrom"), qn("w:rPr"), qn("w:tblPr"), qn("w:sectPr"), qn("w:tabs")),
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
}
_READ = {_PARAGRAPH, _TABLE, _ROW, _CELL, _TEXT, *_SPACES}
_VALUE = qn("w:val")


def warm_up() -> None:
    """Read a first document."""
    document, out = Document(), io.BytesIO()
    document.add_paragraph("text")
    document.save(out)
    extract(out.getvalue(), TextLimits(text_characters=100, pages=1))


def extract(data: bytes, limits: TextLimits) -> Extracted:  # noqa: ARG001 - every format is called in the same way
    """Raises UnreadableDocumentError for broken files and for those that unpack to an absurd size."""
    _refuse_bomb(data)
    document = _open(data)
    writer = _Writer(_levels(document.styles.element))
    _walk(document.element.body, writer)
    if not writer.blocks:
        raise UnreadableDocumentError("The Word document has no text (only pictures, perhaps); send one with text.")
    title = document.core_properties.title or next((heading.title for heading in writer.headings), None)
    return Extracted(_BREAK.join(writer.blocks), title, tuple(writer.headings))


def _open(data: bytes) -> OpenDocument:
    try:
        document = Document(io.BytesIO(data))
        # These are read when they are first asked for.
        sound = document.element.body is not None and document.styles is not None and document.core_properties
    except etree.XMLSyntaxError as error:
        if error.code == etree.ErrorTypes.ERR_NO_MEMORY:
            raise MemoryError from None
        raise UnreadableDocumentError(_BROKEN) from None
    # python-docx trips over parts that are missing or not what they are said to be.
    except (OpcError, KeyError, ValueError, AttributeError, TypeError, zipfile.BadZipFile):
        raise UnreadableDocumentError(_BROKEN) from None
    if not sound:
        raise UnreadableDocumentError(_BROKEN)
    return document


def _refuse_bomb(data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise UnreadableDocumentError(_BROKEN) from None
    # What an entry says of its size is the most that is read of it, so entries that overlap count as often as they are.
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > _UNPACKED_BYTES:
        raise UnreadableDocumentError(
            f"The Word document unpacks to {unpacked // 2**20:,} MiB, more than the {_UNPACKED_BYTES // 2**20} "
            "allowed; remove its pictures or split it."
        )
    if len(entries) > _ENTRIES:
        raise UnreadableDocumentError(
            f"The Word document holds {len(entries):,} parts, more than the {_ENTRIES:,} allowed; split it."
        )


def _levels(styles: etree._Element) -> dict[str, int]:
    """The heading level of each style that has one, its own or that of the style it is based on."""
    own: dict[str, int] = {}
    based_on: dict[str, str] = {}
    for style in styles.iterchildren(qn("w:style")):
        name = style.get(qn("w:styleId"), "")
        if level := _own_level(style):
            own[name] = level
        base = style.find(qn("w:basedOn"))
        if base is not None:
            based_on[name] = base.get(_VALUE, "")
    return {name: level for name in own.keys() | based_on.keys() if (level := _inherited(name, own, based_on))}


def _own_level(style: etree._Element) -> int:
    named = style.find(qn("w:name"))
    # Word keeps the names of its own styles in English, whatever language it speaks.
    kind, _, number = (named.get(_VALUE, "") if named is not None else "").lower().partition(" ")
    if kind == "title" and not number:
        return _TITLE_LEVEL
    return int(number) if kind == "heading" and number.isdecimal() and len(number) == 1 else _outline(style)


def _outline(parent: etree._Element) -> int:
    found = parent.find(f"{qn('w:pPr')}/{_OUTLINE}")
    value = found.get(_VALUE, "") if found is not None else ""
    # 9 is body text.
    return int(value) + 1 if value.isdecimal() and int(value) < 9 else 0


def _inherited(name: str, own: dict[str, int], based_on: dict[str, str]) -> int:
    for _ in range(_DEEPEST_STYLE):  # styles may be based on one another in a circle
        if name in own:
            return own[name]
        name = based_on.get(name, "")
    return 0


@dataclass
class _Writer:
    """Collects blocks: each a paragraph, or a whole table with a line for each row and tabs between cells."""

    levels: dict[str, int]
    blocks: list[str] = field(default_factory=list)
    headings: list[Heading] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    tables: int = 0
    level: int = 0
    length: int = 0

    def enter(self, node: etree._Element) -> None:
        tag = node.tag
        if tag == _TEXT:
            self.parts.append(node.text or "")
        elif tag in _SPACES:
            self.parts.append(_SPACES[tag])
        elif tag == _TABLE:
            self._flush()
            self.tables += 1
        elif tag == _PARAGRAPH:
            self._begin_paragraph(node)

    def leave(self, node: etree._Element) -> None:
        tag = node.tag
        if tag == _PARAGRAPH and not self.tables:
            self._flush()
        elif tag in {_CELL, _ROW}:
            self._end("\t" if tag == _CELL else "\n")
        elif tag == _TABLE:
            self.tables -= 1
            self._flush()

    def _begin_paragraph(self, node: etree._Element) -> None:
        if self.tables:
            self._space()
            return
        self._flush()
        style = node.find(f"{qn('w:pPr')}/{_STYLE}")
        self.level = _outline(node) or (self.levels.get(style.get(_VALUE, ""), 0) if style is not None else 0)

    def _space(self) -> None:
        """Between the paragraphs of a cell."""
        if self.parts and not self.parts[-1].endswith(("\t", "\n", " ")):
            self.parts.append(" ")

    def _end(self, mark: str) -> None:
        if self.tables > 1:  # a table within a cell reads as a line of it
            self._space()
            return
        # A row's end takes the place of its last cell's.
        if mark == "\n" and self.parts and self.parts[-1] == "\t":
            self.parts.pop()
        self.parts.append(mark)

    def _flush(self) -> None:
        if self.tables:
            return
        text, self.parts = "".join(self.parts).strip(), []
        if not text:
            return
        if self.level:
            self.headings.append(Heading(self.length, self.level, text))
        self.blocks.append(text)
        self.length += len(text) + len(_BREAK)
        self.level = 0


def _walk(body: etree._Element, writer: _Writer) -> None:
    walker = etree.iterwalk(body, events=("start", "end"), tag=_READ | _SKIPPED)
    for event, node in walker:
        if event == "end":
            writer.leave(node)
        elif node.tag in _SKIPPED:
            walker.skip_subtree()
        else:
            writer.enter(node)
