"""`loam demo`: the platform, real documents, three questions, and how to go on from there."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from loam_cli.adapters.control import api_keys
from loam_cli.adapters.gateway import Gateway
from loam_cli.answers import answered, print_cost, print_sources
from loam_cli.commands.documents import hand_in, indexed, named
from loam_cli.commands.sync import at_rest
from loam_cli.commands.up import Data, Port, describe, settled, until_stopped
from loam_cli.connection import DEFAULT_DATA
from loam_cli.console import err, out
from loam_cli.errors import CommandError
from loam_cli.local.manifests import read_manifests
from loam_cli.local.platform import Options, running
from loam_cli.local.report import Report

_PROJECT = Path(__file__).resolve().parents[3]
_KEY, _PIPELINE = "acme/backend", "handbook"
_QUESTIONS = (
    "What happens when a tenant has spent its budget?",
    "Which promises does Loam make?",
    "How do I rotate a key without an outage?",
)


def demo(
    docs: Annotated[list[Path] | None, typer.Option("--docs", help="Folder or file to ingest as well.")] = None,
    question: Annotated[list[str] | None, typer.Option("--question", "-q", help="Ask this instead.")] = None,
    data: Data = DEFAULT_DATA,
    port: Port = None,
) -> None:
    """Start the platform with samples/acme, ingest this project's documents, ask three questions.

    On a terminal it stays up afterwards; without one it stops everything.
    """
    documents = _own_documents() | dict(named(docs or ()))
    options = Options(read_manifests([_PROJECT / "samples" / "acme"]), data, port)
    asyncio.run(_demo(options, documents, question or _QUESTIONS))


def _own_documents() -> dict[str, Path]:
    """What this project says of itself to people; the API's schema in docs/ is for programs."""
    readme, guides = _PROJECT / "README.md", _PROJECT / "docs"
    if not readme.exists():
        raise CommandError("the demo needs Loam's sources with samples/ and README.md; run it from a checkout")
    found = named([readme, *([guides] if guides.is_dir() else [])])
    return {name: path for name, path in found if path.suffix == ".md"}


async def _demo(options: Options, documents: dict[str, Path], questions: Sequence[str]) -> None:
    report = Report(out)
    async with until_stopped(), running(options, report) as platform:
        if await settled(platform, report):
            raise CommandError("the sample tenant did not become ready; `loam up -f samples/acme/` shows more")
        describe(platform, report)
        key = api_keys(platform.cluster.all())[_KEY]
        url = platform.addresses.url("public")
        async with Gateway.open(url, key) as gateway:
            await _ingest(gateway, documents, report)
            for question in questions:
                await _ask(gateway, question)
            report.line(f"\n{len(questions)} answers, {report.seconds:.1f} s after the start")
        _say_how_to_go_on(url, key, options.data)
        if sys.stdout.isatty():
            report.line("[dim]Ctrl-C stops everything; data stays.[/]")
            await asyncio.Event().wait()


async def _ingest(gateway: Gateway, documents: dict[str, Path], report: Report) -> None:
    with report.step(f"{len(documents)} documents handed in"):
        ids = await hand_in(gateway, _PIPELINE, documents)
    with report.step("parsed, embedded and indexed") as detail:
        states = await indexed(gateway, _PIPELINE, ids, lambda ready: detail(f"{ready}/{len(ids)}"))
        # The questions are about the documents of the sample's ConfigMap, too.
        await at_rest(gateway, _PIPELINE, detail)
    _say_what_failed(states)


def _say_what_failed(states: Sequence[dict[str, Any]]) -> None:
    for state in states:
        if state["status"] == "Failed":
            err.print(f"! {state['name']}: {state['error']}", style="yellow", markup=False)


async def _ask(gateway: Gateway, question: str) -> None:
    out.print()
    out.print(question, style="bold", markup=False)
    answer = await answered(gateway, _PIPELINE, question)
    print_sources(answer)
    await print_cost(gateway, answer.usage)


def _say_how_to_go_on(url: str, key: str, data: Path) -> None:
    loam = ".venv/bin/loam" if data == DEFAULT_DATA else f"LOAM_DATA={data} .venv/bin/loam"
    body = '{"messages": [{"role": "user", "content": "How do budgets work?"}]}'
    out.print(
        "Go on with\n"
        f"  curl -s {url}/v1/pipelines/{_PIPELINE}/chat -H 'Authorization: Bearer {key}' \\\n"
        f"       -H 'Content-Type: application/json' -d '{body}'\n"
        f'  {loam} ask "How do budgets work?"\n'
        f"  {loam} documents add FOLDER\n"
        f"or with any OpenAI client: base URL {url}/v1, that key, model claude-haiku",
        markup=False,
    )
