"""What says the same again takes no other passage's place, and what says something else is never lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loam_retrieval.adapters.index import Passage
from loam_retrieval.diversity import distinct

LEAVE = (
    "Everybody gets 25 days of paid leave per year, counted from the first of January. Unused days expire at the end "
    "of March of the year after. Whoever leaves the company is paid for the days that are left."
)
BADGES = "Report a lost badge within one hour, at the front desk or by telephone. Visitors wear a red badge all day."
SAME, OTHER = (1.0, 0.02), (0.6, 0.8)


def _passage(name: str, text: str, vector: tuple[float, ...] = SAME) -> Passage:
    return Passage(name, name, text, name, None, 0, len(text), np.array(vector, dtype=np.float32), 1.0)


def _kept(*passages: Passage, limit: int = 8) -> list[str]:
    return [passage.chunk_id for passage in distinct(passages, limit)]


@pytest.mark.parametrize(
    "again",
    [
        LEAVE,
        LEAVE.upper().replace(" ", "\n"),
        LEAVE.replace(", ", " - "),
        LEAVE[:-25],
        LEAVE.split(". ", 1)[1],
    ],
    ids=["same", "written-differently", "other-punctuation", "cut-at-the-end", "cut-at-the-start"],
)
def test_the_same_paragraph_of_two_documents_is_given_once_and_the_next_one_moves_up(again):
    assert _kept(_passage("a", LEAVE), _passage("b", again), _passage("c", BADGES, OTHER), limit=2) == ["a", "c"]


@pytest.mark.parametrize(
    "other",
    [
        LEAVE.replace("25", "30"),
        LEAVE.replace("expire", "do not expire"),
        LEAVE.replace("is paid", "isn't paid"),
        f"{LEAVE} {BADGES}",
        BADGES,
    ],
    ids=["another-number", "a-not", "an-n't", "with-more", "something-else"],
)
def test_a_passage_that_says_something_else_stays_however_near_its_vector_is(other):
    assert _kept(_passage("a", LEAVE), _passage("b", other)) == ["a", "b"]


def test_neighbours_of_one_document_that_overlap_by_half_are_both_given():
    words = (f"{LEAVE} {BADGES}").split()
    first, second = " ".join(words[:40]), " ".join(words[20:])
    assert _kept(_passage("a", first), _passage("b", second)) == ["a", "b"]


def test_a_chunk_that_lies_wholly_in_its_two_neighbours_is_not_given_again():
    words = (f"{LEAVE} {BADGES}").split()
    first, middle, last = " ".join(words[:34]), " ".join(words[20:48]), " ".join(words[30:])
    assert _kept(_passage("a", first), _passage("b", last), _passage("c", middle)) == ["a", "b"]


def test_the_same_words_are_no_repetition_where_the_vectors_are_far_apart():
    assert _kept(_passage("a", LEAVE), _passage("b", LEAVE, OTHER)) == ["a", "b"]


@given(st.lists(st.sampled_from([LEAVE, BADGES, "", "x", "Room 7.", "Room 8."]), max_size=9), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_the_best_always_stays_nothing_is_reordered_and_no_text_comes_twice(texts, limit):
    passages = [_passage(str(number), text) for number, text in enumerate(texts)]
    kept = distinct(passages, limit)
    assert kept[:1] == passages[:1]
    assert [passages.index(passage) for passage in kept] == sorted(passages.index(passage) for passage in kept)
    assert len({passage.text for passage in kept}) == len(kept) == min(limit, len(set(texts)))


@given(st.permutations(range(12)), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_distinct_passages_keep_their_order(order, limit):
    passages = [_passage(str(n), f"Rule {n}. Coffee of kind {n} is kept in room {n}, and nowhere else.") for n in order]
    assert distinct(passages, limit) == passages[:limit]
