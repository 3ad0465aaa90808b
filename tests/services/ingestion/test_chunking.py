"""Chunks are exact spans of the text, small enough, and overlap exactly as asked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loam_ingestion.chunking import Chunk, chunk
from loam_ingestion.chunking.tokens import TOKEN, count
from loam_ingestion.parsing import Extracted, TextLimits
from loam_ingestion.parsing.markdown import extract
from loam_shared.contracts.internal import Chunking

LIMITS = TextLimits(text_characters=20_000_000, pages=5_000)
STRATEGIES = ["Recursive", "Markdown", "Sentence"]
LINE = st.text(alphabet="abcdefghijk XYZ.!?,;-_'\"()[]#*`0123äß漢字。\t", max_size=80)
DOCUMENT = st.lists(st.one_of(LINE, LINE.map("# {}".format), LINE.map("## {}".format)), max_size=40).map("\n".join)
SIZES = st.integers(2, 60).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))


def _chunks(text: str, strategy: str, size: tuple[int, int]) -> tuple[Extracted, list[Chunk]]:
    extracted = extract(text.encode(), LIMITS)
    chunking = Chunking(strategy=strategy, max_tokens=size[0], overlap_tokens=size[1])
    return extracted, chunk(extracted, chunking)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=60, deadline=None)
@given(text=DOCUMENT, size=SIZES)
def test_every_chunk_is_exactly_the_span_it_names_and_within_its_size(strategy, text, size):
    extracted, chunks = _chunks(text, strategy, size)
    for found in chunks:
        assert found.text == extracted.text[found.start : found.end]
        assert found.text == found.text.strip()
        assert 1 <= count(found.text) <= size[0]


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=60, deadline=None)
@given(text=DOCUMENT, size=SIZES)
def test_no_word_of_the_document_is_missing_from_its_chunks(strategy, text, size):
    extracted, chunks = _chunks(text, strategy, size)
    covered = {position for found in chunks for position in range(found.start, found.end)}
    for token in TOKEN.finditer(extracted.text):
        assert covered.issuperset(range(*token.span())), token


@pytest.mark.parametrize("strategy", ["Recursive", "Sentence"])
@settings(max_examples=60, deadline=None)
@given(text=DOCUMENT, size=SIZES)
def test_a_chunk_begins_exactly_the_asked_number_of_tokens_before_its_predecessor_ends(strategy, text, size):
    extracted, plain = _chunks(text, strategy, (size[0] - size[1], 0))
    _, overlapping = _chunks(text, strategy, size)
    assert [found.end for found in overlapping] == [found.end for found in plain]
    starts = [token.start() for token in TOKEN.finditer(extracted.text)]
    for without, having in zip(plain, overlapping, strict=True):
        before = [start for start in starts if start < without.start]
        repeated = [start for start in before if start >= having.start]
        assert len(repeated) == min(size[1], len(before))


@settings(max_examples=60, deadline=None)
@given(text=DOCUMENT, size=SIZES)
def test_markdown_chunks_never_reach_back_over_a_heading_that_opens_their_section(text, size):
    extracted, chunks = _chunks(text, "Markdown", size)
    _, plain = _chunks(text, "Markdown", (size[0] - size[1], 0))
    headings = {heading.start for heading in extracted.headings}
    for without, having in zip(plain, chunks, strict=True):
        if without.start in headings:
            assert having.start == without.start


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_document_is_always_cut_the_same_way(strategy):
    text = "# One\n\nA first sentence. A second one!\n\n## Two\n\nThird, with a clause; and more.\n" * 20
    assert _chunks(text, strategy, (30, 5)) == _chunks(text, strategy, (30, 5))


def test_short_sections_stay_together_and_long_ones_are_cut_at_their_headings():
    short = "# Leave\n\nIntro.\n\n## Sick\n\nCall in.\n\n## Paid\n\n25 days.\n"
    assert len(_chunks(short, "Markdown", (100, 10))[1]) == 1
    long = short.replace("Call in.", "Call in before nine. " * 20)
    starts = [found.text.split("\n")[0] for found in _chunks(long, "Markdown", (60, 0))[1]]
    assert "## Sick" in starts
    assert "## Paid" in starts


def test_a_chunk_knows_the_page_it_begins_on():
    extracted = Extracted("first page\n\nsecond page\n\nthird page", page_starts=(0, 12, 25))
    chunks = chunk(extracted, Chunking(strategy="Recursive", max_tokens=2, overlap_tokens=0))
    assert [(found.text, found.page) for found in chunks] == [
        ("first page", 1),
        ("second page", 2),
        ("third page", 3),
    ]


@given(st.text(max_size=200), st.text(max_size=200))
def test_two_texts_together_never_count_more_tokens_than_apart(left, right):
    assert count(left + right) <= count(left) + count(right)
