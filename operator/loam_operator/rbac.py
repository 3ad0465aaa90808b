"""The operator's own rights and those of tenants' people: one table, from which ``operator/rbac.yaml`` is made.

``python -m loam_operator.rbac`` prints it. There is no wildcard in it, and no right to Secrets in the whole cluster:
the operator binds `loam-tenant-secrets` to itself in each tenant's namespace, and may bind nothing but the ClusterRoles
named here.
"""

import sys
from collections.abc import Iterable
from typing import Any

import yaml

from loam_operator.api.v1alpha1 import GROUP, KINDS
from loam_operator.cluster import Manifest
from loam_operator.kinds import CONFIG_MAP, DEFINITION, EVENT, MADE, NAMESPACE, OURS, SECRET, Kind
from loam_operator.settings import Platform

_READ = ("get", "list", "watch")
_WRITE = ("create", "patch", "delete")
_RBAC, _API = "rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1"
_BOUND = ("loam-tenant-secrets", "loam-tenant-owner", "loam-tenant-member")
_NAMESPACED = sorted(kind.plural for kind in OURS if kind.namespaced)

Rule = dict[str, Any]


def cluster_roles() -> list[Manifest]:
    """All ClusterRoles of the platform."""
    return [
        _role("loam-operator", _operator()),
        _role("loam-tenant-secrets", [_rule("", [SECRET.plural, CONFIG_MAP.plural], (*_READ, *_WRITE))]),
        _role("loam-tenant-owner", [_rule(GROUP, _NAMESPACED, (*_READ, *_WRITE, "update")), *_look()]),
        _role("loam-tenant-member", [_rule(GROUP, _NAMESPACED, _READ), *_look()]),
    ]


def manifests(platform: Platform) -> list[Manifest]:
    """The ClusterRoles, the operator's ServiceAccount, and its right to read the platform's own Secrets."""
    name, namespace = platform.operator_service_account, platform.namespace
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    own = {"name": f"{name}-credentials", "namespace": namespace}
    return [
        *cluster_roles(),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}},
        _binding("ClusterRoleBinding", {"name": name}, "ClusterRole", "loam-operator", subject),
        {"apiVersion": _API, "kind": "Role", "metadata": own, "rules": [_rule("", [SECRET.plural], _READ)]},
        _binding("RoleBinding", own, "Role", own["name"], subject),
    ]


def _operator() -> list[Rule]:
    ours = [kind.plural for kind in OURS]
    definitions = [KINDS[kind.kind].definition.name for kind in OURS]
    return [
        # Tenants' own objects are deleted with their Tenant; a manifest is never created or changed for anyone.
        _rule(GROUP, ours, (*_READ, "patch")),
        _rule(GROUP, _NAMESPACED, ("delete",)),
        _rule(GROUP, [f"{plural}/status" for plural in ours], ("patch",)),
        _rule("", [NAMESPACE.plural], (*_READ, *_WRITE)),
        *(_rule(group, plurals, (*_READ, *_WRITE)) for group, plurals in _by_group(MADE)),
        _rule(_RBAC, ["clusterroles"], ("bind",), names=_BOUND),
        _rule(EVENT.group, [EVENT.plural], ("create",)),
        _rule(DEFINITION.group, [DEFINITION.plural], ("get",), names=definitions),
    ]


def _look() -> list[Rule]:
    """What helps to find out why something does not work."""
    return [
        _rule("", ["events", "pods", "pods/log", "services", "resourcequotas", "limitranges"], _READ),
        _rule("events.k8s.io", ["events"], _READ),
        _rule("apps", ["deployments", "replicasets"], _READ),
        _rule("autoscaling", ["horizontalpodautoscalers"], _READ),
        _rule("networking.k8s.io", ["networkpolicies"], _READ),
    ]


def _by_group(kinds: Iterable[Kind]) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for kind in kinds:
        groups.setdefault(kind.group, []).append(kind.plural)
    return list(groups.items())


def _rule(group: str, resources: list[str], verbs: Iterable[str], names: Iterable[str] = ()) -> Rule:
    rule: Rule = {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
    return rule | {"resourceNames": list(names)} if names else rule


def _role(name: str, rules: list[Rule]) -> Manifest:
    labels = {"app.kubernetes.io/part-of": "loam"}
    return {"apiVersion": _API, "kind": "ClusterRole", "metadata": {"name": name, "labels": labels}, "rules": rules}


def _binding(kind: str, metadata: dict[str, str], role_kind: str, role: str, subject: dict[str, str]) -> Manifest:
    return {
        "apiVersion": _API,
        "kind": kind,
        "metadata": metadata,
        "roleRef": {"apiGroup": _RBAC, "kind": role_kind, "name": role},
        "subjects": [subject],
    }


class _Plain(yaml.SafeDumper):
    """Writes what is used twice twice: manifests have no anchors."""

    def ignore_aliases(self, _data: object) -> bool:
        """Always."""
        return True


def to_yaml() -> str:
    """The file ``operator/rbac.yaml``."""
    head = "# Generated from loam_operator/rbac.py by `python -m loam_operator.rbac`; not edited by hand.\n"
    return head + yaml.dump_all(manifests(Platform()), Dumper=_Plain, sort_keys=False, width=120)


if __name__ == "__main__":
    sys.stdout.write(to_yaml())
