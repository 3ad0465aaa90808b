"""The layout of a pipeline's index, which ingestion writes and retrieval reads: a LanceDB table in S3."""

import os

TEXT = "text"
VECTOR = "vector"
# Names of metadata fields as callers filter by them, and the columns that hold them.
FILTERABLE = {"documentId": "document_id", "name": "source", "source": "source", "mediaType": "media_type"}
# The table's own metadata says which embedding model its vectors come from: vectors of two models must never mix.
EMBEDDING_MODEL = b"loam.embedding.model"


def table_name(pipeline: str, index_version: int) -> str:
    """The table of one version of a pipeline's index."""
    return f"{pipeline}-v{index_version}"


def database_uri(bucket: str, prefix: str) -> str:
    """Where a tenant's LanceDB database lies; `prefix` ends with a slash (``tenants/acme/``)."""
    return f"s3://{bucket}/{prefix}index"


def tenant_prefix(tenant: str) -> str:
    """Everything of a tenant begins with this, in the platform's bucket."""
    return f"tenants/{tenant}/"


def storage_options() -> dict[str, str]:
    """LanceDB's object store settings, by AWS's own environment variables.

    Credentials are found by the object store itself.
    """
    return options_at(*s3_of_environment())


def s3_of_environment() -> tuple[str, str | None]:
    """The region, and the endpoint where it is not AWS's own, by AWS's environment variables."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return os.environ.get("AWS_REGION", "us-east-1"), endpoint


def options_at(region: str, endpoint: str | None) -> dict[str, str]:
    """LanceDB's object store settings for S3 in a region, or for a stand-in at `endpoint`.

    A stand-in for S3 is plain HTTP with the bucket in the path, which must be asked for.
    """
    options = {"aws_region": region}
    if endpoint:
        options |= {
            "aws_endpoint": endpoint,
            "allow_http": "true" if endpoint.startswith("http://") else "false",
            "aws_virtual_hosted_style_request": "false",
        }
    return options
