"""The house rules that no linter knows: sizes of functions, and what never gets into a commit."""

import ast
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tracked_files() -> list[Path]:
    """What git tracks, or would track, of this checkout."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listing.stdout.splitlines() if (path := ROOT / name).is_file()]


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """Length in lines and place of every function in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (
                (node.end_lineno or node.lineno) - node.lineno + 1,
                f"{path.relative_to(ROOT)}:{node.lineno} {node.name}",
            )


@pytest.fixture(scope="module")
def sizes() -> list[tuple[int, str]]:
    rooms = [path for path in tracked_files() if path.suffix == ".py" and "tests" not in path.relative_to(ROOT).parts]
    return sorted(size for path in rooms for size in functions(path))


def test_half_of_the_functions_fit_in_ten_lines(sizes: list[tuple[int, str]]) -> None:
    assert statistics.median(length for length, _ in sizes) <= 10


def test_nineteen_of_twenty_functions_fit_in_forty_lines(sizes: list[tuple[int, str]]) -> None:
    assert sizes[int(len(sizes) * 0.95)][0] <= 40


def test_no_function_is_longer_than_a_screen(sizes: list[tuple[int, str]]) -> None:
    assert [place for length, place in sizes if length > 80] == []


def test_lock_files_carry_names_versions_and_hashes_only() -> None:
    locks = [path for path in tracked_files() if re.search(r"\.lock$|go\.(mod|sum)$|-lock\.", path.name)]
    assert locks, "there is a lock file"
    assert [path.name for path in locks if re.search(r"https?://", path.read_text())] == []


def test_every_locked_package_has_a_hash() -> None:
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    pinned = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert len(pinned) > 50
    assert [line.split()[0] for line in pinned if "--hash=sha256:" not in line] == []


def test_no_path_of_a_build_machine_is_committed() -> None:
    here = r"(?<![\w.…}])(" + re.escape(str(ROOT)) + r"/|/root/\.|/home/\w+/)"
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}: {match[0]}" for match in re.finditer(here, text) if path != Path(__file__)
        ]
    assert found == []


def test_every_package_of_ours_is_shipped() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shipped = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    rooms = {
        str(path.parent.relative_to(ROOT))
        for path in tracked_files()
        if path.name == "__init__.py" and path.parent.name.startswith("loam_")
    }
    assert rooms == shipped
