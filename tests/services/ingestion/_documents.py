"""Documents of every format, made by the libraries that people make them with."""

import io
import tempfile
import zipfile

import pytest
from docx import Document
from PIL import Image
from pypdf import PdfReader, PdfWriter
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing.pool import Parsed, Parsers


async def parse(pool: Parsers, name: str, data: bytes) -> Parsed:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return await pool.parse(name, None, file)


async def refusal(pool: Parsers, name: str, data: bytes) -> str:
    with pytest.raises(UnreadableDocumentError) as refused:
        await parse(pool, name, data)
    return str(refused.value)


def pdf(*pages: str, title: str | None = None, bookmarks: dict[str, tuple[int, int]] | None = None) -> bytes:
    """Pages of text; bookmarks are title to (page from 0, level from 0)."""
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4)
    if title:
        canvas.setTitle(title)
    for number, page in enumerate(pages):
        canvas.bookmarkPage(f"page-{number}")
        for line_number, line in enumerate(page.split("\n")):
            canvas.drawString(72, 760 - 14 * line_number, line)
        canvas.showPage()
    for heading, (number, level) in (bookmarks or {}).items():
        canvas.addOutlineEntry(heading, f"page-{number}", level)
    canvas.save()
    return out.getvalue()


def encrypted(content: bytes) -> bytes:
    writer, out = PdfWriter(clone_from=PdfReader(io.BytesIO(content))), io.BytesIO()
    writer.encrypt("secret", algorithm="AES-256")
    writer.write(out)
    return out.getvalue()


def scanned() -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4)
    canvas.drawImage(ImageReader(Image.new("RGB", (200, 200), "gray")), 100, 400)
    canvas.showPage()
    canvas.save()
    return out.getvalue()


def pages(count: int) -> bytes:
    """A PDF of so many empty pages, without the seconds that a library takes for them."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[%s]/Count %d>>" % (_references(count), count)]
    objects += [b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"] * count
    return raw_pdf(*objects)


def raw_pdf(*objects: bytes) -> bytes:
    """The objects, numbered from 1, of which the first is the catalog."""
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj%s endobj\n" % (number, content)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    return bytes(out + b"trailer<</Root 1 0 R/Size %d>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, table))


def _references(count: int) -> bytes:
    return b" ".join(b"%d 0 R" % (number + 3) for number in range(count))


def docx() -> bytes:
    document = Document()
    document.core_properties.title = "Travel policy"
    document.add_heading("Flights", level=1)
    document.add_paragraph("Economy up to six hours.")
    table = document.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "Berlin", "120 EUR"
    document.add_heading("Hotels", level=2)
    document.add_paragraph("Four stars at most.")
    return saved(document)


def saved(document: Document) -> bytes:
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def with_part(content: bytes, name: str, part: bytes) -> bytes:
    """A Word document with one of its parts replaced."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, part if entry == name else old.read(entry))
    return out.getvalue()


def zipped(*entries: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()
