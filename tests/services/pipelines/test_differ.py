"""What a sync queues is exactly what differs."""

from hypothesis import given
from hypothesis import strategies as st

from loam_gateway.pipelines.differ import KnownDocument, compare
from loam_gateway.pipelines.model import PipelineId, document_id
from loam_shared.contracts.internal import SourceDocument

PIPELINE = PipelineId("acme", "handbook")
CONTENTS = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["1", "2", "3"]))


def seen(contents: dict[str, str]) -> list[SourceDocument]:
    return [SourceDocument(source="S3", bucket="docs", key=key, etag=etag, size=1) for key, etag in contents.items()]


def identity(key: str) -> str:
    return document_id(PIPELINE, "S3", "docs", key)


@given(before=CONTENTS, after=CONTENTS, removing=st.sets(st.sampled_from("abcdefgh")))
def test_applying_the_differences_gives_what_the_source_shows(before, after, removing):
    known = [KnownDocument(identity(key), etag, removing=key in removing) for key, etag in before.items()]
    found = compare(PIPELINE, seen(after), known)
    kept = {identity(key): etag for key, etag in before.items() if key not in removing}
    for key in found.removed:
        del kept[key]
    kept |= {key: one.etag for key, one in (found.added | found.changed).items()}
    assert kept == {identity(key): etag for key, etag in after.items()}
    assert found.unchanged + len(found.added) + len(found.changed) == len(after)


@given(contents=CONTENTS)
def test_a_source_that_did_not_change_queues_nothing(contents):
    known = [KnownDocument(identity(key), etag) for key, etag in contents.items()]
    found = compare(PIPELINE, seen(contents), known)
    assert (found.added, found.changed, found.removed) == ({}, {}, ())


def test_the_same_name_in_another_place_is_another_document():
    places = [("S3", "a", "x.md"), ("S3", "b", "x.md"), ("ConfigMap", "a", "x.md"), ("Uploads", None, "x.md")]
    ids = {document_id(PIPELINE, *place) for place in places}
    ids |= {document_id(PipelineId("acme", "other"), *place) for place in places}
    ids |= {document_id(PipelineId("bob", "handbook"), *place) for place in places}
    assert len(ids) == 12
