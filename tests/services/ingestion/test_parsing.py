"""Every format gives its text, and what cannot be read says so with the mend; all in the real, limited process."""

import io
import os
import zipfile

import pytest
from docx import Document
from PIL import Image
from pypdf import PdfReader, PdfWriter
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing.sandbox import Parsed, parse
from loam_ingestion.settings import ParsingLimits

LIMITS = ParsingLimits(wall_seconds=20)


async def _parse(name: str, data: bytes, limits: ParsingLimits = LIMITS) -> Parsed:
    return await parse(name, None, data, limits)


async def _refusal(name: str, data: bytes, limits: ParsingLimits = LIMITS) -> str:
    with pytest.raises(UnreadableDocumentError) as refused:
        await _parse(name, data, limits)
    return str(refused.value)


def _pdf(*pages: str, title: str | None = None) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4)
    if title:
        canvas.setTitle(title)
    for page in pages:
        for number, line in enumerate(page.split("\n")):
            canvas.drawString(72, 760 - 14 * number, line)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def _encrypted(pdf: bytes) -> bytes:
    writer, out = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf))), io.BytesIO()
    writer.encrypt("secret", algorithm="AES-256")
    writer.write(out)
    return out.getvalue()


def _scanned() -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4)
    canvas.drawImage(ImageReader(Image.new("RGB", (200, 200), "gray")), 100, 400)
    canvas.showPage()
    canvas.save()
    return out.getvalue()


def _docx() -> bytes:
    document, out = Document(), io.BytesIO()
    document.core_properties.title = "Travel policy"
    document.add_heading("Flights", level=1)
    document.add_paragraph("Economy up to six hours.")
    table = document.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "Berlin", "120 EUR"
    document.add_heading("Hotels", level=2)
    document.add_paragraph("Four stars at most.")
    document.save(out)
    return out.getvalue()


def _bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b" " * (300 * 2**20))
    return out.getvalue()


@pytest.mark.parametrize("name", ["notes.txt", "notes.md"])
async def test_the_text_of_plain_files_is_the_file_itself(name):
    original = "# Überschrift\r\n\r\nZeile mit Ümlaut und 漢字.\r\n\tEingerückt\n"
    assert (await _parse(name, original.encode())).extracted.text == original


async def test_old_encodings_are_understood():
    assert (await _parse("a.txt", "Grüße €".encode("cp1252"))).extracted.text == "Grüße €"
    assert (await _parse("a.txt", "Grüße".encode("utf-16"))).extracted.text == "Grüße"
    assert (await _parse("a.txt", b"\xef\xbb\xbfHallo")).extracted.text == "Hallo"


async def test_markdown_headings_are_found_where_they_stand_and_not_in_code():
    text = "---\ntitle: Handbook\n---\n# One\n\n```sh\n# a comment\n```\n\nTwo\n---\n\ntext\n\n### Three ###\n"
    extracted = (await _parse("a.md", text.encode())).extracted
    assert extracted.title == "Handbook"
    assert [(found.level, found.title) for found in extracted.headings] == [(1, "One"), (2, "Two"), (3, "Three")]
    assert all(found.title in text[found.start :].split("\n", maxsplit=1)[0] for found in extracted.headings)


async def test_html_gives_what_a_reader_sees():
    page = b"""<html><head><title> Leave  policy </title><style>p {color: red}</style></head><body><nav>Home</nav>
    <h1>Paid   leave</h1><p>You get <b>25</b> days.<br>Ask <i>early</i>.</p><script>alert("x")</script>
    <ul><li>one</li><li>two</li></ul><table><tr><td>a</td><td>b</td></tr></table><pre>x\n  y</pre></body></html>"""
    extracted = (await _parse("leave.html", page)).extracted
    assert extracted.title == "Leave policy"
    assert extracted.text.startswith("Paid leave\n\nYou get 25 days.\nAsk early.")
    for seen in ("- one\n- two", "a\tb", "x\n  y"):
        assert seen in extracted.text
    for unseen in ("Home", "alert", "color"):
        assert unseen not in extracted.text
    heading = extracted.headings[0]
    assert extracted.text[heading.start :].startswith(heading.title)


