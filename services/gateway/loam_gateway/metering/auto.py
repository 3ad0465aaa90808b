"""Which model answers when none is named: the cheapest that can do this very request."""

from collections.abc import Iterable

from loam_gateway.completions.request import ChatRequest
from loam_gateway.directory.cache import Directory
from loam_gateway.directory.model import Model, Tenant
from loam_gateway.metering import calls
from loam_gateway.metering.choice import able
from loam_shared.errors import InvalidRequestError, NotFoundError
from loam_shared.money import price_of

AUTO = "auto"
"""What callers name to have a model chosen for them."""


async def with_model(
    directory: Directory, tenant: Tenant, request: ChatRequest, capabilities: Iterable[str]
) -> ChatRequest:
    """`request` with the name of a model in place of AUTO.

    Cheapest is what may cost least at most: the bound of the input and of the output at the prices that hold for them.
    A model on the tenant's own account costs nothing. Raises NotFoundError when no model of the tenant can do it.
    """
    if request.model != AUTO:
        return request
    known = await able(directory, tenant, capabilities)
    offers = [(cost, model.name) for model in known if (cost := _cost(tenant, request, model)) is not None]
    if not offers:
        raise NotFoundError(f"the tenant {tenant.name} has no model that can do this", param="model")
    return request.model_copy(update={"model": min(offers)[1]})


def _cost(tenant: Tenant, request: ChatRequest, model: Model) -> int | None:
    """The most that `request` can cost with `model`, in nano-dollars; None when it cannot do it."""
    wanted, most = request.output_limit, model.max_output_tokens
    if wanted is not None and most is not None and wanted > most:
        return None
    try:
        quote = calls.prepared(tenant, request, model).quote
    except InvalidRequestError:
        return None
    return quote.fixed_nanos + price_of(quote.output_tokens, quote.output_nanos_per_million)
