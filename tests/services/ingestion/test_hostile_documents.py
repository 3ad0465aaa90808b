"""Whatever a document is made of, it ends as text or in a sentence that says what to do, and soon."""

import itertools
import random
import string
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from loam_ingestion.errors import UnreadableDocumentError
from loam_ingestion.parsing import Extracted, TextLimits, json, markdown, text
from loam_ingestion.parsing.pool import Parsers, parsers
from loam_ingestion.settings import ParsingLimits

from . import _documents as made
from ._documents import parse, refusal

LIMITS = TextLimits(text_characters=20_000_000, pages=5_000)
PAGES = b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>"
PAGE = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R%s>>"
WORD = b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>%s</w:body></w:document>'
SUFFIXES = ["txt", "md", "html", "pdf", "docx", "csv", "tsv", "json", "jsonl", "xyz", ""]
BEGINNINGS = [
    b"",
    b"%PDF-1.7\n",
    b"PK\x03\x04",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"<html>",
    b"{",
    made.docx(),
    made.pdf("x"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pool() -> AsyncIterator[Parsers]:
    async with parsers(ParsingLimits(cpu_seconds=10, wall_seconds=40, memory_bytes=500 << 20), 2) as running:
        yield running


def _laughs() -> bytes:
    """A document whose entities each stand for ten of the one before."""
    letters = string.ascii_lowercase[:10]
    entities = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in itertools.pairwise(letters))
    body = WORD % b"<w:p><w:r><w:t>&j;</w:t></w:r></w:p>"
    return f'<!DOCTYPE d [<!ENTITY a "ha">{entities}]>'.encode() + body


def _word(body: bytes) -> bytes:
    return made.with_part(made.docx(), "word/document.xml", body)


def _overlapping() -> bytes:
    """An archive whose directory names the same megabyte a thousand times."""
    archive = made.zipped(("word/document.xml", bytes(1 << 20)))
    directory, end = archive.index(b"PK\x01\x02"), archive.index(b"PK\x05\x06")
    entries = archive[directory:end] * 1000
    sizes = (1000).to_bytes(2, "little") * 2 + len(entries).to_bytes(4, "little")
    return archive[:directory] + entries + archive[end : end + 8] + sizes + archive[end + 16 :]


def _nested_forms() -> bytes:
    """Forms that draw one another twice each, sixty deep."""
    page = PAGE % b"/Resources<</XObject<</a 5 0 R>>>>"
    forms = [
        b"<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</a %d 0 R>>>>/Length 11>>"
        b"stream\n/a Do /a Do\nendstream" % min(number + 1, 64)
        for number in range(5, 65)
    ]
    return made.raw_pdf(*PAGES, page, b"<</Length 5>>stream\n/a Do\nendstream", *forms)


@pytest.mark.parametrize(
    ("name", "document", "mend"),
    [
        ("a.docx", lambda: made.zipped(("word/document.xml", bytes(300 << 20))), "unpacks to 300 MiB"),
        ("a.docx", _overlapping, "unpacks to 1,000 MiB"),
        ("a.docx", lambda: made.zipped(*((f"{n}", b"") for n in range(10_001))), "correct the name"),
        ("a.docx", lambda: _word(_laughs()), "save it as .docx"),
        ("a.docx", lambda: _word(WORD % (b"<w:tbl><w:tr><w:tc>" * 100_000)), "save it as .docx"),
        ("a.docx", lambda: _word(WORD % (b"<w:p/>" * 10_000_000)), "split the document"),
        ("a.docx", lambda: _word(b"<x/>"), "save it as .docx"),
        ("a.pdf", lambda: made.pages(10_000), "has 10,000 pages, more than the 5,000 allowed; split it"),
        ("a.pdf", lambda: made.raw_pdf(PAGES[0], b"<</Type/Pages/Kids[2 0 R]/Count 1000000000>>"), "export it again"),
        ("a.pdf", lambda: made.raw_pdf(*PAGES, PAGE % (b"/Resources" + b"[" * 200_000), b"<<>>"), "send the result"),
        ("a.pdf", _nested_forms, "or split it"),
        ("a.html", lambda: b"<div>" * 1_000_000 + b"x", "nests more than 5,000 elements"),
        ("a.html", lambda: b"<b>" * 1_000_000 + b"x" + b"</b>" * 1_000_000, "nests more than 5,000 elements"),
        ("a.csv", lambda: b'a,"' + b"x" * 50_000_000 + b'"', "50,000,004 characters of text"),
        ("a.csv", lambda: made.zipped(("xl/workbook.xml", b"x")), "save each of its sheets as .csv"),
        ("a.json", lambda: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff", "binary"),
        ("a.txt", "\u200b\u200d\ufeff\n".encode, "send one with text"),
        ("a.txt", lambda: b"\xff\xfe" + b"\x00\xd8" * 50, "save the document as UTF-8"),
        ("a.rtf", lambda: b"{\\rtf1 hello}", "save it as .docx"),
    ],
    ids=[
        *("huge-ratio", "overlapping-entries", "many-entries", "billion-laughs", "deep-xml", "much-xml", "not-word"),
        *("10000-pages", "pages-in-a-circle", "deep-objects", "nested-forms", "deep-divs", "deep-bold", "50-MB-cell"),
        *("workbook-as-csv", "picture-as-json", "zero-width-only", "lone-surrogates-only", "rich-text"),
    ],
)
async def test_a_hostile_document_is_refused_with_its_mend(pool, name, document, mend):
    assert mend in await refusal(pool, name, document())


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("a.txt", "Grüße, das ist Text.".encode("utf-16-le"), "Grüße, das ist Text."),
        ("a.txt", "Grüße, das ist Text.".encode("utf-16-be"), "Grüße, das ist Text."),
        ("a.txt", "Grüße".encode("utf-32"), "Grüße"),
        ("a.txt", b"one\0\0two", "one\ufffd\ufffdtwo"),
        ("a.txt", b"one \xed\xa0\x80 two \xed\xa0\xbd\xed\xb8\x80", "one \ufffd two \U0001f600"),
        ("a.txt", b"\xff\xfe" + "long enough a text".encode("utf-16-le") + b"\x00\xd8", "long enough a text\ufffd"),
        ("a.txt", ("äöü" * 10).encode() + b"\xff.", "äöü" * 10 + "\ufffd."),
        ("a.txt", "Съешь ещё этих мягких булок".encode("cp1251"), "Съешь ещё этих мягких булок"),
        ("a.csv", "שלום,👩\u200d👩\u200d👧,\u200bzero\n".encode(), "שלום,👩\u200d👩\u200d👧,\u200bzero\n"),
        ("a.html", b"&#xD800;&#0;\0x", "\ufffd\ufffdx"),
        ("a.html", b'<meta charset="shift_jis">' + "日本語".encode("shift_jis"), "日本語"),
        ("a.html", b'<meta charset="unicode_escape">\\ud800', "\\ud800"),
        ("a.json", b"[" * 100_000, "[" * 100_000),
        ("a.json", b'{"title": "\\ud800", broken', '{"title": "\\ud800", broken'),
        ("a.html", b'\xef\xbb\xbf<meta charset="iso-8859-1">' + "Grüße".encode(), "Grüße"),
        ("a.md", b"# " + b" " * 300_000 + b"x", "# " + " " * 300_000 + "x"),
        ("a.md", b"---\ntitle: " + b" " * 300_000 + b"x\n---\n", "---\ntitle: " + " " * 300_000 + "x\n---\n"),
        ("a.md", b"A text about %PDF-1.7 files", "A text about %PDF-1.7 files"),
    ],
    ids=[
        *("utf-16-le", "utf-16-be", "utf-32", "zeros", "surrogates-in-utf-8", "surrogate-in-utf-16", "broken-byte"),
        *("cyrillic", "right-to-left", "html-references", "html-charset", "html-no-charset", "deep-json"),
        *("broken-json", "html-mark", "wide-heading", "wide-title", "about-pdf"),
    ],
)
async def test_text_is_read_with_what_cannot_be_stored_replaced_one_for_one(pool, name, content, read):
    assert (await parse(pool, name, content)).extracted.text == read


