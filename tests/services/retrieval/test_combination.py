"""What is searched for beside a question adds to it, and never counts as much."""

from hypothesis import given
from hypothesis import strategies as st

from loam_retrieval.combination import combined

HALF = 0.5


def _order(question: dict[str, float], *others: dict[str, float]) -> list[str]:
    return list(combined([(1.0, question), *((HALF / len(others), one) for one in others)]))


def test_what_only_other_searches_find_comes_after_what_the_question_finds_best():
    assert _order({"best": 9.0, "weak": 1.0}, {"new": 5.0}, {"new": 7.0, "weak": 1.0})[:2] == ["best", "new"]


def test_what_all_find_comes_before_what_one_finds():
    assert _order({"a": 9.0, "both": 8.5}, {"both": 4.0}) == ["both", "a"]


SCORES = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 100), min_size=1)


@given(SCORES, st.lists(SCORES, min_size=1, max_size=3))
def test_nothing_comes_first_that_the_question_itself_finds_less_than_half_as_good_as_its_best(question, others):
    order = _order(question, *others)
    assert set(order) == set(question).union(*others)
    assert len(order) == len(set(order))
    assert question.get(order[0], 0.0) >= max(question.values()) / 2 - 1e-9
