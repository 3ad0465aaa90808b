"""A gateway to hold against its own promises; the servers are those of the gateway's tests."""

from ..services.conftest import migrated_template, postgres, valkey_url
from ..services.gateway.conftest import (
    bedrock,
    faults,
    folder,
    gateway,
    gateway_database,
    query,
    s3_endpoint,
    servers,
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
