"""The kinds that the operator touches: where the API serves them, which are its own, and which it makes."""

from dataclasses import dataclass

from loam_operator.api.v1alpha1 import API_VERSION, KINDS


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object, as the API serves it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Where the API serves the kind, or one object of it."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        within = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{within}/{self.plural}" + (f"/{name}" if name else "")


OURS = tuple(
    Kind(API_VERSION, kind, model.definition.plural, model.definition.scope == "Namespaced")
    for kind, model in KINDS.items()
)
"""The kinds that people write and the operator serves."""

MADE = (
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("v1", "Service", "services"),
    Kind("v1", "ResourceQuota", "resourcequotas"),
    Kind("v1", "LimitRange", "limitranges"),
    Kind("apps/v1", "Deployment", "deployments"),
    Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("rbac.authorization.k8s.io/v1", "Role", "roles"),
    Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
)
"""The kinds that the operator makes in tenants' namespaces and watches by label in the whole cluster."""

SECRET = Kind("v1", "Secret", "secrets")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
PER_NAMESPACE = (SECRET, CONFIG_MAP)
"""The kinds that the operator may read in tenants' namespaces and the platform's only."""

NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
EVENT = Kind("events.k8s.io/v1", "Event", "events")
DEFINITION = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)

ALL = {(kind.api_version, kind.kind): kind for kind in (*OURS, *MADE, *PER_NAMESPACE, NAMESPACE, EVENT, DEFINITION)}
