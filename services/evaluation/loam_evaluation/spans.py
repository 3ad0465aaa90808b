"""Questions whose answers are known as character spans: how much of them do the retrieved passages hold?

Recall, precision and intersection over union are those of Smith and Troynikov, "Evaluating Chunking Strategies for
Retrieval" (Chroma technical report, 2024; github.com/brandonstarxel/chunking_evaluation), by characters: with R the
characters of a question's references and P those of its retrieved passages, a character counted once for each passage
it stands in,

    recall    = |R ∩ P| / |R|        (each character of R once)
    precision = |R ∩ P| / |P|
    IoU       = |R ∩ P| / (|P| + |R without P|)

There a fixed number of passages is retrieved. Here it is a fixed budget of tokens: passages in order of rank, the last
one cut where the budget ends. Five passages of 800 tokens hold more than five of 100, but a prompt pays for tokens, so
only equal amounts of text compare sizes fairly. For the same reason recall decides between chunkings: what the model
is given costs the same, and recall says how much of the answer is in it.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from loam_evaluation.errors import EvaluationError
from loam_ingestion.chunking.tokens import TOKEN
from loam_ingestion.parsing import Extracted, TextLimits, markdown
from loam_ingestion.settings import ParsingLimits
from loam_retrieval.adapters.index import Passage

QUESTIONS = "questions.csv"
Span = tuple[int, int]


class _Reference(BaseModel):
    content: str
    start_index: int
    end_index: int


_REFERENCES = TypeAdapter(list[_Reference])


@dataclass(frozen=True)
class Question:
    """A question, the document that answers it, and where in its text."""

    text: str
    document: str
    references: tuple[Span, ...]


@dataclass(frozen=True)
class QuestionSet:
    """Documents by name, and questions about them."""

    documents: dict[str, Extracted]
    questions: list[Question]


@dataclass(frozen=True)
class Overlap:
    """What one question's passages hold of its references, each figure from 0 to 1."""

    recall: float
    precision: float
    iou: float


def read(folder: Path) -> QuestionSet:
    """``questions.csv`` (question, references, corpus_id) and the documents ``<corpus_id>.md`` beside it.

    `references` is a JSON list of ``{"content", "start_index", "end_index"}``. Raises EvaluationError that names the
    line where something does not fit.
    """
    limits = ParsingLimits()
    read_up_to = TextLimits(limits.text_characters, limits.pages)
    documents = {path.stem: markdown.extract(path.read_bytes(), read_up_to) for path in sorted(folder.glob("*.md"))}
    with (folder / QUESTIONS).open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = {"question", "references", "corpus_id"} - set(rows.fieldnames or ())
        if missing:
            raise EvaluationError(f"{folder / QUESTIONS} lacks the column {', '.join(sorted(missing))}")
        questions = [
            _question(row, documents, f"{folder / QUESTIONS}, question {number}") for number, row in enumerate(rows, 1)
        ]
    if not questions:
        raise EvaluationError(f"{folder / QUESTIONS} holds no question")
    return QuestionSet(documents, questions)


def _question(row: dict[str, str], documents: dict[str, Extracted], where: str) -> Question:
    document = documents.get(row["corpus_id"])
    if document is None:
        raise EvaluationError(f"{where}: there is no {row['corpus_id']}.md beside it")
    try:
        references = _REFERENCES.validate_json(row["references"])
    except ValidationError as error:
        raise EvaluationError(f"{where}: references: {error.errors()[0]['msg']}") from error
    for reference in references:
        if document.text[reference.start_index : reference.end_index] != reference.content:
            raise EvaluationError(
                f"{where}: characters {reference.start_index} to {reference.end_index} of {row['corpus_id']}.md "
                f"are not {json.dumps(reference.content[:40])}"
            )
    spans = tuple((reference.start_index, reference.end_index) for reference in references)
    if not spans or any(start >= end for start, end in spans):
        raise EvaluationError(f"{where}: references must name at least one span that is not empty")
    return Question(row["question"], row["corpus_id"], spans)


def within(passages: Sequence[Passage], tokens: int) -> list[tuple[str, Span]]:
    """Document and span of the best passages that fill a budget of `tokens`, the last one cut where it ends."""
    kept = []
    for passage in passages:
        ends = [match.end() for match in TOKEN.finditer(passage.text)]
        if not ends:
            continue
        used = min(len(ends), tokens)
        end = passage.end if used == len(ends) else passage.start + ends[used - 1]
        kept.append((passage.source, (passage.start, end)))
        tokens -= used
        if not tokens:
            break
    return kept


def overlap(question: Question, retrieved: Sequence[tuple[str, Span]]) -> Overlap:
    """The three figures for one question."""
    spans = [span for document, span in retrieved if document == question.document]
    references = _merged(question.references)
    wanted = _length(references)
    found = _length(_merged([cut for span in spans for cut in _cuts(span, references)]))
    given = sum(end - start for _, (start, end) in retrieved)
    return Overlap(
        recall=found / wanted, precision=found / given if given else 0.0, iou=found / (given + wanted - found)
    )


def _cuts(span: Span, references: Sequence[Span]) -> list[Span]:
    cuts = [(max(span[0], start), min(span[1], end)) for start, end in references]
    return [(start, end) for start, end in cuts if start < end]


def _merged(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _length(spans: Sequence[Span]) -> int:
    return sum(end - start for start, end in spans)
