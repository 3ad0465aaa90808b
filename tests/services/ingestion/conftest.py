"""What ingestion is tested on: a real S3 server, and a platform of real processes."""

from collections.abc import AsyncIterator, Iterator

import boto3
import pytest
import pytest_asyncio

from .._servers import embedded
from . import _rag


@pytest.fixture(scope="session")
def aws(s3_endpoint: str) -> Iterator[None]:
    """The S3 server as the one of this process's environment, with the bucket ``loam-index``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "admin")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "adminsecret")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="loam-index")
        yield


@pytest_asyncio.fixture(scope="session")
async def platform(
    postgres: embedded.Postgres, migrated_template: str, valkey_url: str, s3_endpoint: str
) -> AsyncIterator[_rag.Platform]:
    """A running gateway."""
    async with _rag.platform(postgres, migrated_template, valkey_url, s3_endpoint) as running:
        yield running


@pytest_asyncio.fixture
async def pipeline(platform: _rag.Platform) -> AsyncIterator[_rag.Pipeline]:
    """A pipeline of a tenant of its own, with nothing in it."""
    async with platform.pipeline() as made:
        yield made
