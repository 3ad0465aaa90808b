"""HTML: the visible text in reading order, a line per block, without scripts, styles and navigation."""

import re
from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser, LexborNode

from loam_ingestion.parsing import Extracted, Heading
from loam_ingestion.parsing.text import decode

_UNSEEN = {"script", "style", "noscript", "template", "svg", "iframe", "nav", "head", "select", "button"}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "dd", "div", "dl", "dt", "fieldset", "figcaption", "figure"),
    *("footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "ol", "p", "pre", "section"),
    *("table", "tr", "ul", "caption", "details", "summary"),
}
_SPACE = re.compile(r"\s+")
_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?([\w-]+)", re.IGNORECASE)


def extract(data: bytes) -> Extracted:
    """Raises UnreadableDocumentError when it is not text."""
    tree = LexborHTMLParser(_decoded(data))
    writer = _Writer()
    if tree.body is not None:
        _walk(tree.body, writer)
    title = tree.css_first("title")
    named = _SPACE.sub(" ", title.text()).strip() if title else ""
    return Extracted(
        writer.text(), named or next((heading.title for heading in writer.headings), None), tuple(writer.headings)
    )


def _decoded(data: bytes) -> str:
    charset = _CHARSET.search(data[:2048])
    if charset:
        try:
            return data.decode(charset[1].decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            pass  # The page is wrong about itself; the usual order of encodings is tried below.
    return decode(data)


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
        ending = "".join(self.parts[-2:])
        missing = lines - (len(ending) - len(ending.rstrip("\n")))
        if self.parts and missing > 0:
            self.write("\n" * missing, verbatim=True)

    def text(self) -> str:
        return "".join(self.parts).rstrip()

    def _at_break(self) -> bool:
        return not self.parts or self.parts[-1].endswith(("\n", " ", "\t"))


def _walk(node: LexborNode, writer: _Writer, *, verbatim: bool = False) -> None:
    for child in node.iter(include_text=True):
        tag = child.tag or ""
        if tag == "-text":
            writer.write(child.text_content or "", verbatim=verbatim)
        elif tag == "br":
            writer.break_line()
        elif tag not in _UNSEEN:
            _walk_element(child, tag, writer, verbatim=verbatim or tag == "pre")


def _walk_element(node: LexborNode, tag: str, writer: _Writer, *, verbatim: bool) -> None:
    if tag in _BLOCKS:
        writer.break_line(1 if tag in {"li", "tr", "dd", "dt"} else 2)
    if tag == "li":
        writer.write("- ", verbatim=True)
    start = writer.length
    _walk(node, writer, verbatim=verbatim)
    if tag in {"td", "th"}:
        writer.write("\t", verbatim=True)
    if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
        title = "".join(writer.parts)[start:].strip()
        if title:
            writer.headings.append(Heading(start, int(tag[1]), title))
    if tag in _BLOCKS:
        writer.break_line(1 if tag in {"li", "tr", "dd", "dt"} else 2)
