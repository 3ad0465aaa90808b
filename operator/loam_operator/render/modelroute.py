"""A ModelRoute as the gateway is told of it."""

from loam_operator.seen import SeenModelRoute
from loam_shared.contracts.admin import ModelPut, Price


def render(seen: SeenModelRoute) -> ModelPut:
    """The whole desired state. A fallback that does not exist is left out until it does."""
    route, spec = seen.route, seen.route.spec
    return ModelPut(
        uid=route.metadata.uid,
        provider=spec.provider,
        model_id=spec.model_id,
        regions=tuple(spec.regions),
        capabilities=tuple(spec.capabilities),
        dimensions=spec.dimensions,
        base_url=spec.base_url,
        credential=seen.credential,
        price=Price.model_validate(spec.price.to_manifest()) if spec.price else None,
        max_output_tokens=spec.max_output_tokens,
        fallbacks=tuple(name for name in spec.fallbacks if name in seen.routes),
    )