PLAIN = some.text(some.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1)


@given(PLAIN, some.sampled_from([text.extract, markdown.extract, json.extract]))
@settings(max_examples=200, deadline=None)
def test_the_text_of_txt_md_csv_and_json_is_the_file_so_that_spans_are_exact(original, extract):
    extracted = extract(original.encode(), LIMITS)
    assert extracted.text == original
    assert all(0 <= heading.start < len(original) for heading in extracted.headings)


@given(some.sampled_from(SUFFIXES), some.sampled_from(BEGINNINGS), some.binary(max_size=300), some.integers(0, 2**32))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_bytes_of_any_name_end_as_text_or_in_a_refusal(pool, suffix, beginning, rest, seed):
    content = bytearray(beginning + rest)
    chance = random.Random(seed)
    for _ in range(min(len(content), chance.randrange(8))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    outcome = await _outcome(pool, f"a.{suffix}", bytes(content))
    if isinstance(outcome, str):
        assert ";" in outcome  # the mend follows
    else:
        assert outcome.text.encode()
        assert "\0" not in outcome.text + (outcome.title or "")
        assert all(0 <= start <= len(outcome.text) for start in outcome.page_starts)


async def _outcome(pool: Parsers, name: str, content: bytes) -> Extracted | str:
    try:
        return (await parse(pool, name, content)).extracted
    except UnreadableDocumentError as error:
        return str(error)
