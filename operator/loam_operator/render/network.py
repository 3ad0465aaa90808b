"""NetworkPolicies: nothing goes in or out of a tenant's namespace but on the ways opened here."""

from typing import Any

from loam_operator.api.v1alpha1.tenant import NetworkService
from loam_operator.cluster import Manifest
from loam_operator.render.metadata import manifest, metadata
from loam_operator.seen import SeenTenant
from loam_operator.settings import Platform

Rule = dict[str, Any]
_NAMESPACE_NAME = "kubernetes.io/metadata.name"


def render(seen: SeenTenant, platform: Platform) -> list[Manifest]:
    """Deny everything, then open DNS, the gateway's internal listener, the storage and what the manifest names."""
    spec = seen.tenant.spec.network
    ways = {
        "loam-allow-dns": [_dns(platform)],
        "loam-allow-gateway": [_gateway(platform)],
        "loam-allow-storage": [_way(cidr, [platform.storage_port]) for cidr in platform.storage_cidrs],
        "loam-allow-egress": [_way(egress.cidr, egress.ports) for egress in spec.egress],
        "loam-allow-services": [way for service in spec.services if (way := _service(service))],
    }
    denial: Rule = {"podSelector": {}, "policyTypes": ["Egress", "Ingress"]}
    opened: dict[str, Rule] = {
        name: {"podSelector": {}, "policyTypes": ["Egress"], "egress": rules} for name, rules in ways.items() if rules
    }
    return [_policy(seen, name, spec) for name, spec in {"loam-default-deny": denial, **opened}.items()]


def in_namespace(name: str, pods: dict[str, str] | None = None) -> Rule:
    """A peer: the pods of a namespace, or those of them with these labels."""
    peer: Rule = {"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: name}}}
    return peer | {"podSelector": {"matchLabels": pods}} if pods else peer


def tcp(*ports: int) -> list[Rule]:
    """TCP ports of a rule."""
    return [{"port": port, "protocol": "TCP"} for port in ports]


def _policy(seen: SeenTenant, name: str, spec: Rule) -> Manifest:
    meta = metadata(seen.tenant, seen.tenant.metadata.name, name, namespace=seen.namespace)
    return manifest("networking.k8s.io/v1", "NetworkPolicy", meta, spec=spec)


def _dns(platform: Platform) -> Rule:
    ports = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    return {"to": [in_namespace(platform.dns_namespace)], "ports": ports}


def _gateway(platform: Platform) -> Rule:
    gateway = in_namespace(platform.namespace, {"app.kubernetes.io/component": "gateway"})
    return {"to": [gateway], "ports": tcp(platform.gateway_internal_port)}


def _way(cidr: str, ports: list[int]) -> Rule:
    return {"to": [{"ipBlock": {"cidr": cidr}}], "ports": tcp(*ports)}


def _service(service: NetworkService) -> Rule | None:
    """The way to a Service, whose host reads name.namespace.svc; other hosts are reached on the local platform only."""
    parts = service.host.split(".")
    if len(parts) < 3 or parts[2] != "svc":
        return None
    return {"to": [in_namespace(parts[1])], "ports": tcp(*service.ports)}
