"""Words and meaning together: each counts by how much better a passage is, not just by its place."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loam_retrieval.adapters.index import Passage
from loam_retrieval.search import fuse

QUESTION = np.array([1.0, 0.0], dtype=np.float32)


def _passage(name: str, cosine: float, score: float) -> Passage:
    vector = np.array([cosine, np.sqrt(1 - cosine**2)], dtype=np.float32)
    return Passage(name, name, name, name, None, 0, 1, vector, score)


def _order(by_meaning: dict[str, float], by_words: dict[str, float]) -> list[str]:
    meanings = [_passage(name, cosine, cosine) for name, cosine in by_meaning.items()]
    words = [_passage(name, by_meaning.get(name, 0.0), score) for name, score in by_words.items()]
    return [passage.chunk_id for passage in fuse(meanings, words, QUESTION)]


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
