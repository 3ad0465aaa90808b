"""One document at a time, for callers that have no pool."""

import tempfile

from loam_ingestion.parsing.pool import Parsed, parsers
from loam_ingestion.settings import ParsingLimits

__all__ = ["Parsed", "parse"]


async def parse(name: str, media_type: str | None, data: bytes, limits: ParsingLimits) -> Parsed:
    """Parse `data` in a fresh process. Raises UnreadableDocumentError."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        async with parsers(limits, 1) as pool:
            return await pool.parse(name, media_type, file)
