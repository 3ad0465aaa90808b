"""What a sync has to do: the documents that a source shows against those that are known. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from loam_gateway.pipelines.model import PipelineId, document_id
from loam_shared.contracts.internal import SourceDocument


@dataclass(frozen=True, slots=True)
class KnownDocument:
    """A document as it was last seen at its source; `removing` while its chunks are being taken out."""

    document_id: str
    etag: str
    removing: bool = False


@dataclass(frozen=True, slots=True)
class Differences:
    """What to ingest (`added` and `changed`, by document id), what to remove, and how much stays as it is."""

    added: dict[str, SourceDocument]
    changed: dict[str, SourceDocument]
    removed: tuple[str, ...]
    unchanged: int


def compare(pipeline: PipelineId, seen: Iterable[SourceDocument], known: Iterable[KnownDocument]) -> Differences:
    """Differences between a whole listing and what is known of the same sources.

    A document that comes back while it is being removed counts as changed; one that is being removed and stays away
    is left to that removal.
    """
    listed = {document_id(pipeline, one.source, one.bucket, one.key): one for one in seen}
    before = {one.document_id: one for one in known}
    changed = {
        key: one
        for key, one in listed.items()
        if key in before and (before[key].etag != one.etag or before[key].removing)
    }
    added = {key: one for key, one in listed.items() if key not in before}
    removed = tuple(key for key, one in before.items() if key not in listed and not one.removing)
    return Differences(added, changed, removed, unchanged=len(listed) - len(added) - len(changed))
