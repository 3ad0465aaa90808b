"""What an answer cites stands in what was retrieved, word for word, however the answer was cut up on its way."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loam_retrieval.adapters.index import Passage
from loam_retrieval.citations import Citer, quotation
from loam_shared.contracts.retrieval import Citation

LEAVE = "Everybody gets 25 days of paid leave. Unused days expire in March.\nSick leave is unlimited."
BADGES = "Badges are worn at all times! Report a lost badge within one hour."
ANSWER = "Unused days expire in March [1]. Lost badges are reported within an hour [2][1]. See [7], [0] and list[x]."


def _passage(document: str, text: str, start: int) -> Passage:
    return Passage(f"{document}-0", document, text, f"{document}.md", 3, start, start + len(text), np.zeros(2), 1.0)


PASSAGES = [_passage("leave", LEAVE, 100), _passage("badges", BADGES, 40)]


def _cited(*pieces: str) -> tuple[str, list[Citation], int]:
    citer = Citer(PASSAGES)
    shown = [part for piece in pieces for part in citer.feed(piece)] + list(citer.end())
    text = "".join(part for part in shown if isinstance(part, str))
    return text, [part for part in shown if isinstance(part, Citation)], citer.dropped


def test_a_citation_quotes_the_sentence_that_says_it_and_knows_where_it_stands():
    _, citations, _ = _cited(ANSWER)
    assert [(one.document_id, one.quote) for one in citations] == [
        ("leave", "Unused days expire in March."),
        ("badges", "Report a lost badge within one hour."),
    ]
    for citation, passage in zip(citations, PASSAGES, strict=True):
        inside = slice(citation.span.start - passage.start, citation.span.end - passage.start)
        assert passage.text[inside] == citation.quote
        assert citation.span.page == 3


def test_a_sentence_that_an_editor_wrapped_is_quoted_whole():
    wrapped = (
        "# Money\n"
        "A refused call costs nothing at all, and its answer names the cap that was\nreached and when it resets.\n"
        "- A list item of more than sixty characters that goes on for a while, and on\n- Another item\n"
    )
    quotes = {}
    for claim in ("A refused call names the cap and when it resets.", "Money", "Another item"):
        quotes[claim] = quotation(_passage("money", wrapped, 0), claim).quote
    assert list(quotes.values()) == [
        "A refused call costs nothing at all, and its answer names the cap that was\nreached and when it resets.",
        "# Money",
        "- Another item",
    ]


def test_a_citation_of_what_was_not_retrieved_is_taken_out_and_counted():
    text, citations, dropped = _cited(ANSWER)
    assert dropped == 2
    assert len(citations) == 2
    assert "[7]" not in text
    assert "[0]" not in text
    assert "list[x]" in text


def test_markers_count_citations_in_the_order_they_are_given():
    text, citations, _ = _cited("Badges first [2], then leave [1, 2]; done")
    assert [one.document_id for one in citations] == ["badges", "leave"]
    assert text == "Badges first [1], then leave [2][1]; done"


def test_an_answer_that_declines_carries_no_citation_whatever_it_names():
    text, citations, dropped = _cited("[0] That is not in the sou", "rces [1].")
    assert (text, citations, dropped) == ("That is not in the sources .", [], 1)
    citer = Citer(PASSAGES)
    assert list(citer.feed("[0] No.")) == ["No."]
    assert citer.declined


def test_a_second_claim_from_the_same_source_gets_the_sentence_that_says_it():
    text, citations, _ = _cited("Everybody gets 25 days of paid leave [1]. Unused days expire in March [1].")
    assert [one.quote for one in citations] == [
        "Everybody gets 25 days of paid leave.",
        "Unused days expire in March.",
    ]
    assert text.endswith("March [2].")


@pytest.mark.parametrize("marks", ['""', "\u201c\u201d", "\u201e\u201c", "\u00ab\u00bb"])
def test_what_an_answer_quotes_is_cited_where_it_stands_and_dropped_where_it_does_not(marks):
    left, right = marks
    _, citations, dropped = _cited(f"It says {left}unused days EXPIRE - in March{right} [1].")
    assert ([one.quote for one in citations], dropped) == (["Unused days expire in March"], 0)
    _, citations, dropped = _cited(f"It says {left}unused days expire in June{right} [1].")
    assert (citations, dropped) == ([], 1)


def test_a_quotation_with_something_left_out_must_stand_there_in_all_its_parts():
    _, citations, _ = _cited('It says "everybody gets 25 days \u2026 unused days expire in March" [1].')
    assert [one.quote for one in citations] == ["Unused days expire in March"]
    _, citations, dropped = _cited('It says "everybody gets 99 days \u2026 unused days expire in March" [1].')
    assert (citations, dropped) == ([], 1)


@given(st.sets(st.integers(1, len(ANSWER) - 1)))
def test_the_answer_is_the_same_however_it_was_cut_into_tokens(cuts):
    edges = [0, *sorted(cuts), len(ANSWER)]
    pieces = [ANSWER[start:end] for start, end in itertools.pairwise(edges)]
    assert _cited(*pieces) == _cited(ANSWER)


@given(st.lists(st.text(alphabet="ab []0123456789,; .\n", max_size=12), max_size=12))
def test_nothing_but_markers_is_ever_lost(pieces):
    text, citations, _ = _cited(*pieces)
    whole = "".join(pieces)
    letters = [sign for sign in whole if sign in "ab."]
    assert [sign for sign in text if sign in "ab."] == letters
    assert all(any(one.quote in passage.text for passage in PASSAGES) for one in citations)
