"""The port to whatever keeps the objects: a Kubernetes API server, or the local platform on one machine.

Everything else in the operator speaks to a `Cluster` and knows neither. Reading is synchronous and served from memory
(a cache fed by watches); writing is asynchronous, idempotent, and visible to the next read of the same process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

FIELD_MANAGER = "loam"

Manifest = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Which object: `namespace` is None for cluster-scoped kinds."""

    api_version: str
    kind: str
    name: str
    namespace: str | None = None

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "Ref":
        """The reference to a manifest."""
        metadata = manifest["metadata"]
        return cls(manifest["apiVersion"], manifest["kind"], metadata["name"], metadata.get("namespace"))

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Cluster(Protocol):
    """What the operator needs of a cluster. Objects that are returned belong to the cache: they are not changed."""

    def get(self, ref: Ref) -> Manifest | None:
        """The object as last seen, or None."""
        ...

    def list(
        self, api_version: str, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """The objects of a kind as last seen, in all namespaces or one, that carry all of `labels`."""
        ...

    def subscribe(self, changed: Callable[[Manifest], None]) -> None:
        """Call `changed` for every object that was added, changed or deleted, with its last known state.

        At the start it is called once for every object that is there.
        """
        ...

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object that must not exist yet. Raises ConflictError when it does."""
        ...

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply, by force, as field manager `loam`; returns the live object.

        Fields that were applied before and are no longer in `manifest` are removed. Nothing is written when the live
        object already is what would be written. With ``metadata.resourceVersion`` set, an object that has moved on
        raises ConflictError. Raises InvalidRequestError or ForbiddenError when the object is refused.
        """
        ...

    async def delete(self, ref: Ref, uid: str) -> None:
        """Delete the object if it still is the one with this `uid`; no error when it is gone."""
        ...

    async def apply_status(self, ref: Ref, status: Mapping[str, Any]) -> None:
        """Make this the object's status; nothing is written when it already is, or when the object is gone."""
        ...

    async def set_finalizers(self, ref: Ref, finalizers: Sequence[str]) -> None:
        """Replace the finalizers; no error when the object is gone. Raises ConflictError when it has moved on."""
        ...

    async def record(self, about: Manifest, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002 - the field's name in an Event
        """Write an Event about an object, for people to read."""
        ...

    async def kind_is_going(self, kind: str) -> bool:
        """Whether the definition (CRD) of one of our kinds is being removed, asked of the live API.

        Then its objects are deleted only because of that, and nothing of the tenants' may go with them.
        """
        ...

    def url(self, service: Ref, port: int) -> str:
        """The base URL at which callers reach a Service's port, without a slash at the end."""
        ...
