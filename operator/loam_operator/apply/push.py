"""Telling the gateway what the manifests say: only what is new, and everything again after a while."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from loam_operator.adapters.gateway import GatewayAdmin
from loam_shared.contracts import Wire
from loam_shared.contracts.admin import KeyPut, ModelPut, PipelinePut, PipelineState, TenantPut, TenantState
from loam_shared.contracts.templates import TemplatesPut

Answer = TypeVar("Answer")
Topic = tuple[str, ...]


class Pushes:
    """PUTs that remember. What was told less than `lifetime` seconds ago is not told again."""

    def __init__(self, gateway: GatewayAdmin, lifetime: float, now: Callable[[], float]) -> None:
        self.gateway = gateway
        self._lifetime, self._now = lifetime, now
        self._told: dict[Topic, tuple[float, Wire, Any]] = {}

    async def model(self, name: str, put: ModelPut) -> None:
        """See GatewayAdmin.put_model."""
        await self._once(("model", name), put, lambda: self.gateway.put_model(name, put))

    async def tenant(self, tenant: str, put: TenantPut) -> TenantState:
        """See GatewayAdmin.put_tenant."""
        return await self._once(("tenant", tenant), put, lambda: self.gateway.put_tenant(tenant, put))

    async def templates(self, tenant: str, put: TemplatesPut) -> None:
        """See GatewayAdmin.put_templates."""
        await self._once(("templates", tenant), put, lambda: self.gateway.put_templates(tenant, put))

    async def key(self, tenant: str, key_id: str, put: KeyPut) -> None:
        """See GatewayAdmin.put_key."""
        await self._once(("key", tenant, key_id), put, lambda: self.gateway.put_key(tenant, key_id, put))

    async def pipeline(self, tenant: str, name: str, put: PipelinePut) -> PipelineState:
        """See GatewayAdmin.put_pipeline."""
        return await self._once(("pipeline", tenant, name), put, lambda: self.gateway.put_pipeline(tenant, name, put))

    def forget(self, *topic: str) -> None:
        """What was told of this no longer counts, since it was deleted."""
        self._told.pop(topic, None)

    async def _once(self, topic: Topic, put: Wire, tell: Callable[[], Awaitable[Answer]]) -> Answer:
        told = self._told.get(topic)
        if told is not None and told[1] == put and self._now() - told[0] < self._lifetime:
            return cast("Answer", told[2])
        answer = await tell()
        self._told[topic] = (self._now(), put, answer)
        return answer
