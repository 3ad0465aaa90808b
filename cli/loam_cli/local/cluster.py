"""The operator's `Cluster` without Kubernetes: objects in memory and on disk, with an API server's semantics.

What the operator relies on holds here too: apply merges and removes what is no longer applied, finalizers hold a
deletion up, owners take what they own with them, a namespace takes its contents, and `generation` counts specs.
"""

import base64
import copy
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from loam_cli.local.manifests import is_cluster_scoped
from loam_cli.local.store import Store
from loam_operator.api.admission import InvalidManifestError, admit
from loam_operator.api.v1alpha1 import API_VERSION, KINDS
from loam_operator.cluster import FIELD_MANAGER, Manifest, Ref
from loam_shared.errors import ConflictError, InvalidRequestError

Changed = Callable[[Manifest], None]
Path = tuple[str, ...]
USER = "kubectl"
"""The field manager of what people apply."""
_OF_THE_SERVER = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "managedFields")


@dataclass(frozen=True)
class Event:
    """Something worth telling people about an object."""

    about: Ref
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class LocalCluster:
    """Implements `loam_operator.cluster.Cluster`; `address` says where a Service's port is reached."""

    def __init__(self, store: Store, address: Callable[[Ref, int], str]) -> None:
        self._store = store
        self._address = address
        self._objects: dict[Ref, Manifest] = {}
        self._applied: dict[Ref, dict[str, Manifest]] = {}
        self._subscribers: list[Changed] = []
        self.events: deque[Event] = deque(maxlen=500)
        self.on_event: Callable[[Event], None] = lambda _: None
        for manifest, applied in store.load():
            ref = Ref.of(manifest)
            # A status says what was seen, and nothing of what was seen last time need still be so.
            self._objects[ref] = {name: value for name, value in manifest.items() if name != "status"}
            self._applied[ref] = applied
        self._version = max((int(held["metadata"]["resourceVersion"]) for held in self._objects.values()), default=0)

    @property
    def version(self) -> int:
        """Moves with every write."""
        return self._version

    def get(self, ref: Ref) -> Manifest | None:
        """The object, or None."""
        return self._objects.get(ref)

    def list(
        self, api_version: str, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """The objects of a kind that lie in `namespace` (any, when None) and carry all of `labels`."""
        wanted = (labels or {}).items()
        return [
            held
            for ref, held in self._objects.items()
            if (ref.api_version, ref.kind) == (api_version, kind)
            and namespace in (None, ref.namespace)
            and wanted <= held["metadata"].get("labels", {}).items()
        ]

    def all(self) -> Sequence[Manifest]:
        """Every object."""
        return list(self._objects.values())

    def subscribe(self, changed: Changed) -> None:
        """Call `changed` for every object that is there, and from now on for every change."""
        self._subscribers.append(changed)
        for held in self.all():
            changed(held)

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object. Raises ConflictError when it is there already."""
        if Ref.of(manifest) in self._objects:
            raise ConflictError(f"{Ref.of(manifest)} exists already")
        return await self.apply(manifest)

    async def apply(self, manifest: Manifest, manager: str = FIELD_MANAGER) -> Manifest:
        """Server-side apply by force; see the port for what it promises."""
        ref = Ref.of(manifest)
        live = self._objects.get(ref)
        self._refuse_stale(manifest, live)
        wanted = self._admitted(manifest, live)
        before = self._applied.get(ref, {})
        applied = before | {manager: wanted}
        still = set().union(*(_fields(manifest) for manifest in applied.values()))
        merged = _merged(_without(live or {}, _fields(before.get(manager, {})) - still), wanted)
        if live is not None and merged == live:
            if applied != before:
                self._store.put(live, applied)
                self._applied[ref] = applied
            return live
        changed_spec = _spec(merged) != _spec(live or {})
        return self._write(merged if live else _born(merged), applied, changed_spec=changed_spec)

    async def delete(self, ref: Ref, uid: str) -> None:
        """Delete the object with this `uid`; finalizers hold it up."""
        live = self._objects.get(ref)
        if live is not None and live["metadata"]["uid"] == uid:
            self._delete(live)

    async def apply_status(self, ref: Ref, status: Mapping[str, Any]) -> None:
        """Make this the status."""
        live = self._objects.get(ref)
        if live is not None and live.get("status") != status:
            self._write(live | {"status": dict(status)})

    async def set_finalizers(self, ref: Ref, finalizers: Sequence[str]) -> None:
        """Replace the finalizers; the last one to go lets a deleted object go."""
        live = self._objects.get(ref)
        if live is None or live["metadata"].get("finalizers", []) == [*finalizers]:
            return
        written = self._write(live | {"metadata": live["metadata"] | {"finalizers": [*finalizers]}})
        if written["metadata"].get("deletionTimestamp"):
            self._remove_if_free(written)

    async def record(self, about: Manifest, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002 - the field's name in an Event
        """Keep an Event, and tell `on_event`."""
        event = Event(Ref.of(about), type, reason, message)
        self.events.append(event)
        self.on_event(event)

    async def kind_is_going(self, kind: str) -> bool:  # noqa: ARG002 - the port's signature
        """Never: there are no definitions here that could be removed."""
        return False

    def url(self, service: Ref, port: int) -> str:
        """Where the local process behind a Service listens."""
        return self._address(service, port)

    def _refuse_stale(self, manifest: Manifest, live: Manifest | None) -> None:
        expected = manifest["metadata"].get("resourceVersion")
        if expected is not None and (live is None or live["metadata"]["resourceVersion"] != expected):
            raise ConflictError(f"{Ref.of(manifest)} has moved on since version {expected}")

    def _admitted(self, manifest: Manifest, live: Manifest | None) -> Manifest:
        """The manifest as an API server would store it. Raises InvalidRequestError when it would refuse it."""
        ref = Ref.of(manifest)
        if ref.namespace is not None and Ref("v1", "Namespace", ref.namespace) not in self._objects:
            raise InvalidRequestError(f'{ref}: namespaces "{ref.namespace}" not found')
        try:
            return normalised(manifest, live)
        except InvalidManifestError as error:
            raise InvalidRequestError(str(error)) from error

    def _write(
        self, manifest: Manifest, applied: dict[str, Manifest] | None = None, *, changed_spec: bool = False
    ) -> Manifest:
        metadata = manifest["metadata"]
        self._version += 1
        generation = metadata.get("generation", 0) + (1 if changed_spec else 0)
        metadata = metadata | {"resourceVersion": str(self._version), "generation": generation}
        written = manifest | {"metadata": metadata}
        ref = Ref.of(written)
        applied = self._applied.get(ref, {}) if applied is None else applied
        # The disk first: what could not be kept must not count as written, for nobody would write it again.
        self._store.put(written, applied)
        self._objects[ref], self._applied[ref] = written, applied
        self._tell(written)
        return written

    def _delete(self, live: Manifest) -> None:
        if not live["metadata"].get("deletionTimestamp"):
            live = self._write(live | {"metadata": live["metadata"] | {"deletionTimestamp": _now()}})
        if live["kind"] == "Namespace":
            for content in self._contents(live["metadata"]["name"]):
                self._delete(content)
        self._remove_if_free(live)

    def _remove_if_free(self, live: Manifest) -> None:
        """Remove a deleted object that nothing holds up, then what it owns, and the namespace that waited for it."""
        ref = Ref.of(live)
        if live["metadata"].get("finalizers") or ref not in self._objects:
            return
        if ref.kind == "Namespace" and any(self._contents(ref.name)):
            return
        self._store.remove(ref)
        del self._objects[ref]
        self._applied.pop(ref, None)
        self._tell(live)
        for owned in [*self._owned_by(live["metadata"]["uid"])]:
            self._delete(owned)
        namespace = self._objects.get(Ref("v1", "Namespace", ref.namespace or ""))
        if namespace is not None and namespace["metadata"].get("deletionTimestamp"):
            self._remove_if_free(namespace)

    def _contents(self, namespace: str) -> "Sequence[Manifest]":
        return [held for ref, held in self._objects.items() if ref.namespace == namespace]

    def _owned_by(self, uid: str) -> Iterator[Manifest]:
        for held in self._objects.values():
            if any(owner["uid"] == uid for owner in held["metadata"].get("ownerReferences", ())):
                yield held

    def _tell(self, manifest: Manifest) -> None:
        for changed in self._subscribers:
            changed(manifest)


def normalised(manifest: Manifest, live: Manifest | None = None) -> Manifest:
    """The manifest with defaults, and without what belongs to the server. Raises InvalidManifestError."""
    metadata = {name: value for name, value in manifest["metadata"].items() if name not in _OF_THE_SERVER}
    stored = copy.deepcopy({**manifest, "metadata": metadata})
    stored.pop("status", None)
    if manifest["apiVersion"] == API_VERSION:
        previous = KINDS[manifest["kind"]].read(live) if live and manifest["kind"] in KINDS else None
        stored["spec"] = admit(stored, previous).spec.to_manifest()
    if manifest["kind"] == "Secret" and "stringData" in stored:
        plain = stored.pop("stringData")
        encoded = {name: base64.b64encode(text.encode()).decode() for name, text in plain.items()}
        stored["data"] = stored.get("data", {}) | encoded
    if is_cluster_scoped(stored):
        stored["metadata"].pop("namespace", None)
    return stored


def _born(manifest: Manifest) -> Manifest:
    identity = {"uid": str(uuid.uuid4()), "creationTimestamp": _now()}
    return manifest | {"metadata": manifest["metadata"] | identity}


def _spec(manifest: Manifest) -> Manifest:
    """What `generation` counts: everything but metadata and status."""
    return {name: value for name, value in manifest.items() if name not in {"metadata", "status"}}


def _merged(live: Any, wanted: Any) -> Any:
    """`wanted` over `live`, maps field by field; lists are taken whole."""
    if not (isinstance(live, dict) and isinstance(wanted, dict)):
        return wanted
    return live | {name: _merged(live.get(name), value) for name, value in wanted.items()}


def _fields(manifest: Any, path: Path = ()) -> set[Path]:
    """The paths of all values that are not maps themselves; a list is one value."""
    if not isinstance(manifest, dict) or not manifest:
        return {path}
    return set().union(*(_fields(value, (*path, name)) for name, value in manifest.items()))


def _without(live: Any, fields: set[Path]) -> Any:
    """`live` without these fields, nor the maps that they leave empty."""
    if not isinstance(live, dict) or not fields:
        return live
    kept = {}
    for name, value in live.items():
        below = {path[1:] for path in fields if path and path[0] == name}
        rest = _without(value, below - {()})
        if () not in below and (rest != {} or value == {}):
            kept[name] = rest
    return kept


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
