"""HTML: the visible text in reading order, a line per block, without scripts, styles and navigation."""

import codecs
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from encodings import normalize_encoding
from encodings.aliases import aliases

from selectolax.lexbor import LexborHTMLParser, LexborNode

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing import Extracted, Heading, TextLimits
from loam_ingestion.parsing.text import decode, is_marked

_UNSEEN = {"script", "style", "noscript", "template", "svg", "iframe", "nav", "head", "select", "button"}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "dd", "div", "dl", "dt", "fieldset", "figcaption", "figure"),
    *("footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "ol", "p", "pre", "section"),
    *("table", "tr", "ul", "caption", "details", "summary"),
}
_LINES = {"li", "tr", "dd", "dt"}
_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
_SPACE = re.compile(r"\s+")
_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?([\w-]+)", re.IGNORECASE)
# The encodings of the WHATWG's standard that Python has; others that it knows do not belong into pages.
_ENCODINGS = {
    *("utf_8", "cp866", "cp874", "koi8_r", "koi8_u", "mac_roman", "mac_cyrillic", "gbk", "gb2312", "gb18030"),
    *("big5", "big5hkscs", "euc_jp", "iso2022_jp", "shift_jis", "cp932", "euc_kr", "cp949"),
    *(f"cp125{number}" for number in range(9)),
    *(f"iso8859_{number}" for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
}
# Pages that say so are in Windows-1252, says the same standard.
_WESTERN = {"ascii", "latin_1"}
# Building the tree takes time with the square of its depth. Elements whose end tag may be left out do not count.
_DEEPEST = 5_000
_TAG = re.compile(
    rb"<(/?)(?!(?:a|p|li|d[dt]|t[rdh]|thead|tbody|tfoot|option|br|img|hr|input|meta|link|col|wbr)\b)[a-z]", re.I
)


def warm_up() -> None:
    """Load the decoders, and have a first page read."""
    for encoding in _ENCODINGS:
        codecs.lookup(encoding)
    extract(b"<h1>text</h1>", TextLimits(text_characters=100, pages=1))


def extract(data: bytes, limits: TextLimits) -> Extracted:  # noqa: ARG001 - every format is called in the same way
    """Raises UnreadableDocumentError when it is not text."""
    _refuse_depth(data)
    tree = LexborHTMLParser(_decoded(data))
    writer = _Writer()
    if tree.body is not None:
        _walk(tree.body, writer)
    title = tree.css_first("title")
    named = _SPACE.sub(" ", title.text()).strip() if title else ""
    return Extracted(
        writer.text(), named or next((heading.title for heading in writer.headings), None), tuple(writer.headings)
    )


def _refuse_depth(data: bytes) -> None:
    if data.count(b"<") < _DEEPEST:
        return
    depth = 0
    for tag in _TAG.finditer(data):
        depth = max(0, depth - 1) if tag[1] else depth + 1
        if depth > _DEEPEST:
            raise UnreadableDocumentError(
                f"The page nests more than {_DEEPEST:,} elements in one another; export it again in a simpler form."
            )


def _decoded(data: bytes) -> str:
    encoding = _declared(data)
    if encoding and not is_marked(data):
        # The page may be wrong about itself; then the usual order of encodings is tried.
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode(encoding)
    return decode(data)


def _declared(data: bytes) -> str | None:
    found = _CHARSET.search(data[:2048])
    label = normalize_encoding(found[1].decode("ascii")).lower() if found else ""
    name = aliases.get(label, label)
    return "cp1252" if name in _WESTERN else name if name in _ENCODINGS else None


@dataclass
class _Writer:
    """Collects text, collapsing white space as a browser does."""

    parts: list[str] = field(default_factory=list)
    headings: list[Heading] = field(default_factory=list)
    length: int = 0

    def write(self, text: str, *, verbatim: bool = False) -> None:
        shown = text if verbatim else _SPACE.sub(" ", text)
        if not verbatim and self._at_break():
            shown = shown.lstrip(" ")
        if shown:
            self.parts.append(shown)
            self.length += len(shown)

    def break_line(self, lines: int = 1) -> None:
        ending = "".join(part[-lines:] for part in self.parts[-2:])
        missing = lines - (len(ending) - len(ending.rstrip("\n")))
        if self.parts and missing > 0:
            self.write("\n" * missing, verbatim=True)

    def text(self) -> str:
        return "".join(self.parts).rstrip()

    def _at_break(self) -> bool:
        return not self.parts or self.parts[-1].endswith(("\n", " ", "\t"))


@dataclass
class _Open:
    """An element whose children are being walked; `start` and `part` say where in the writer its text begins."""

    children: Iterator[LexborNode]
    tag: str
    verbatim: bool
    start: int = 0
    part: int = 0


def _walk(body: LexborNode, writer: _Writer) -> None:
    """Depth first, with a stack of our own: Python's is not made for pages that nest a thousand elements."""
    stack = [_Open(body.iter(include_text=True), "", verbatim=False)]
    while stack:
        child = next(stack[-1].children, None)
        if child is None:
            _leave(stack.pop(), writer)
            continue
        tag, verbatim = child.tag or "", stack[-1].verbatim
        if tag == "-text":
            writer.write(child.text_content or "", verbatim=verbatim)
        elif tag == "br":
            writer.break_line()
        elif tag not in _UNSEEN:
            stack.append(_enter(child, tag, writer, verbatim=verbatim or tag == "pre"))


def _enter(node: LexborNode, tag: str, writer: _Writer, *, verbatim: bool) -> _Open:
    if tag in _BLOCKS:
        writer.break_line(1 if tag in _LINES else 2)
    if tag == "li":
        writer.write("- ", verbatim=True)
    return _Open(node.iter(include_text=True), tag, verbatim, writer.length, len(writer.parts))


def _leave(element: _Open, writer: _Writer) -> None:
    tag = element.tag
    if tag in {"td", "th"}:
        writer.write("\t", verbatim=True)
    if tag in _HEADINGS:
        title = "".join(writer.parts[element.part :]).strip()
        if title:
            writer.headings.append(Heading(element.start, int(tag[1]), title))
    if tag in _BLOCKS:
        writer.break_line(1 if tag in _LINES else 2)
