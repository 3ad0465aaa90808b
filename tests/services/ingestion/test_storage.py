"""Documents come from S3 into a temporary file, and what cannot come says why."""

import os
import tracemalloc

import boto3
import pytest

from loam_ingestion.adapters.storage import open_storage
from loam_ingestion.errors import StorageError, UnreadableDocumentError

BUCKET = "loam-index"
MIB = 1 << 20


@pytest.fixture
def big(aws) -> bytes:
    content = os.urandom(24 * MIB)
    boto3.client("s3", region_name="us-east-1").put_object(Bucket=BUCKET, Key="download/big", Body=content)
    return content


async def test_a_large_document_comes_whole_without_ever_being_in_memory(big):
    async with open_storage() as storage:
        tracemalloc.start()
        async with storage.download(BUCKET, "download/big", 24 * MIB) as file:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert file.read() == big
    assert peak < 8 * MIB


async def test_a_document_above_the_limit_is_refused_with_the_limit(big):
    async with open_storage() as storage:
        with pytest.raises(UnreadableDocumentError, match="larger than the 23 MiB allowed; split it") as refused:
            async with storage.download(BUCKET, "download/big", 24 * MIB - 1):
                pass
    assert not refused.value.passing


@pytest.mark.parametrize(
    ("bucket", "key", "why"), [(BUCKET, "download/gone", "is gone"), ("none", "a", "sourceBuckets")]
)
async def test_a_document_that_is_not_there_says_so(aws, bucket, key, why):
    async with open_storage() as storage:
        with pytest.raises(StorageError, match=why) as refused:
            async with storage.download(bucket, key, MIB):
                pass
    assert not refused.value.passing
