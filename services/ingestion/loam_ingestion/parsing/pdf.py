"""PDF: the text layer page by page, with the bookmarks as its headings."""

import itertools
import re

import pypdfium2
from pypdfium2 import PdfDocument, PdfiumError

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing import Extracted, Heading, TextLimits
from loam_ingestion.parsing.wire import TITLE_CHARACTERS

_PAGE_BREAK = "\n\n"
# Each is looked for on its page.
_BOOKMARKS = 10_000
_UNTITLED = {"untitled", "(anonymous)", "(unspecified)"}
# What printing drivers put before the name of the file.
_PRINTED = re.compile(r"^Microsoft (Word|PowerPoint|Excel) - ")
_WARMING = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj "
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj trailer<</Root 1 0 R>>"
)


def warm_up() -> None:
    """Have PDFium read its first page."""
    with PdfDocument(_WARMING) as document:
        _text_of(document, 0)


def extract(data: bytes, limits: TextLimits) -> Extracted:
    """Raises UnreadableDocumentError for encrypted, broken and scanned files, and those with too many pages."""
    document = _open(data)
    if len(document) > limits.pages:
        raise UnreadableDocumentError(
            f"The PDF has {len(document):,} pages, more than the {limits.pages:,} allowed; split it."
        )
    texts = _texts(document, limits.text_characters)
    if not any(text.strip() for text in texts):
        raise UnreadableDocumentError(
            "The PDF has no text layer (a scan, probably); run text recognition over it, with ocrmypdf for example, "
            "and send the result."
        )
    starts = list(itertools.accumulate((len(text) + len(_PAGE_BREAK) for text in texts[:-1]), initial=0))
    return Extracted(_PAGE_BREAK.join(texts), _title(document), _headings(document, texts, starts), tuple(starts))


def _open(data: bytes) -> PdfDocument:
    try:
        return PdfDocument(data)
    except PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise UnreadableDocumentError(
                "The PDF is encrypted; save it without a password and send it again."
            ) from None
        raise UnreadableDocumentError("The PDF is broken; export it again from its source.") from None


def _texts(document: PdfDocument, limit: int) -> list[str]:
    texts, length = [], 0
    for number in range(len(document)):
        texts.append(_text_of(document, number))
        length += len(texts[-1])
        if length > limit:
            raise UnreadableDocumentError(
                f"Its first {number + 1:,} pages hold more than the {limit:,} characters of text allowed; split it."
            )
    return texts


def _text_of(document: PdfDocument, number: int) -> str:
    try:
        page = document[number]
        content = page.get_textpage()
        text = str(content.get_text_range())
        content.close()
        page.close()  # or thousands of pages add up
    except PdfiumError:
        raise UnreadableDocumentError(f"Page {number + 1} of the PDF is broken; export it again.") from None
    # PDFium marks a hyphen at a line's end as U+FFFE; a reader sees the whole word.
    return text.replace("\r\n", "\n").replace("\ufffe\n", "").replace("\ufffe", "").strip()


def _title(document: PdfDocument) -> str | None:
    title = _PRINTED.sub("", document.get_metadata_value("Title").strip())
    return title if title and title.lower() not in _UNTITLED else None


def _headings(document: PdfDocument, texts: list[str], starts: list[int]) -> tuple[Heading, ...]:
    """The bookmarks, each where its words stand on its page or else where the page begins."""
    found: dict[int, Heading] = {}
    for bookmark in itertools.islice(document.get_toc(), _BOOKMARKS):
        title, target = bookmark.get_title().strip()[:TITLE_CHARACTERS], bookmark.get_dest()
        page = target.get_index() if target else None
        if title and page is not None and 0 <= page < len(texts):
            start = starts[page] + _place(title, texts[page])
            found.setdefault(start, Heading(start, bookmark.level + 1, title))
    return tuple(found[start] for start in sorted(found))


def _place(title: str, page: str) -> int:
    words = r"\s+".join(re.escape(word) for word in title.split())
    # A line of its own may carry the chapter's number, which bookmarks often leave out.
    match = re.search(rf"^(?:[\d.]+\s+)?{words}[ \t]*$", page, re.MULTILINE | re.IGNORECASE)
    return match.start() if match else 0
