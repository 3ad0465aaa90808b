"""Figures agree with what a person computes by hand from their published definitions."""

import math

import pytest

from loam_evaluation import ranking, spans
from loam_evaluation.answers import Answer, verdict
from loam_evaluation.errors import EvaluationError
from loam_evaluation.spans import Question
from loam_ingestion.parsing import Extracted
from loam_retrieval.adapters.index import Passage
from loam_shared.contracts.retrieval import Citation, Span

# Grades 3, 2, 1 and a judged document that is not relevant; "x" was never judged.
JUDGED = {"a": 3, "b": 2, "c": 1, "d": 0}


def test_ndcg_weighs_grades_by_rank_as_trec_eval_does():
    # trec_eval -m ndcg_cut.10: gain is the grade, discount log2(rank + 1), the ideal order is a, b, c.
    found = 2 / math.log2(2) + 0 / math.log2(3) + 3 / math.log2(4) + 0 / math.log2(5)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert ranking.ndcg(["b", "x", "a", "d"], JUDGED) == pytest.approx(found / ideal)
    assert ranking.ndcg(["a", "b", "c"], JUDGED) == pytest.approx(1.0)
    assert ranking.ndcg(["x"] * 10 + ["a"], JUDGED) == 0.0


def test_recall_is_over_all_relevant_documents_and_reciprocal_rank_is_of_the_first():
    assert ranking.recall(["d", "a", "x"], JUDGED) == pytest.approx(1 / 3)
    assert ranking.recall(["a", "b", "c"], JUDGED, depth=2) == pytest.approx(2 / 3)
    assert ranking.reciprocal_rank(["d", "x", "c", "a"], JUDGED) == pytest.approx(1 / 3)
    assert ranking.reciprocal_rank(["x"] * 10 + ["a"], JUDGED) == 0.0


def test_overlap_counts_characters_of_references_once_and_of_passages_each_time():
    question = Question("?", "one", ((10, 20), (30, 40)))
    found = spans.overlap(question, [("one", (0, 15)), ("one", (5, 15)), ("two", (30, 40))])
    # Of 20 wanted characters 5 are found, in passages of 15 + 10 + 10; another document's do not count.
    assert found.recall == pytest.approx(5 / 20)
    assert found.precision == pytest.approx(5 / 35)
    assert found.iou == pytest.approx(5 / (35 + 15))


def test_a_budget_is_filled_to_its_last_token_and_no_further():
    passages = [Passage("", "", "one two three", "doc", None, start, start + 13, None, 1.0) for start in (0, 100)]
    assert spans.within(passages, 4) == [("doc", (0, 13)), ("doc", (100, 103))]
    assert spans.within(passages, 3) == [("doc", (0, 13))]


DOCUMENTS = {"rules": Extracted("Everybody gets 25 days of paid leave. Badges are red. Rooms are booked online.")}
QUESTION = Question("How much leave?", "rules", ((0, 37),))


def _citation(start: int, end: int, quote: str | None = None) -> Citation:
    text = DOCUMENTS["rules"].text[start:end]
    return Citation(document_id="1", source="rules.md", span=Span(start=start, end=end), quote=quote or text)


@pytest.mark.parametrize(
    ("content", "citations", "supported"),
    [
        ("Everybody gets 25 days of leave. [1]", [_citation(0, 37)], True),
        ("Everybody gets 25 days of leave. [1] Badges are red. [2]", [_citation(0, 37), _citation(38, 53)], True),
        ("Everybody gets 25 days of leave. [1] Rooms are booked online. [1]", [_citation(0, 37)], False),
        ("Everybody gets 25 days of leave. [1]", [_citation(0, 37, "Everybody gets 52 days of paid leave.")], False),
        ("Everybody gets 25 days of leave. [1]", [_citation(38, 53)], False),
    ],
    ids=["one", "two", "a second sentence without a quote of its own", "a changed quote", "a quote of something else"],
)
def test_an_answer_is_supported_when_every_quote_stands_there_and_says_what_its_sentence_says(
    content, citations, supported
):
    found = verdict(QUESTION, Answer(content=content, citations=citations), DOCUMENTS)
    assert found.supported == supported
    assert not found.declined


def test_an_answer_without_citations_is_declined_and_one_that_cites_the_answer_cites_the_right_passage():
    declined = verdict(QUESTION, Answer(content="It is not in the sources."), DOCUMENTS)
    assert declined.declined
    assert not declined.supported
    right = verdict(QUESTION, Answer(content="25 days. [1]", citations=[_citation(0, 37)]), DOCUMENTS)
    wrong = verdict(QUESTION, Answer(content="Red. [1]", citations=[_citation(38, 53)]), DOCUMENTS)
    assert right.cites_right_passage
    assert not wrong.cites_right_passage


@pytest.mark.parametrize(
    ("references", "said"),
    [
        ('[{"content": "other", "start_index": 0, "end_index": 5}]', "characters 0 to 5 of doc.md are not"),
        ("[]", "at least one span"),
        ("{", "references"),
    ],
)
def test_a_span_that_does_not_fit_its_document_is_named(tmp_path, references, said):
    (tmp_path / "doc.md").write_text("hello world")
    quoted = references.replace('"', '""')
    (tmp_path / "questions.csv").write_text(f'question,references,corpus_id\nWhat?,"{quoted}",doc\n')
    with pytest.raises(EvaluationError, match="question 1") as raised:
        spans.read(tmp_path)
    assert said in str(raised.value)
