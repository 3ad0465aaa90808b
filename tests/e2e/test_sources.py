"""A source bucket on a laptop: `loam up` makes it, AWS's tools fill it, and a sync brings the index in step."""

from collections.abc import Iterator

import boto3
import pytest

from .conftest import ROOT, SAMPLE, Up

pytestmark = pytest.mark.platform


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A platform with samples/sources."""
    models = ("-f", str(SAMPLE / "10-models.yaml"))
    up = Up.start(tmp_path_factory.mktemp("library") / "data", *models, manifests=ROOT / "samples" / "sources")
    try:
        yield up.ready()
    finally:
        up.stop()


def test_a_bucket_that_is_filled_with_aws_tools_is_what_the_answers_say(
    library: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = library.data / "aws-config"
    assert f"AWS_CONFIG_FILE={profile} aws --profile loam s3 cp" in library.said
    assert profile.stat().st_mode & 0o077 == 0
    monkeypatch.setenv("AWS_CONFIG_FILE", str(profile))
    bucket = boto3.Session(profile_name="loam").resource("s3").Bucket("library-docs")
    bucket.put_object(Key="handbook/room.md", Body=b"The reading room closes at dusk.")
    bucket.put_object(Key="handbook/cats.txt", Body=b"Cats are welcome in the garden.")
    bucket.put_object(Key="handbook/list.pdf", Body=b"no PDF")
    bucket.put_object(Key="elsewhere/secret.md", Body=b"The safe is behind the clock.")

    synced = library.loam("sync", "shelf")
    assert synced.code == 1
    assert "3 added, 0 changed, 0 removed, 1 unchanged" in synced.out
    assert "handbook/list.pdf: " in synced.err

    bucket.put_object(Key="handbook/room.md", Body=b"The reading room closes at midnight.")
    bucket.Object("handbook/cats.txt").delete()
    came = library.loam("sync", "--json").json
    assert (came["added"], came["changed"], came["removed"]) == ([], ["handbook/room.md"], ["handbook/cats.txt"])
    assert "midnight" in library.loam("ask", "When does the reading room close?", "--json").json["content"]

    shown = library.loam("pipeline", "show", "shelf", "--json").json
    assert shown["byStatus"] == {"Ready": 2, "Failed": 1}
    assert [one["name"] for one in shown["failures"]] == ["handbook/list.pdf"]
    assert [one["version"] for one in shown["versions"]] == [1]
    [listed] = library.loam("pipeline", "list", "--json").json
    assert (listed["name"], listed["documents"], listed["failed"]) == ("shelf", 3, 1)


def test_what_failed_is_tried_again_and_what_has_not_is_refused(library: Up) -> None:
    again = library.loam("documents", "retry")
    assert again.code == 1
    assert "1 documents are tried again" in again.out
    assert "handbook/list.pdf: " in again.err
    refused = library.loam("documents", "retry", "handbook/room.md")
    assert refused.code == 1
    assert "has not failed; it is Ready" in refused.err
