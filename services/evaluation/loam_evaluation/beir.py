"""Retrieval tasks in BEIR's layout (github.com/beir-cellar/beir): corpus.jsonl, queries.jsonl, qrels/*.tsv."""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loam_evaluation.errors import EvaluationError
from loam_ingestion.parsing import Extracted

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: str = Field(alias="_id")
    title: str = ""
    text: str


@dataclass(frozen=True)
class Task:
    """Documents and questions by id, and which documents answer which question: question, document, grade."""

    documents: dict[str, Extracted]
    questions: dict[str, str]
    judgements: dict[str, dict[str, int]]


def read(folder: Path, split: str | None = None) -> Task:
    """The questions of one split (``test`` if there is one and none is named). A title opens its document's text.

    Raises EvaluationError that names the file and line where something does not fit.
    """
    documents = {entry.id: _document(entry) for entry in _entries(folder / CORPUS)}
    questions = {entry.id: entry.text for entry in _entries(folder / QUERIES)}
    qrels = _split(folder / QRELS, split)
    judgements = _judgements(qrels)
    for question in judgements:
        if question not in questions:
            raise EvaluationError(f"{qrels} judges the question {question!r}, which {QUERIES} does not hold")
    asked = {key: questions[key] for key, judged in judgements.items() if max(judged.values()) > 0}
    if not asked:
        raise EvaluationError(f"{qrels} judges no document relevant")
    return Task(documents, asked, {key: judgements[key] for key in asked})


def is_held_out(question_id: str) -> bool:
    """Whether a question belongs to the half that parameters are judged on, not chosen on: the same for ever."""
    return hashlib.sha256(question_id.encode()).digest()[0] % 2 == 1


def _entries(path: Path) -> Iterator[_Entry]:
    if not path.exists():
        raise EvaluationError(f"there is no {path}")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield _Entry.model_validate_json(line)
                except ValidationError as error:
                    first = error.errors()[0]
                    field = ".".join(str(part) for part in first["loc"])
                    raise EvaluationError(f"{path}, line {number}: {field or 'line'}: {first['msg']}") from error


def _document(entry: _Entry) -> Extracted:
    return Extracted(f"{entry.title}\n\n{entry.text}".strip(), entry.title or None)


def _split(folder: Path, named: str | None) -> Path:
    found = {path.stem: path for path in sorted(folder.glob("*.tsv"))}
    if named is None:
        named = "test" if "test" in found or len(found) != 1 else next(iter(found))
    if named not in found:
        raise EvaluationError(f"there is no {folder / named}.tsv; there is {', '.join(found) or 'none'}")
    return found[named]


def _judgements(path: Path) -> dict[str, dict[str, int]]:
    """Rows of question, document and grade; a first row without a number is a heading."""
    judgements: dict[str, dict[str, int]] = defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            if not row or (number == 1 and not row[-1].lstrip("-").isdigit()):
                continue
            if len(row) != 3 or not row[2].lstrip("-").isdigit():
                raise EvaluationError(f"{path}, line {number}: not a question, a document and a whole number")
            judgements[row[0]][row[1]] = int(row[2])
    return judgements
