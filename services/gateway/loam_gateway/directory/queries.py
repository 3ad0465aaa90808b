"""Reading the directory in PostgreSQL."""

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation

from loam_gateway.adapters.postgres import Pool
from loam_gateway.directory import secrets
from loam_gateway.directory.model import Limits, Model, Principal, Tenant
from loam_gateway.metering.pricing import PriceList
from loam_gateway.vault import Vault
from loam_shared.contracts.admin import ModelPut, TenantPut

CHANNEL = "loam_directory"
"""Every change of the directory is told here; the message says nothing, since all of it is read again."""

# A key is never good for more than every key in the line that it was made with is now, whatever they were then.
_PRINCIPAL = """
SELECT k.tenant, k.key_id, k.user_id, k.workload, k.monthly_cap, k.daily_cap,
       least(k.expires_at, h.expires_at, line.expires_at) AS expires_at,
       ARRAY(SELECT scope FROM unnest(k.scopes) AS scope
             WHERE NOT EXISTS (SELECT FROM api_keys AS m WHERE m.tenant = k.tenant AND m.key_id = ANY (line.makers)
                               AND scope <> ALL (m.scopes))) AS scopes
FROM key_hashes h JOIN api_keys k USING (tenant, key_id)
CROSS JOIN LATERAL (
    SELECT made.makers, min(m.expires_at) AS expires_at, coalesce(bool_or(m.revoked_at IS NOT NULL), false) AS revoked
    FROM (SELECT ledger_makers(k.tenant, k.key_id) AS makers) AS made
    LEFT JOIN api_keys AS m ON m.tenant = k.tenant AND m.key_id = ANY (made.makers)
    GROUP BY made.makers
) AS line
WHERE h.sha256 = $1 AND k.revoked_at IS NULL AND NOT line.revoked
  AND (h.expires_at IS NULL OR h.expires_at > now()) AND (k.expires_at IS NULL OR k.expires_at > now())
  AND (line.expires_at IS NULL OR line.expires_at > now())
"""
_TENANT = "SELECT settings FROM tenants WHERE name = $1 AND active"
_MODEL = "SELECT spec, credential FROM models WHERE name = $1"
_TEMPLATES = "SELECT templates FROM prompt_templates JOIN tenants ON name = tenant WHERE tenant = $1 AND active"
_UNKNOWN_MODELS = "SELECT array(SELECT unnest($1::text[]) EXCEPT SELECT name FROM models ORDER BY 1)"


async def principal(pool: Pool, digest: str) -> Principal | None:
    """The owner of the key with that SHA-256, as long as it is active."""
    row = await pool.fetchrow(_PRINCIPAL, bytes.fromhex(digest))
    if row is None:
        return None
    return Principal(
        tenant=row["tenant"],
        key_id=row["key_id"],
        user=row["user_id"],
        scopes=frozenset(row["scopes"]),
        workload=row["workload"],
        monthly_cap=row["monthly_cap"],
        daily_cap=row["daily_cap"],
        expires_at=row["expires_at"],
    )


async def tenant(pool: Pool, vault: Vault, name: str) -> Tenant | None:
    """The tenant as it was put last, unless it is gone."""
    put = await tenant_put(pool, name)
    return None if put is None else tenant_from(name, put, _own_keys(vault, put))


async def tenant_put(pool: Pool, name: str) -> TenantPut | None:
    """What the operator put last for the tenant, its credentials still encrypted, unless it is gone."""
    settings = await pool.fetchval(_TENANT, name)
    return None if settings is None else TenantPut.model_validate_json(settings)


async def model(pool: Pool, vault: Vault, name: str) -> Model | None:
    """The model as it was put last."""
    row = await pool.fetchrow(_MODEL, name)
    if row is None:
        return None
    credential = secrets.revealed_model(vault, row["credential"])
    return model_from(name, ModelPut.model_validate_json(row["spec"]), credential)


async def templates(pool: Pool, tenant: str) -> str:
    """The tenant's own prompt templates, as they were put last, as JSON."""
    return await pool.fetchval(_TEMPLATES, tenant) or "[]"


async def unknown_models(pool: Pool, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `names` that no ModelRoute stands for."""
    return tuple(await pool.fetchval(_UNKNOWN_MODELS, list(names)))


def tenant_from(name: str, put: TenantPut, own_keys: Mapping[str, str]) -> Tenant:
    """What requests need of a tenant."""
    limits = put.rate_limit
    return Tenant(
        name=name,
        uid=put.uid,
        models=frozenset(put.models),
        limits=Limits(limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests),
        markup_ppm=markup_ppm(put.markup_percent),
        suspended=put.suspended,
        own_keys=own_keys,
    )


def _own_keys(vault: Vault, put: TenantPut) -> dict[str, str]:
    return {known.provider: secrets.revealed(vault, known.secret) for known in put.provider_credentials}


def model_from(name: str, put: ModelPut, credential: str | None) -> Model:
    """What requests need of a model."""
    return Model(
        name=name,
        provider=put.provider,
        model_id=put.model_id,
        regions=put.regions,
        capabilities=frozenset(put.capabilities),
        prices=price_list(put),
        dimensions=put.dimensions,
        max_output_tokens=put.max_output_tokens,
        fallbacks=put.fallbacks,
        base_url=put.base_url,
        credential=credential,
    )


def price_list(put: ModelPut) -> PriceList | None:
    """The model's prices, if it has all that its capabilities need. Raises ValueError for what is no amount."""
    price = put.price
    if price is None:
        return None
    needed = [price.input_per_million] if {"Chat", "Stream", "Embed"} & set(put.capabilities) else []
    needed += [price.output_per_million] if {"Chat", "Stream"} & set(put.capabilities) else []
    needed += [price.per_thousand_queries] if "Rerank" in put.capabilities else []
    return None if None in needed else PriceList.of(price)


def markup_ppm(percent: str) -> int:
    """Parts per million in a decimal string of per cent, rounded up. Raises ValueError."""
    try:
        return max(0, int((Decimal(percent) * 10_000).to_integral_value(ROUND_CEILING)))
    except (InvalidOperation, ValueError) as error:
        raise ValueError(f'markupPercent: "{percent}" is no percentage; write a decimal such as "2.5"') from error
