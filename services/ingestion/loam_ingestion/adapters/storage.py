"""S3, with the identity of the tenant."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from loam_ingestion.errors import StorageError, UnreadableDocumentError

_PIECE_BYTES = 1 << 20
_GONE = {"NoSuchKey", "404", "NotFound"}
_REFUSED = {"AccessDenied", "403", "NoSuchBucket"}


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing shows it; `size` in bytes."""

    key: str
    etag: str
    size: int


class Storage:
    """Reading objects; everything is bounded by the caller's limits."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @asynccontextmanager
    async def download(self, bucket: str, key: str, limit: int) -> AsyncIterator[BinaryIO]:
        """The object in a temporary file, at its beginning; no more than a piece of it is in memory at a time.

        Raises StorageError, and UnreadableDocumentError when the object holds more than `limit` bytes.
        """
        with tempfile.TemporaryFile() as file:
            await self._copy(bucket, key, limit, file)
            file.seek(0)
            yield file

    async def _copy(self, bucket: str, key: str, limit: int, file: BinaryIO) -> None:
        try:
            response = await self._client.get_object(Bucket=bucket, Key=key)
            async with response["Body"] as body:
                if response["ContentLength"] > limit:
                    raise UnreadableDocumentError(f"It is larger than the {limit // 2**20} MiB allowed; split it.")
                async for piece in body.iter_chunks(_PIECE_BYTES):
                    file.write(piece)
        # A body that breaks off shows as an error of aiohttp, which botocore's do not cover.
        except (ClientError, BotoCoreError, aiohttp.ClientError) as error:
            raise _translated(error, bucket, key) from error
        except OSError as error:
            raise StorageError(f"s3://{bucket}/{key} cannot be kept on disk: {error.strerror}") from error

    async def list(self, bucket: str, prefix: str) -> AsyncIterator[StoredObject]:
        """All objects below `prefix`. Raises StorageError."""
        try:
            async for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    yield StoredObject(entry["Key"], entry["ETag"].strip('"'), entry["Size"])
        except (ClientError, BotoCoreError) as error:
            raise _translated(error, bucket, prefix) from error


@asynccontextmanager
async def open_storage() -> AsyncIterator[Storage]:
    """A client by AWS's own conventions (environment, pod identity)."""
    config = AioConfig(
        connect_timeout=5,
        read_timeout=60,
        retries={"max_attempts": 4, "mode": "standard"},
        s3={"addressing_style": "path"},
    )
    async with get_session().create_client("s3", config=config) as client:
        yield Storage(client)


def _translated(error: ClientError | BotoCoreError | aiohttp.ClientError, bucket: str, key: str) -> StorageError:
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    if code in _GONE:
        return StorageError(f"s3://{bucket}/{key} is gone", passing=False)
    if code in _REFUSED:
        return StorageError(
            f"s3://{bucket}/{key} may not be read or does not exist ({code}); is the bucket among the tenant's "
            "storage.sourceBuckets?",
            passing=False,
        )
    return StorageError(f"s3://{bucket}/{key} cannot be read: {error}")
