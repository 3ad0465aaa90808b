"""Objects of a bucket, read as the tenant."""

from loam_ingestion.adapters.storage import Storage
from loam_ingestion.pipeline import S3Source
from loam_shared.contracts.internal import SourceDocument


async def listing(source: S3Source, storage: Storage) -> list[SourceDocument]:
    """The objects below the prefix that have one of the suffixes. Raises StorageError."""
    suffixes = tuple(suffix.lower() for suffix in source.suffixes)
    return [
        SourceDocument(source="S3", bucket=source.bucket, key=found.key, etag=found.etag, size=found.size)
        async for found in storage.list(source.bucket, source.prefix)
        if not found.key.endswith("/") and (not suffixes or found.key.lower().endswith(suffixes))
    ]
