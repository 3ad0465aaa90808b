"""PDF: the text layer, page by page."""

import pypdfium2
from pypdfium2 import PdfDocument, PdfiumError

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing import Extracted

_PAGE_BREAK = "\n\n"


def extract(data: bytes) -> Extracted:
    """Raises UnreadableDocumentError for encrypted, broken and scanned files."""
    document = _open(data)
    texts = [_text_of(document, number) for number in range(len(document))]
    if not any(text.strip() for text in texts):
        raise UnreadableDocumentError(
            "The PDF has no text layer (a scan, probably); run text recognition over it, with ocrmypdf for example, "
            "and send the result."
        )
    starts, offset = [], 0
    for text in texts:
        starts.append(offset)
        offset += len(text) + len(_PAGE_BREAK)
    title = document.get_metadata_value("Title").strip() or None
    return Extracted(_PAGE_BREAK.join(texts), title, page_starts=tuple(starts))


def _open(data: bytes) -> PdfDocument:
    try:
        return PdfDocument(data)
    except PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise UnreadableDocumentError(
                "The PDF is encrypted; save it without a password and send it again."
            ) from None
        raise UnreadableDocumentError("The PDF is broken; export it again from its source.") from None


def _text_of(document: PdfDocument, number: int) -> str:
    try:
        page = document[number]
        text = str(page.get_textpage().get_text_range())
    except PdfiumError:
        raise UnreadableDocumentError(f"Page {number + 1} of the PDF is broken; export it again.") from None
    # PDFium marks a hyphen at a line's end as U+FFFE; a reader sees the whole word.
    return text.replace("\r\n", "\n").replace("\ufffe\n", "").replace("\ufffe", "").strip()
