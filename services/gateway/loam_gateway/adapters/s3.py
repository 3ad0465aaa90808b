"""S3, of any make: objects, listings, and uploads in parts with bounded memory."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from loam_shared.errors import UnavailableError

# The smallest parts that S3 takes; two of them are what an upload of any size holds in memory.
PART_BYTES = 5 * 2**20
PAGE_KEYS = 1000
_log = structlog.get_logger()


@dataclass(frozen=True)
class UnfinishedUpload:
    """A multipart upload that was begun and neither completed nor aborted; its parts cost storage unseen."""

    key: str
    upload_id: str


class ObjectStore:
    """One bucket, through a client made at start-up. Raises UnavailableError where S3 does not answer as it should."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    async def ensure_bucket(self) -> None:
        """Make the bucket unless it is there."""
        with _translated():
            try:
                await self._client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                if _status(error) != 404:
                    raise
                await self._create_bucket()

    async def write(self, key: str, body: AsyncIterator[bytes], media_type: str) -> int:
        """Store `body` under `key` as it arrives and return its size; on any failure nothing is left behind."""
        parts = _in_parts(body)
        first = await anext(parts, b"")
        if len(first) < PART_BYTES:
            with _translated():
                await self._client.put_object(Bucket=self.bucket, Key=key, Body=first, ContentType=media_type)
            return len(first)
        return await self._write_parts(key, first, parts, media_type)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete up to 1000 objects; those that are gone already do not matter."""
        if not keys:
            return
        with _translated():
            answer = await self._client.delete_objects(
                Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
        if refused := answer.get("Errors"):
            raise UnavailableError(f"the object store did not delete {refused[0].get('Key')}: {refused[0].get('Code')}")

    async def page(self, prefix: str) -> list[str]:
        """The first keys, at most 1000, that begin with `prefix`."""
        with _translated():
            answer = await self._client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=PAGE_KEYS)
        return [entry["Key"] for entry in answer.get("Contents", [])]

    async def folders(self, prefix: str) -> list[str]:
        """What follows `prefix` up to the next slash, slash included, as whole prefixes."""
        found: list[str] = []
        with _translated():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/"
            )
            async for page in pages:
                found += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        return found

    async def unfinished(self, prefix: str) -> list[UnfinishedUpload]:
        """The first multipart uploads, at most 1000, that were left half-way below `prefix`."""
        with _translated():
            answer = await self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix)
        return [UnfinishedUpload(entry["Key"], entry["UploadId"]) for entry in answer.get("Uploads", [])]

    async def abort(self, upload: UnfinishedUpload) -> None:
        """Forget a multipart upload and its parts; one that is gone already does not matter."""
        with _translated():
            try:
                await self._client.abort_multipart_upload(Bucket=self.bucket, Key=upload.key, UploadId=upload.upload_id)
            except ClientError as error:
                if _status(error) != 404:
                    raise

    async def _create_bucket(self) -> None:
        region = self._client.meta.region_name
        # AWS refuses to hear its default region named as a constraint.
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            await self._client.create_bucket(Bucket=self.bucket, **where)
        except self._client.exceptions.BucketAlreadyOwnedByYou:
            return

    async def _write_parts(self, key: str, first: bytes, rest: AsyncIterator[bytes], media_type: str) -> int:
        with _translated():
            begun = await self._client.create_multipart_upload(Bucket=self.bucket, Key=key, ContentType=media_type)
        upload = UnfinishedUpload(key, begun["UploadId"])
        try:
            etags, size = [await self._write_part(upload, 1, first)], len(first)
            async for part in rest:
                etags.append(await self._write_part(upload, len(etags) + 1, part))
                size += len(part)
            await self._complete(upload, etags)
        except BaseException:
            # Also when the caller hangs up and the task is cancelled; a failure here is left to the purge's own sweep.
            await self._abort_quietly(upload)
            raise
        return size

    async def _write_part(self, upload: UnfinishedUpload, number: int, body: bytes) -> str:
        with _translated():
            answer = await self._client.upload_part(
                Bucket=self.bucket, Key=upload.key, UploadId=upload.upload_id, PartNumber=number, Body=body
            )
        return str(answer["ETag"])

    async def _complete(self, upload: UnfinishedUpload, etags: Sequence[str]) -> None:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, start=1)]
        with _translated():
            await self._client.complete_multipart_upload(
                Bucket=self.bucket, Key=upload.key, UploadId=upload.upload_id, MultipartUpload={"Parts": parts}
            )

    async def _abort_quietly(self, upload: UnfinishedUpload) -> None:
        try:
            await self.abort(upload)
        except UnavailableError as error:
            _log.warning("a multipart upload could not be aborted", key=upload.key, error=error.message)


async def _in_parts(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`body` in pieces of exactly PART_BYTES, the last one shorter."""
    gathered = bytearray()
    async for chunk in body:
        gathered += chunk
        while len(gathered) >= PART_BYTES:
            yield bytes(gathered[:PART_BYTES])
            del gathered[:PART_BYTES]
    if gathered:
        yield bytes(gathered)


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise UnavailableError(f"the object store did not answer as expected: {error}", retry_after=5) from error
