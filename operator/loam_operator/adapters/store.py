"""Objects as last seen, in memory: filled by lists and watches, and by the answers to our own writes."""

from collections.abc import Callable, Iterable, Mapping

from loam_operator.cluster import Manifest, Ref

Key = tuple[str | None, str]


class Store:
    """The newest state of each object that anyone has told of. Every change is passed on to the subscribers."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], dict[Key, Manifest]] = {}
        self._subscribers: list[Callable[[Manifest], None]] = []

    def subscribe(self, changed: Callable[[Manifest], None]) -> None:
        """Call `changed` for every change from now on, and for all that is here already."""
        self._subscribers.append(changed)
        for manifest in [manifest for objects in self._kinds.values() for manifest in objects.values()]:
            changed(manifest)

    def get(self, ref: Ref) -> Manifest | None:
        """The object, or None."""
        return self._kinds.get((ref.api_version, ref.kind), {}).get((ref.namespace, ref.name))

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        """The objects of a kind that lie in `namespace` and carry `labels`."""
        return [
            manifest
            for (where, _), manifest in self._kinds.get((api_version, kind), {}).items()
            if (namespace is None or where == namespace) and _carries(manifest, labels)
        ]

    def put(self, manifest: Manifest) -> None:
        """Take in what was seen or written, unless something newer is here."""
        ref = Ref.of(manifest)
        known = self.get(ref)
        if known is not None and _version(known) >= _version(manifest):
            return
        self._kinds.setdefault((ref.api_version, ref.kind), {})[ref.namespace, ref.name] = manifest
        self._tell(manifest)

    def remove(self, manifest: Manifest) -> None:
        """Forget an object that is gone, unless a newer one of the same name is here."""
        ref = Ref.of(manifest)
        known = self.get(ref)
        if known is None or _version(known) > _version(manifest):
            return
        del self._kinds[ref.api_version, ref.kind][ref.namespace, ref.name]
        self._tell(manifest)

    def replace(self, among: Iterable[Manifest], seen: Iterable[Manifest], version: int) -> None:
        """Make the objects `among` what a whole list, taken at `version`, has `seen`."""
        found = {Ref.of(manifest): manifest for manifest in seen}
        for manifest in list(among):
            if Ref.of(manifest) not in found and _version(manifest) <= version:
                self.remove(manifest)
        for manifest in found.values():
            self.put(manifest)

    def _tell(self, manifest: Manifest) -> None:
        for changed in self._subscribers:
            changed(manifest)


def _carries(manifest: Manifest, labels: Mapping[str, str] | None) -> bool:
    if not labels:
        return True
    own = manifest["metadata"].get("labels") or {}
    return all(own.get(name) == value for name, value in labels.items())


def _version(manifest: Manifest) -> int:
    # Since Kubernetes 1.35 resource versions are documented to be integers that order an object's states.
    return int(manifest["metadata"]["resourceVersion"])
