"""Another try for a document that was given up."""

from loam_gateway.adapters.postgres import Pool
from loam_gateway.pipelines import catalog, documents
from loam_gateway.pipelines.model import PipelineId
from loam_shared.contracts.internal import DocumentState
from loam_shared.errors import ConflictError


async def retry(pool: Pool, pipeline: PipelineId, document_id: str) -> DocumentState:
    """Have a failed document ingested anew, as if it had never been tried.

    Raises NotFoundError, and ConflictError for a document that has not failed.
    """
    async with pool.acquire() as connection, connection.transaction():
        await catalog.locked(connection, pipeline)
        # Whoever changes documents holds the pipeline's row, so this stays so until the end of the transaction.
        if not await connection.fetchval(_REOPEN, *pipeline, document_id):
            status = (await documents.show(pool, pipeline, document_id)).status
            raise ConflictError(f"this document has not failed; it is {status}", param="documentId")
        await catalog.queue_ingests(connection, pipeline, [document_id])
    return await documents.show(pool, pipeline, document_id)


_REOPEN = """
UPDATE documents SET status = 'Pending', error = NULL, updated_at = now()
WHERE tenant = $1 AND pipeline = $2 AND document_id = $3 AND status = 'Failed' RETURNING true
"""
