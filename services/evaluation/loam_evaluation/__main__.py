"""``python -m loam_evaluation``: takes an Evaluation as JSON on standard input, prints figures on standard output."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence

from pydantic import ValidationError

# Lance tells that it makes the index it was told to make.
os.environ.setdefault("LANCEDB_LOG", "error")

from loam_evaluation import answers, beir, measure, spans, tables
from loam_evaluation.embedders import installed
from loam_evaluation.errors import AbsentError, EvaluationError
from loam_evaluation.measure import Row
from loam_evaluation.plan import for_answers, for_ranking, for_spans
from loam_shared.contracts.evaluation import NOTHING_TO_MEASURE, Evaluation


def main() -> int:
    try:
        asyncio.run(_evaluate(Evaluation.model_validate_json(sys.stdin.read())))
    except ValidationError as error:
        return _fail(f"the request is not an evaluation: {error.errors()[0]['msg']}", 2)
    except AbsentError as error:
        return _fail(f"skipped: {error}", NOTHING_TO_MEASURE)
    except EvaluationError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted; what was embedded is kept, so the same command goes on from here", 130)
    return 0


async def _evaluate(wanted: Evaluation) -> None:
    folder = wanted.folder
    if not folder.is_dir():
        raise AbsentError(f"there is no folder {folder}")
    if wanted.answers and not (folder / spans.QUESTIONS).exists():
        raise EvaluationError(f"answers are checked on questions with spans: {folder} holds no {spans.QUESTIONS}")
    if wanted.answers:
        await _answers(wanted)
    elif (folder / beir.CORPUS).exists():
        await _rank(wanted)
    elif (folder / spans.QUESTIONS).exists():
        await _overlap(wanted)
    else:
        raise EvaluationError(
            f"{folder} holds neither {beir.CORPUS} (a retrieval task in BEIR's layout) "
            f"nor {spans.QUESTIONS} (questions with character spans)"
        )


async def _rank(wanted: Evaluation) -> None:
    task = beir.read(wanted.folder, wanted.split)
    rows = [row for setup in for_ranking(wanted, installed()) for row in await measure.rankings(task, setup)]
    _print(rows, tables.ranking, as_json=wanted.as_json)


async def _overlap(wanted: Evaluation) -> None:
    questions = spans.read(wanted.folder)
    rows = [row for setup in for_spans(wanted, installed()) for row in await measure.overlaps(questions, setup)]
    _print(rows, tables.overlap, as_json=wanted.as_json)


async def _answers(wanted: Evaluation) -> None:
    questions = spans.read(wanted.folder)
    if wanted.pipeline:
        verdicts = await answers.judged(questions, answers.Platform.of_environment(wanted.pipeline))
    else:
        async with measure.opened(questions.documents, for_answers(wanted, installed())) as (books, _):
            verdicts = await answers.judged(questions, answers.Here(books))
    found = answers.shares(verdicts)
    _print([{"answers": wanted.pipeline or "local stand-in"} | found], tables.answers, as_json=wanted.as_json)


def _print(rows: Sequence[Row], table: Callable[[Sequence[Row]], None], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))  # noqa: T201 - this is what the command is for
    else:
        table(rows)


def _fail(reason: str, code: int) -> int:
    sys.stderr.write(f"loam eval: {reason}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
