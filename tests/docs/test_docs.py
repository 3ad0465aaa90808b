"""The documentation names nothing that is not there: links, files, commands, options, variables, make targets."""

import importlib
import pkgutil
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import AliasChoices
from pydantic_settings import BaseSettings
from typer.testing import CliRunner

from loam_cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PROSE = [page for page in PAGES if "reference" not in page.parts]
PACKAGES = ("loam_operator", "loam_gateway", "loam_retrieval", "loam_ingestion", "loam_bedrock_local")
# Read by AWS's own libraries, by Kubernetes' tools or by OpenAI's client, not by us.
NOT_OURS = re.compile(r"AWS_|OPENAI_|KUBE")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
prose = pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", _without_blocks(page.read_text())):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {path}"
        if anchor:
            assert anchor in _anchors(linked), f"{page.name} links to {target}"


@prose
def test_every_file_that_is_named_exists(page: Path) -> None:
    """What is in backticks and begins with a folder of the repository is a path in it."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    for text in re.findall(r"`([^`\s]+)`", _without_blocks(page.read_text())):
        if text.split("/")[0] in folders - {"build", "dist"} and "/" in text:
            for path in _expanded(text):
                assert (ROOT / path).exists(), f"{page.name} names {path}"


@prose
def test_every_loam_command_can_be_parsed_as_printed(page: Path) -> None:
    for words in _loam_commands(page):
        _parse(words)


@prose
def test_every_environment_variable_is_read_by_something(page: Path) -> None:
    named = set(re.findall(r"\b((?:LOAM|AWS|OPENAI)_[A-Z][A-Z0-9_]*[A-Z0-9])\b", page.read_text()))
    unknown = {name for name in named - _variables() if not NOT_OURS.match(name)}
    assert not unknown, f"{page.name} names {unknown}"


@prose
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    named = {*re.findall(r"`make ([a-z]+)", text), *re.findall(r"^\$ make ([a-z]+)", text, re.MULTILINE)}
    assert named <= targets, f"{page.name} names make {named - targets}"


@prose
def test_every_path_of_a_command_exists(page: Path) -> None:
    """Files of the repository that printed commands read: samples, crds, scripts, tests."""
    for line in _commands(page):
        for path in re.findall(r"(?<![\w./-])((?:samples|crds|operator|scripts|tests)/[\w./-]*)", line):
            assert (ROOT / path).exists(), f"{page.name} runs {line}"


@prose
def test_every_python_block_compiles(page: Path) -> None:
    for block in _blocks(page.read_text(), "python"):
        compile(block, str(page), "exec")


@prose
def test_every_shell_block_is_shell(page: Path) -> None:
    script = "\n".join([*_commands(page), *_blocks(page.read_text(), "sh")])
    checked = subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, f"{page.name}: {checked.stderr}"


def test_the_checks_see_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "See [that](nowhere.md).\n\n```console\n$ .venv/bin/loam fly --high\n```\n`LOAM_NOTHING`, `make tea`\n"
    )
    for check in (
        test_every_relative_link_leads_somewhere,
        test_every_environment_variable_is_read_by_something,
        test_every_make_target_exists,
        test_every_loam_command_can_be_parsed_as_printed,
    ):
        with pytest.raises(AssertionError):
            check(page)


def _parse(words: list[str]) -> None:
    """Fails unless command and options exist; `--help` keeps the command from running."""
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0, f"loam {shlex.join(words)}: {result.output}"


def _loam_commands(page: Path) -> Iterator[list[str]]:
    """The arguments of every `loam …` that is printed, in console blocks and in backticks."""
    for line in _commands(page):
        for part in re.findall(r"(?:^|&& )(?:\w+=\S+ )*\.venv/bin/loam(?: ([^|&>]*))?", line):
            yield shlex.split(part, comments=True)


def _commands(page: Path) -> list[str]:
    return [
        line.removeprefix("$ ")
        for block in _blocks(page.read_text(), "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


@cache
def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _without_blocks(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _expanded(path: str) -> list[str]:
    """`a/{b,c}` as a/b and a/c."""
    match = re.search(r"\{([^}]*)\}", path)
    if match is None:
        return [path]
    return [path[: match.start()] + choice + path[match.end() :] for choice in match[1].split(",")]


@cache
def _variables() -> set[str]:
    """Every variable that a settings class or an option of the command reads."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if module.name.rpartition(".")[2] in {"settings", "aws"}:
                importlib.import_module(module.name)
    ours = [kind for kind in _subclasses(BaseSettings) if kind.__module__.startswith("loam_")]
    return {name for kind in ours for name in _names(kind)} | set(_options(typer.main.get_command(app)))


def _subclasses(kind: type[BaseSettings]) -> Iterator[type[BaseSettings]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _names(kind: type[BaseSettings]) -> Iterator[str]:
    prefix = kind.model_config.get("env_prefix", "")
    for name, field in kind.model_fields.items():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices):
            yield from (str(choice) for choice in alias.choices)
            continue
        yield f"{prefix}{alias or name}".upper()
        for inner in getattr(field.annotation, "model_fields", ()):
            yield f"{prefix}{name}__{inner}".upper()


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        given = parameter.envvar
        yield from [given] if isinstance(given, str) else given or ()
    for child in getattr(command, "commands", {}).values():
        yield from _options(child)