async def test_a_pdf_gives_its_pages_and_title():
    parsed = await _parse("p.pdf", _pdf("First page\nline two", "Second page", title="Handbook"))
    extracted = parsed.extracted
    assert parsed.media_type == "application/pdf"
    assert extracted.title == "Handbook"
    assert len(extracted.page_starts) == 2
    assert extracted.text[extracted.page_starts[1] :] == "Second page"
    assert extracted.text.startswith("First page\nline two")


async def test_a_word_document_gives_its_headings_paragraphs_and_tables_in_order():
    extracted = (await _parse("travel.docx", _docx())).extracted
    assert extracted.title == "Travel policy"
    assert extracted.text.split("\n\n") == [
        "Flights",
        "Economy up to six hours.",
        "Berlin\t120 EUR",
        "Hotels",
        "Four stars at most.",
    ]
    assert [(found.level, found.title) for found in extracted.headings] == [(1, "Flights"), (2, "Hotels")]
    assert all(extracted.text[found.start :].startswith(found.title) for found in extracted.headings)


@pytest.mark.parametrize(
    ("name", "data", "mend"),
    [
        ("a.pdf", b"", "send it again with its content"),
        ("a.txt", b" \n\t", "send it again with its content"),
        ("a.pdf", _encrypted(_pdf("secret")), "without a password"),
        ("a.pdf", _scanned(), "ocrmypdf"),
        ("a.pdf", _pdf("x")[:400], "export it again"),
        ("a.pdf", b"hello, I am text", "correct the name"),
        ("a.docx", b"hello, I am text", "correct the name"),
        ("a.txt", _pdf("x"), ".pdf"),
        ("a.pdf", _docx(), ".docx"),
        ("a.docx", _bomb(), "split it"),
        ("a.docx", _docx()[:2000], "correct the name"),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "without a password"),
        ("a.txt", bytes(range(256)), "binary"),
        ("a.exe", b"MZ something", "Loam reads .txt"),
        ("a.html", b"<html><body><script>x</script></body></html>", "send one with text"),
    ],
    ids=[
        *("empty", "blank", "encrypted", "scanned", "cut-off", "text-as-pdf", "text-as-docx", "pdf-as-text"),
        *("docx-as-pdf", "zip-bomb", "cut-off-docx", "old-word", "binary-as-text", "unknown", "html-without-text"),
    ],
)
async def test_an_unreadable_document_is_refused_with_its_mend(name, data, mend):
    assert mend in await _refusal(name, data)


async def test_a_title_never_holds_what_cannot_be_stored():
    parsed = await _parse("a.md", "# Le\0ave\n\n26 days".encode("utf-16"))
    assert parsed.extracted.title == "Leave"


async def test_a_parser_that_wants_too_much_memory_is_stopped():
    limits = ParsingLimits(memory_bytes=400 << 20)
    refusal = await _refusal("a.html", b"<p>" + b"<b>x</b>" * 8_000_000, limits)
    assert "split" in refusal


async def test_a_parser_that_takes_too_long_is_stopped():
    limits = ParsingLimits(cpu_seconds=1)
    assert "processor time" in await _refusal("a.html", b"<p>" + b"<b>x</b>" * 3_000_000, limits)
    limits = ParsingLimits(wall_seconds=0.01)
    assert "took longer" in await _refusal("a.txt", b"hello", limits)


async def test_a_text_above_the_limit_is_refused_with_both_numbers():
    refusal = await _refusal("a.txt", b"x" * 1001, ParsingLimits(text_characters=1000))
    assert "1,001" in refusal
    assert "1,000" in refusal


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is sure to be allowed to leave the network")
async def test_the_parser_has_no_network():
    assert (await _parse("a.txt", b"hello")).isolated
