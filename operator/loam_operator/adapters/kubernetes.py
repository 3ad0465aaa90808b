"""The cluster on a real Kubernetes API server."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote
from uuid import uuid4

from loam_operator.adapters.api import Api
from loam_operator.adapters.managed_fields import is_applied
from loam_operator.adapters.reflector import Reflector, Scope
from loam_operator.adapters.store import Store
from loam_operator.api.v1alpha1 import GROUP, KINDS
from loam_operator.cluster import FIELD_MANAGER, Manifest, Ref
from loam_operator.kinds import ALL, DEFINITION, EVENT, MADE, NAMESPACE, OURS, PER_NAMESPACE, SECRET
from loam_operator.labels import MANAGED, TENANT
from loam_operator.names import OPERATOR_SECRETS
from loam_shared.errors import NotFoundError

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_COMPONENT = "loam.dev/operator"


class KubernetesCluster:
    """`Cluster` by watches and server-side apply."""

    def __init__(self, api: Api, platform_namespace: str) -> None:
        self._api = api
        self.store = Store()
        self._platform_namespace = platform_namespace
        self._watches: dict[str, list[tuple[Reflector, asyncio.Task[None]]]] = {}
        self._standing: list[asyncio.Task[None]] = []

    # Watching

    async def start(self) -> None:
        """Fill the cache, and keep it true from here on. Returns once all of it was read."""
        scopes = [Scope(NAMESPACE), *(Scope(kind, labels=MANAGED) for kind in MADE)]
        scopes.append(Scope(SECRET, namespace=self._platform_namespace))
        reflectors = [Reflector(self._api, self.store, scope) for scope in scopes]
        self._standing = [asyncio.create_task(reflector.run()) for reflector in reflectors]
        # Our own kinds are watched by kopf; it tells nobody when it has read them all, so they are read once here.
        for kind in OURS:
            await Reflector(self._api, self.store, Scope(kind)).listed()
        await asyncio.gather(*(reflector.synced.wait() for reflector in reflectors))
        self.store.subscribe(self._follow)
        # A Secret that is merely not read yet must not look as if it were missing.
        await asyncio.gather(*(follower.synced.wait() for name in self._watches for follower in self._readable(name)))

    def _readable(self, namespace: str) -> list[Reflector]:
        """The reflectors of a tenant's namespace, once the operator's right to its Secrets is there."""
        right = Ref("rbac.authorization.k8s.io/v1", "RoleBinding", OPERATOR_SECRETS, namespace)
        return [reflector for reflector, _ in self._watches[namespace]] if self.get(right) else []

    async def stop(self) -> None:
        """Stop watching and let go of the connections."""
        tasks = [*self._standing, *(task for watches in self._watches.values() for _, task in watches)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._api.close()

    def _follow(self, manifest: Manifest) -> None:
        """Watch Secrets and ConfigMaps of a namespace for as long as it is a tenant's."""
        if manifest["kind"] != NAMESPACE.kind:
            return
        name = manifest["metadata"]["name"]
        is_tenants = self.get(Ref.of(manifest)) is not None and TENANT in manifest["metadata"].get("labels", {})
        if is_tenants and name not in self._watches:
            reflectors = [Reflector(self._api, self.store, Scope(kind, namespace=name)) for kind in PER_NAMESPACE]
            self._watches[name] = [(reflector, asyncio.create_task(reflector.run())) for reflector in reflectors]
        elif not is_tenants:
            for _, task in self._watches.pop(name, ()):
                task.cancel()
            for kind in PER_NAMESPACE:
                self.store.replace(self.store.list(kind.api_version, kind.kind, name), (), 2**63)

    # Reading

    def get(self, ref: Ref) -> Manifest | None:
        """See Cluster."""
        return self.store.get(ref)

    def list(
        self, api_version: str, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """See Cluster."""
        return self.store.list(api_version, kind, namespace, labels)

    def subscribe(self, changed: Callable[[Manifest], None]) -> None:
        """See Cluster."""
        self.store.subscribe(changed)

    # Writing

    async def create(self, manifest: Manifest) -> Manifest:
        """See Cluster."""
        ref = Ref.of(manifest)
        path = ALL[ref.api_version, ref.kind].path(ref.namespace)
        live = await self._api.request("POST", path, body=manifest, query={"fieldManager": FIELD_MANAGER})
        self.store.put(live)
        return live

    async def apply(self, manifest: Manifest) -> Manifest:
        """See Cluster."""
        ref = Ref.of(manifest)
        known = self.get(ref)
        if known is not None and is_applied(known, manifest):
            return known
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        live = await self._api.request("PATCH", _path(ref), body=manifest, query=query, content_type=_APPLY)
        self.store.put(live)
        return live

    async def delete(self, ref: Ref, uid: str) -> None:
        """See Cluster."""
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._api.request("DELETE", _path(ref), body=options)
        except NotFoundError:
            self._forget(ref)

    async def apply_status(self, ref: Ref, status: Mapping[str, Any]) -> None:
        """See Cluster."""
        known = self.get(ref)
        if known is None or known.get("status") == status:
            return
        body = {
            "apiVersion": ref.api_version,
            "kind": ref.kind,
            "metadata": {"name": ref.name, "uid": known["metadata"]["uid"]},
            "status": status,
        }
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        try:
            live = await self._api.request("PATCH", _path(ref, "/status"), body=body, query=query, content_type=_APPLY)
        except NotFoundError:
            self._forget(ref)
        else:
            self.store.put(live)

    async def set_finalizers(self, ref: Ref, finalizers: Sequence[str]) -> None:
        """See Cluster."""
        known = self.get(ref)
        if known is None:
            return
        version = known["metadata"]["resourceVersion"]
        body = {"metadata": {"finalizers": list(finalizers), "resourceVersion": version}}
        try:
            query = {"fieldManager": FIELD_MANAGER}
            live = await self._api.request("PATCH", _path(ref), body=body, query=query, content_type=_MERGE)
        except NotFoundError:
            self._forget(ref)
            return
        metadata = live["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self.store.remove(live)
        else:
            self.store.put(live)

    async def record(self, about: Manifest, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002 - the field's name in an Event
        """See Cluster."""
        metadata = about["metadata"]
        namespace = metadata.get("namespace", "default")
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": f"{metadata['name']}.{uuid4().hex[:16]}", "namespace": namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": _COMPONENT,
            "reportingInstance": "loam-operator",
            "action": "Reconcile",
            "type": type,
            "reason": reason,
            "note": message[:1024],
            "regarding": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "name": metadata["name"],
                "namespace": metadata.get("namespace", ""),
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
        }
        await self._api.request("POST", EVENT.path(namespace), body=event)

    async def kind_is_going(self, kind: str) -> bool:
        """See Cluster."""
        path = DEFINITION.path(name=f"{KINDS[kind].definition.plural}.{GROUP}")
        try:
            definition = await self._api.request("GET", path)
        except NotFoundError:
            return True
        return "deletionTimestamp" in definition["metadata"]

    def url(self, service: Ref, port: int) -> str:
        """See Cluster."""
        return f"http://{service.name}.{service.namespace}.svc:{port}"

    def _forget(self, ref: Ref) -> None:
        known = self.get(ref)
        if known is not None:
            self.store.remove(known)


def _path(ref: Ref, subresource: str = "") -> str:
    return ALL[ref.api_version, ref.kind].path(ref.namespace, quote(ref.name)) + subresource
