"""Searches that a model makes of a question are taken as searches only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loam_retrieval.expansion import searches
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
