"""loam.dev/v1alpha1: one module per kind."""

from loam_operator.api.base import API_VERSION, GROUP, VERSION, Condition, ObjectMeta, Resource
from loam_operator.api.v1alpha1.agent import Agent
from loam_operator.api.v1alpha1.agenttool import AgentTool
from loam_operator.api.v1alpha1.apikey import ApiKey
from loam_operator.api.v1alpha1.modelroute import ModelRoute
from loam_operator.api.v1alpha1.ragpipeline import RagPipeline
from loam_operator.api.v1alpha1.tenant import Tenant

KINDS: dict[str, type[Resource]] = {
    "ModelRoute": ModelRoute,
    "Tenant": Tenant,
    "ApiKey": ApiKey,
    "RagPipeline": RagPipeline,
    "AgentTool": AgentTool,
    "Agent": Agent,
}

__all__ = [
    "API_VERSION",
    "GROUP",
    "KINDS",
    "VERSION",
    "Agent",
    "AgentTool",
    "ApiKey",
    "Condition",
    "ModelRoute",
    "ObjectMeta",
    "RagPipeline",
    "Resource",
    "Tenant",
]
