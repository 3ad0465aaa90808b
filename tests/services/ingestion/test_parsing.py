"""Every format gives its text, and what cannot be read says so with the mend; all in the real, limited processes."""

import os
import tempfile
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from docx import Document
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from loam_ingestion.parsing.pool import Parsers, parsers
from loam_ingestion.settings import ParsingLimits

from . import _documents as made
from ._documents import parse, refusal


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pool() -> AsyncIterator[Parsers]:
    async with parsers(ParsingLimits(wall_seconds=20), 2) as running:
        yield running


@pytest.mark.parametrize(
    "name", ["notes.txt", "notes.md", "notes.csv", "notes.tsv", "notes.json", "notes.jsonl", "notes.ndjson"]
)
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


async def test_a_format_is_known_by_its_media_type_where_the_name_has_no_suffix(pool):
    with tempfile.TemporaryFile() as file:
        file.write(b"a,b\n1,2\n")
        file.flush()
        parsed = await pool.parse("export", "text/csv; charset=utf-8", file)
    assert parsed.media_type == "text/csv"
    assert parsed.extracted.text == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("content", "title"),
    [
        (b'{"title": "Leave policy", "days": 25}', "Leave policy"),
        (b'{"name": "  loam\\u0000 "}', "loam"),
        (b'{"title": 7}', None),
        (b'[{"title": "of one of many"}]', None),
        (b'{"title": "broken"', None),
    ],
)
async def test_the_title_of_json_is_that_of_its_object(pool, content, title):
    parsed = await parse(pool, "a.json", content)
    assert (parsed.extracted.title, parsed.media_type) == (title, "application/json")
    assert parsed.extracted.text == content.decode()


async def test_bookmarks_of_a_pdf_are_its_headings_where_their_words_stand(pool):
    document = made.pdf(
        "Preface\nabout this",
        "on top\n2.1 Paid  leave\n25 days",
        "Sick leave is another matter",
        bookmarks={"Preface": (0, 0), "Paid leave": (1, 1), "Elsewhere": (2, 0)},
    )
    extracted = (await parse(pool, "p.pdf", document)).extracted
    found = [(heading.level, heading.title, extracted.text[heading.start :][:7]) for heading in extracted.headings]
    assert found == [(1, "Preface", "Preface"), (2, "Paid leave", "2.1 Pai"), (1, "Elsewhere", "Sick le")]
    assert extracted.title is None  # "untitled" is what reportlab calls it


async def test_a_word_document_is_read_with_all_its_changes_accepted_in_whatever_it_is_nested(pool):
    document = Document()
    paragraph = document.add_paragraph("We ")
    for xml in (
        "<w:ins {0}><w:r><w:t>always </w:t></w:r></w:ins>",
        "<w:del {0}><w:r><w:delText>never </w:delText></w:r></w:del>",
        "<w:sdt {0}><w:sdtContent><w:r><w:t>pay.</w:t><w:tab/><w:t>Soon.</w:t></w:r></w:sdtContent></w:sdt>",
    ):
        paragraph._p.append(parse_xml(xml.format(nsdecls("w"))))
    outer = document.add_table(rows=2, cols=2)
    outer.cell(0, 0).text = "a"
    outer.cell(0, 1).add_table(rows=1, cols=1).cell(0, 0).text = "inner"
    outer.cell(1, 0).merge(outer.cell(1, 1)).text = "both"
    extracted = (await parse(pool, "a.docx", made.saved(document))).extracted
    assert extracted.text.split("\n\n")[0] == "We always pay.\tSoon."
    assert [line.split() for line in extracted.text.split("\n\n")[1].splitlines()] == [["a", "inner"], ["both"]]


async def test_headings_of_a_word_document_are_those_of_its_own_styles_too(pool):
    document = Document()
    style = document.styles.add_style("Kapitel", WD_STYLE_TYPE.PARAGRAPH)
    style.base_style = document.styles["Heading 2"]
    document.add_paragraph("Erstes", style="Kapitel")
    document.add_paragraph("Text.")
    outlined = document.add_paragraph("Outlined")
    outlined._p.get_or_add_pPr().append(parse_xml(f'<w:outlineLvl {nsdecls("w")} w:val="3"/>'))
    extracted = (await parse(pool, "a.docx", made.saved(document))).extracted
    assert [(one.start, one.level, one.title) for one in extracted.headings] == [(0, 2, "Erstes"), (15, 4, "Outlined")]
    assert extracted.title == "Erstes"


async def test_html_that_nests_deeply_is_read(pool):
    extracted = (await parse(pool, "a.html", b"<div>" * 4000 + b"<h2>deep</h2>text")).extracted
    assert extracted.text == "deep\n\ntext"
    assert [(heading.start, heading.level) for heading in extracted.headings] == [(0, 2)]


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
