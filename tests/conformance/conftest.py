"""A gateway to hold against its own promises; the servers are those of the gateway's tests."""

import pytest

from ..services.conftest import migrated_template, postgres, valkey_url
from ..services.gateway._platform import LocalBedrock, Servers
from ..services.gateway.conftest import (
    bedrock,
    faults,
    folder,
    gateway,
    gateway_database,
    query,
    s3_endpoint,
    tenant,
)

__all__ = [
    "bedrock",
    "faults",
    "folder",
    "gateway",
    "gateway_database",
    "migrated_template",
    "postgres",
    "query",
    "s3_endpoint",
    "servers",
    "tenant",
    "valkey_url",
]


@pytest.fixture(scope="session")
def servers(gateway_database: str, valkey_url: str, s3_endpoint: str, bedrock: LocalBedrock) -> Servers:
    """With the cache on, as it is for everybody."""
    return Servers(gateway_database, valkey_url, s3_endpoint, bedrock.url, {"LOAM_CACHE_SECONDS": "60"})
