"""Which models may serve a call: the one that was named, then its fallbacks, as far as the tenant may use them."""

from collections.abc import Iterable

from loam_gateway.directory.cache import Directory
from loam_gateway.directory.model import Model, Tenant
from loam_gateway.metering.pricing import PriceList
from loam_shared.errors import ForbiddenError, InvalidRequestError, ModelNotPricedError, NotFoundError


async def models_for(
    directory: Directory, tenant: Tenant, name: str, capabilities: tuple[str, ...]
) -> tuple[Model, ...]:
    """The models to try in order, all callable.

    Raises NotFoundError, ForbiddenError, InvalidRequestError or ModelNotPricedError for the one that was named; a
    fallback that cannot be used is left out.
    """
    named = await directory.model(name)
    if named is None:
        raise NotFoundError(f'there is no model "{name}"', param="model")
    if name not in tenant.models:
        raise ForbiddenError(f'the tenant {tenant.name} may not use the model "{name}"', param="model")
    prices_of(named)
    _check_callable(named, capabilities)
    fallbacks = [await directory.model(other) for other in named.fallbacks if other in tenant.models]
    return (named, *(model for model in fallbacks if model and _can_serve(model, capabilities)))


async def cheapest(directory: Directory, tenant: Tenant, capability: str) -> Model:
    """The model of the tenant with the lowest prices of those that can do it. Raises NotFoundError."""
    known = await able(directory, tenant, (capability,))
    if not known:
        raise NotFoundError(f"the tenant {tenant.name} has no model with the capability {capability}", param="model")
    return min(known, key=lambda model: prices_of(model).base.input + prices_of(model).base.output)


async def able(directory: Directory, tenant: Tenant, capabilities: Iterable[str]) -> list[Model]:
    """The models of the tenant that have all `capabilities` and a price, by name."""
    needed = tuple(capabilities)
    known = [await directory.model(name) for name in sorted(tenant.models)]
    return [model for model in known if model and _can_serve(model, needed)]


def prices_of(model: Model) -> PriceList:
    """The model's prices. Raises ModelNotPricedError."""
    if model.prices is None:
        raise ModelNotPricedError(f'the model "{model.name}" has no price, so it cannot be charged', param="model")
    return model.prices


def _check_callable(model: Model, capabilities: tuple[str, ...]) -> None:
    if missing := [capability for capability in capabilities if capability not in model.capabilities]:
        raise InvalidRequestError(f'the model "{model.name}" cannot do this: it lacks {missing[0]}', param="model")


def _can_serve(model: Model, capabilities: Iterable[str]) -> bool:
    return model.capabilities.issuperset(capabilities) and model.prices is not None
