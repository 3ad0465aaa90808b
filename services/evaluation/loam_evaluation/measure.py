"""Runs the questions of a folder against indexes of its documents, and counts what was found."""

import statistics
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from loam_evaluation import beir, ranking, spans
from loam_evaluation.embedders import Embedder, embedder
from loam_evaluation.library import Library, cut, library
from loam_evaluation.plan import DEFAULT_CHUNKING, Setup, chunking_of
from loam_evaluation.progress import Steps
from loam_evaluation.vectors import VectorCache, cache_folder
from loam_ingestion.chunking import Chunk
from loam_ingestion.parsing import Extracted
from loam_shared.contracts.evaluation import Mode

Row = dict[str, Any]
# What 2, 4 and 8 passages of 400 tokens cost a prompt.
BUDGETS = (800, 1600, 3200)
_DEPTH = 100
_SHORTEST_PASSAGE = 30


async def rankings(task: beir.Task, setup: Setup) -> list[Row]:
    """A row for each mode: nDCG@10, Recall@100, MRR@10 (all from 0 to 1) and milliseconds a search."""
    async with opened(task.documents, setup) as (books, chunks):
        per_document = -(-len(chunks) // max(1, len(task.documents)))
        return [await _ranking(task, setup, mode, books, _DEPTH * per_document) for mode in setup.modes]


async def _ranking(task: beir.Task, setup: Setup, mode: Mode, books: Library, limit: int) -> Row:
    steps = Steps(f"{setup.embedder}, {mode}", len(task.questions))
    figures: dict[str, tuple[float, float, float]] = {}
    milliseconds = []
    for key, text in task.questions.items():
        began = time.perf_counter()
        passages = await books.search(text, mode, limit, limit)
        milliseconds.append((time.perf_counter() - began) * 1000)
        # A document stands where its best passage does.
        ranked = list(dict.fromkeys(passage.source for passage in passages))
        judged = task.judgements[key]
        figures[key] = (
            ranking.ndcg(ranked, judged),
            ranking.recall(ranked, judged),
            ranking.reciprocal_rank(ranked, judged),
        )
        steps(1)
    steps.end()
    return (
        {"mode": mode, "embedder": setup.embedder}
        | _means(figures)
        | _latency(milliseconds)
        | _halves(figures)
        | {"chunking": setup.chunking}
    )


def _means(figures: Mapping[str, Sequence[float]]) -> Row:
    ndcg, recall, mrr = (round(statistics.fmean(column), 4) for column in zip(*figures.values(), strict=True))
    return {"ndcg@10": ndcg, "recall@100": recall, "mrr@10": mrr}


def _latency(milliseconds: Sequence[float]) -> Row:
    ordered = sorted(milliseconds)
    return {
        f"query_ms_p{percent}": round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 1)
        for percent in (50, 95)
    }


def _halves(figures: Mapping[str, Sequence[float]]) -> Row:
    """nDCG@10 on the half of the questions that parameters were chosen on, and on the half that was held out."""
    halves: dict[bool, list[float]] = {False: [], True: []}
    for key, of_one in figures.items():
        halves[beir.is_held_out(key)].append(of_one[0])
    chosen, held_out = (round(statistics.fmean(half), 4) if half else 0.0 for half in halves.values())
    return {"ndcg@10_tuning_half": chosen, "ndcg@10_held_out_half": held_out}


async def overlaps(questions: spans.QuestionSet, setup: Setup) -> list[Row]:
    """A row for each mode: recall, precision and IoU (all from 0 to 1), each the mean over the three budgets."""
    async with opened(questions.documents, setup) as (books, chunks):
        return [
            {"chunking": setup.chunking, "mode": mode, "embedder": setup.embedder, "chunks": len(chunks)}
            | await _overlap(questions, f"{setup.chunking}, {mode}", mode, books)
            | {"default": setup.chunking == DEFAULT_CHUNKING}
            for mode in setup.modes
        ]


async def _overlap(questions: spans.QuestionSet, what: str, mode: Mode, books: Library) -> Row:
    limit = max(BUDGETS) // _SHORTEST_PASSAGE
    steps = Steps(what, len(questions.questions))
    found: dict[int, list[spans.Overlap]] = {budget: [] for budget in BUDGETS}
    for question in questions.questions:
        passages = await books.search(question.text, mode, limit, limit)
        for budget, overlaps_of in found.items():
            overlaps_of.append(spans.overlap(question, spans.within(passages, budget)))
        steps(1)
    steps.end()
    everything = [one for of_budget in found.values() for one in of_budget]
    return {
        "recall": _mean(one.recall for one in everything),
        "precision": _mean(one.precision for one in everything),
        "iou": _mean(one.iou for one in everything),
    } | {f"recall@{budget}": _mean(one.recall for one in of_budget) for budget, of_budget in found.items()}


def _mean(values: Iterable[float]) -> float:
    return round(statistics.fmean(values), 4)


@asynccontextmanager
async def opened(documents: Mapping[str, Extracted], setup: Setup) -> AsyncIterator[tuple[Library, list[Chunk]]]:
    """The index that `setup` asks for, and its chunks. Raises EvaluationError."""
    model: Embedder = embedder(setup.embedder)
    chunking = chunking_of(setup.chunking)
    chunks = cut(documents, chunking)
    flat = [found for of_one in chunks.values() for found in of_one]
    async with library(chunks, model, VectorCache(model, cache_folder())) as books:
        yield books, flat
