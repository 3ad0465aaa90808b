"""Searches that a model makes of a question are taken as searches only, and never count as much as the question."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loam_retrieval.adapters.index import Passage
from loam_retrieval.expansion import combined, searches
from loam_shared.errors import ProviderError


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("paid leave\nholiday entitlement", ["paid leave", "holiday entitlement"]),
        ('1. paid leave\n2) "holidays"\n\n- days off\n', ["paid leave", "holidays", "days off"]),
        ("How much leave?\nholidays\nholidays", ["holidays"]),
    ],
)
def test_lines_are_searches_without_what_lists_them(said, found):
    assert searches(said, "how much leave?") == found


@pytest.mark.parametrize(
    "said",
    ["", "\n \n", "a\nb\nc\nd", "x" * 301, "Here are some searches:\na\nb\nc", "a\x00b", "...", "a\u202eb", "a\n" * 50],
)
def test_an_answer_that_is_anything_else_is_no_search(said):
    with pytest.raises(ProviderError):
        searches(said, "how much leave?")


@given(st.text(max_size=1000))
def test_whatever_a_model_says_the_searches_are_few_short_and_plain(said):
    try:
        found = searches(said, "why?")
    except ProviderError:
        return
    assert len(found) <= 3
    assert all(0 < len(search) <= 300 and search.isprintable() for search in found)


def _list(scores: dict[str, float]) -> list[Passage]:
    order = sorted(scores.items(), key=lambda item: -item[1])
    return [Passage(name, name, name, name, None, 0, 1, np.zeros(2), score) for name, score in order]


def _order(question: dict[str, float], *others: dict[str, float]) -> list[str]:
    return [passage.chunk_id for passage in combined(_list(question), [_list(one) for one in others])]


def test_without_other_searches_everything_stays_as_the_question_found_it():
    passages = _list({"a": 3.0, "b": 2.0})
    assert combined(passages, []) == passages
    assert combined(passages, [[], []]) == passages


def test_what_only_other_searches_find_comes_after_what_the_question_finds_best():
    assert _order({"best": 9.0, "weak": 1.0}, {"new": 5.0}, {"new": 7.0, "weak": 1.0})[:2] == ["best", "new"]


def test_what_all_find_comes_before_what_one_finds():
    assert _order({"a": 9.0, "both": 8.5}, {"both": 4.0}) == ["both", "a"]


SCORES = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 100), min_size=1)


@given(SCORES, st.lists(SCORES, max_size=3))
def test_no_other_search_lifts_a_passage_above_the_questions_best_by_more_than_half(question, others):
    found = combined(_list(question), [_list(one) for one in others])
    assert {passage.chunk_id for passage in found} == set(question).union(*others)
    best = max(question.values())
    for passage in found[:1]:
        # What now comes first had at least half of the question's best score, or that best was one of equals.
        assert not others or question.get(passage.chunk_id, 0.0) >= best / 2 - 1e-9
