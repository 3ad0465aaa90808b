"""What `loam sync` says while it waits, and what it makes of the documents before and after."""

from loam_cli.commands.sync import _how_far, _Outcome


def document(name: str, updated: str = "1", status: str = "Ready", **more: str) -> dict[str, str]:
    return {"name": name, "updatedAt": updated, "status": status} | more


def test_the_documents_before_and_after_say_what_a_sync_did():
    before = {
        "a": document("a.md"),
        "b": document("b.md"),
        "c": document("c.md"),
        "d": document("d.md", status="Failed"),
    }
    after = {
        "a": document("a.md"),
        "b": document("b.md", updated="2"),
        "d": document("d.md", status="Failed"),
        "e": document("e.pdf", status="Failed", error="It is broken."),
    }
    came = _Outcome("handbook", before, after, 1.25)
    assert came.in_words() == "handbook: 1 added, 1 changed, 1 removed, 2 unchanged, after 1.2 s"
    assert came.to_json() == {
        "pipeline": "handbook",
        "added": ["e.pdf"],
        "changed": ["b.md"],
        "removed": ["c.md"],
        "unchanged": 2,
        "failed": [{"name": "e.pdf", "error": "It is broken."}],
        "seconds": 1.2,
    }


def test_each_stage_of_a_sync_is_told_in_words():
    assert _how_far({"pending": 0, "sync": "Waiting"}, 0) == "waiting for the ingestion worker"
    assert _how_far({"pending": 0, "sync": "Running"}, 0) == "listing the sources"
    assert _how_far({"pending": 25, "sync": "Waiting"}, 100) == "75 of 100 documents"
    again = {"pending": 0, "sync": "Waiting", "syncError": "The bucket is not there."}
    assert _how_far(again, 0) == "trying again, since the last look failed: The bucket is not there."
