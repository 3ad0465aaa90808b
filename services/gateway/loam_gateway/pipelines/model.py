"""What the pipelines' room passes around, as values, and the facts of a spec that the gateway acts on. Pure."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from croniter import croniter
from pydantic import ValidationError

from loam_shared.contracts.internal import IndexPointer, Recipe
from loam_shared.errors import InvalidRequestError

Source = Literal["Uploads", "S3", "ConfigMap"]


class PipelineId(NamedTuple):
    """A pipeline's full name; the tenant always comes from a credential or from the operator."""

    tenant: str
    name: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.name}"


@dataclass(frozen=True, slots=True)
class Serving:
    """Where a pipeline's retrieval service answers, and which index counts (None before the first commit)."""

    endpoint: str
    index: IndexPointer | None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Bytes that arrived for a document: under which key, how many, and their SHA-256."""

    name: str
    media_type: str
    key: str
    size: int
    sha256: str


def content_hash(pipeline: PipelineId, arrived: Iterable[StoredObject]) -> bytes:
    """The same for the same names with the same bytes in the same order, in the same pipeline."""
    digest = hashlib.sha256(str(pipeline).encode())
    for one in arrived:
        digest.update(f"{len(one.name)}:{one.name}{one.sha256}".encode())
    return digest.digest()


def document_id(pipeline: PipelineId, source: Source, bucket: str | None, name: str) -> str:
    """The same document has the same id for ever, however often its content changes."""
    origin = "\0".join([*pipeline, source, bucket or "", name])
    return f"doc_{hashlib.sha256(origin.encode()).hexdigest()[:24]}"


def recipe_of(spec: Mapping[str, Any]) -> Recipe:
    """What the manifest wants its index to be made by. Raises InvalidRequestError."""
    try:
        return Recipe.model_validate({"chunking": spec.get("chunking"), "embedding": spec.get("embedding")})
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise InvalidRequestError(f"spec.{where}: {error.errors()[0]['msg']}", param=f"spec.{where}") from error


def takes_uploads(spec: Mapping[str, Any]) -> bool:
    """Whether documents may arrive over the API."""
    return any("uploads" in source for source in spec.get("sources", ()))


def next_sync(spec: Mapping[str, Any], after: datetime) -> datetime | None:
    """When the schedule of `spec` asks for the next sync, or None without a schedule."""
    schedule = (spec.get("sync") or {}).get("schedule")
    if not schedule:
        return None
    moment: datetime = croniter(schedule, after).get_next(datetime)
    return moment
