"""What `loam pipeline` makes of the index versions that the gateway tells of, with and without what newer ones say."""

import pytest

from loam_cli.commands.pipeline import _print_versions, _the_one_before
from loam_cli.errors import CommandError


def version(number: int, state: str | None = None, *, current: bool = False, **more: object) -> dict:
    told = {"version": number, "chunks": 7, "current": current, "createdAt": "2026-11-25T23:12:49.002723Z"}
    return told | ({"state": state} if state else {}) | more


def test_the_one_before_is_the_newest_older_one_that_can_serve():
    kept = [version(6, "Building"), version(5, "Serving", current=True), version(4, "Rejected"), version(3, "Ready")]
    assert _the_one_before("handbook", [*kept, version(2, "Ready")]) == 3
    assert _the_one_before("handbook", [version(2, current=True), version(1)]) == 1


@pytest.mark.parametrize(
    "kept",
    [[], [version(1, "Building")], [version(2, "Ready"), version(1, "Serving", current=True)]],
    ids=["none", "none that serves", "a later one only"],
)
def test_without_one_before_it_is_said(kept):
    with pytest.raises(CommandError, match="keeps no index version from before"):
        _the_one_before("handbook", kept)


def test_a_build_shows_its_recipe_its_progress_and_why_it_was_rejected(capsys):
    recipe = {
        "chunking": {"strategy": "Markdown", "maxTokens": 300, "overlapTokens": 30},
        "embedding": {"model": "nova-embed", "dimensions": 1024},
    }
    _print_versions(
        [
            version(3, "Building", recipe=recipe, progress={"indexVersion": 3, "done": 40, "documents": 90}),
            version(2, "Rejected", reason="3 of 50 sampled queries found less"),
            version(1, current=True),
        ]
    )
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "3 Building 40/90 7 Markdown 300/30 nova-embed 1024 2026-11-25 23:12:49 UTC" in shown
    assert "1 Serving 7 - - 2026-11-25 23:12:49 UTC" in shown
    assert "version 2: 3 of 50 sampled queries found less" in shown
