"""Names of what is rendered, where more than one room must know them."""

RETRIEVAL = "retrieval"
INGESTION = "ingestion"
RETRIEVAL_POOL = "loam-retrieval-pool"
"""The Deployment of the platform's retrieval pool, in the platform's namespace; the operator does not make it."""
STORAGE_SECRET = "loam-storage"  # noqa: S105 - a name
OPERATOR_SECRETS = "loam-operator-secrets"
"""The RoleBinding by which the operator reads and writes the Secrets of a tenant's namespace."""
SERVICE_PORT = 8080


_PREFIX, _GATEWAY_KEY = "loam-", "-gateway-key"


def key_secret(pipeline: str) -> str:
    """The Secret with the gateway key of a pipeline's own pods."""
    return f"{pipeline}{_GATEWAY_KEY}"


def is_reserved_secret(name: str) -> bool:
    """Whether the operator itself makes Secrets of such names, so that no manifest may claim one beforehand."""
    return name.startswith(_PREFIX) or name.endswith(_GATEWAY_KEY)


def configuration(pipeline: str) -> str:
    """The ConfigMap with a pipeline's spec."""
    return f"{pipeline}-pipeline"
