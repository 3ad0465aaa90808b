"""Words and meaning together: each counts by how much better a passage is, not just by its place."""

from hypothesis import given
from hypothesis import strategies as st

from loam_retrieval.adapters.index import Hit
from loam_retrieval.fusion import fuse


def _order(by_meaning: dict[str, float], by_words: dict[str, float]) -> list[str]:
    names = sorted(by_meaning | by_words)
    rows = {name: row for row, name in enumerate(names)}
    cosines = {rows[name]: cosine for name, cosine in by_meaning.items()}
    return [names[hit.row] for hit in fuse(cosines, [Hit(rows[name], score) for name, score in by_words.items()])]


def test_a_passage_that_both_find_comes_before_those_that_one_finds():
    assert _order({"both": 0.8, "meant": 0.85}, {"both": 8.0, "said": 9.0})[0] == "both"


def test_a_clear_match_of_words_is_not_dragged_down_by_a_weak_embedder():
    nearly_equal = {"a": 0.52, "b": 0.51, "c": 0.50, "said": 0.49}
    assert _order(nearly_equal, {"said": 20.0, "a": 2.0})[0] == "said"


def test_without_any_word_in_common_meaning_decides():
    assert _order({"near": 0.9, "far": 0.1}, {}) == ["near", "far"]


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.floats(0.0, 1.0), max_size=8))
def test_no_passage_is_listed_twice_or_lost(cosines):
    words = dict.fromkeys(list(cosines)[::2], 1.0)
    order = _order(cosines, words)
    assert sorted(order) == sorted(cosines)


def test_a_model_whose_cosines_lie_close_together_says_as_much_as_one_that_uses_the_whole_range():
    words = {"a": 9.0, "b": 8.0, "c": 2.0}
    wide = {"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.7, "e": 0.0}
    narrow = {name: 0.75 + cosine / 10 for name, cosine in wide.items()}
    assert _order(wide, words)[0] == "b"
    assert _order(wide, words) == _order(narrow, words)


def test_scores_lie_between_nothing_and_one_and_fall():
    scores = [hit.score for hit in fuse({1: 0.9, 2: 0.2}, [Hit(2, 50.0)])]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    assert fuse({}, []) == []
