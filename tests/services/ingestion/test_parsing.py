"""Every format gives its text, and what cannot be read says so with the mend; all in the real, limited processes."""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from loam_ingestion.parsing.pool import Parsers, parsers
from loam_ingestion.settings import ParsingLimits

from . import _documents as made
from ._documents import parse, refusal


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pool() -> AsyncIterator[Parsers]:
    async with parsers(ParsingLimits(wall_seconds=20), 2) as running:
        yield running


@pytest.mark.parametrize("name", ["notes.txt", "notes.md"])
async def test_the_text_of_plain_files_is_the_file_itself(pool, name):
    original = "# Überschrift\r\n\r\nZeile mit Ümlaut und 漢字.\r\n\tEingerückt\n"
    assert (await parse(pool, name, original.encode())).extracted.text == original


async def test_old_encodings_are_understood(pool):
    assert (await parse(pool, "a.txt", "Grüße €".encode("cp1252"))).extracted.text == "Grüße €"
    assert (await parse(pool, "a.txt", "Grüße".encode("utf-16"))).extracted.text == "Grüße"
    assert (await parse(pool, "a.txt", b"\xef\xbb\xbfHallo")).extracted.text == "Hallo"


async def test_markdown_headings_are_found_where_they_stand_and_not_in_code(pool):
    text = "---\ntitle: Handbook\n---\n# One\n\n```sh\n# a comment\n```\n\nTwo\n---\n\ntext\n\n### Three ###\n"
    extracted = (await parse(pool, "a.md", text.encode())).extracted
    assert extracted.title == "Handbook"
    assert [(found.level, found.title) for found in extracted.headings] == [(1, "One"), (2, "Two"), (3, "Three")]
    assert all(found.title in text[found.start :].split("\n", maxsplit=1)[0] for found in extracted.headings)


async def test_html_gives_what_a_reader_sees(pool):
    page = b"""<html><head><title> Leave  policy </title><style>p {color: red}</style></head><body><nav>Home</nav>
    <h1>Paid   leave</h1><p>You get <b>25</b> days.<br>Ask <i>early</i>.</p><script>alert("x")</script>
    <ul><li>one</li><li>two</li></ul><table><tr><td>a</td><td>b</td></tr></table><pre>x\n  y</pre></body></html>"""
    extracted = (await parse(pool, "leave.html", page)).extracted
    assert extracted.title == "Leave policy"
    assert extracted.text.startswith("Paid leave\n\nYou get 25 days.\nAsk early.")
    for seen in ("- one\n- two", "a\tb", "x\n  y"):
        assert seen in extracted.text
    for unseen in ("Home", "alert", "color"):
        assert unseen not in extracted.text
    heading = extracted.headings[0]
    assert extracted.text[heading.start :].startswith(heading.title)


async def test_a_pdf_gives_its_pages_and_title(pool):
    parsed = await parse(pool, "p.pdf", made.pdf("First page\nline two", "Second page", title="Handbook"))
    extracted = parsed.extracted
    assert parsed.media_type == "application/pdf"
    assert extracted.title == "Handbook"
    assert len(extracted.page_starts) == 2
    assert extracted.text[extracted.page_starts[1] :] == "Second page"
    assert extracted.text.startswith("First page\nline two")


async def test_a_word_document_gives_its_headings_paragraphs_and_tables_in_order(pool):
    extracted = (await parse(pool, "travel.docx", made.docx())).extracted
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
        ("a.pdf", made.encrypted(made.pdf("secret")), "without a password"),
        ("a.pdf", made.scanned(), "ocrmypdf"),
        ("a.pdf", made.pdf("x")[:400], "export it again"),
        ("a.pdf", b"hello, I am text", "correct the name"),
        ("a.docx", b"hello, I am text", "correct the name"),
        ("a.txt", made.pdf("x"), ".pdf"),
        ("a.pdf", made.docx(), ".docx"),
        ("a.docx", made.zipped(("word/document.xml", b" " * (300 << 20))), "split it"),
        ("a.docx", made.docx()[:2000], "correct the name"),
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
async def test_an_unreadable_document_is_refused_with_its_mend(pool, name, data, mend):
    assert mend in await refusal(pool, name, data)


async def test_a_title_never_holds_what_cannot_be_stored(pool):
    parsed = await parse(pool, "a.md", "# Le\0ave\n\n26 days".encode("utf-16"))
    assert parsed.extracted.title == "Leave"


async def test_a_text_above_the_limit_is_refused_with_both_numbers():
    async with parsers(ParsingLimits(text_characters=1000), 1) as small:
        said = await refusal(small, "a.txt", b"x" * 1001)
    assert "1,001" in said
    assert "1,000" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is sure to be allowed to leave the network")
async def test_the_parser_has_no_network(pool):
    assert (await parse(pool, "a.txt", b"hello")).isolated
