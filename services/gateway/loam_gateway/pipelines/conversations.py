"""What was said before in a session: per pipeline and caller, bounded, forgotten after a while."""

from collections.abc import Sequence

import orjson
from pydantic import TypeAdapter

from loam_gateway.adapters.postgres import Pool
from loam_gateway.pipelines.model import PipelineId
from loam_shared.contracts.retrieval import Message

MAX_MESSAGES = 40
MAX_CHARACTERS = 64_000
_MESSAGES = TypeAdapter(tuple[Message, ...])


async def recall(pool: Pool, pipeline: PipelineId, owner: str, session_id: str) -> tuple[Message, ...]:
    """The session's messages so far, oldest first; none for a new session."""
    text = await pool.fetchval(_RECALL, *pipeline, owner, session_id)
    return _MESSAGES.validate_json(text) if text else ()


async def remember(pool: Pool, pipeline: PipelineId, owner: str, session_id: str, said: Sequence[Message]) -> None:
    """Add to a session; what no longer fits is forgotten from its beginning."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_BEGIN, *pipeline, owner, session_id)
        before = _MESSAGES.validate_json(await connection.fetchval(_RECALL_LOCKED, *pipeline, owner, session_id))
        kept = [message.model_dump() for message in latest([*before, *map(_storable, said)])]
        await connection.execute(_REMEMBER, *pipeline, owner, session_id, orjson.dumps(kept).decode())


def latest(messages: Sequence[Message]) -> list[Message]:
    """The newest messages that fit both limits, beginning with a question."""
    kept: list[Message] = []
    characters = 0
    for message in reversed(messages[-MAX_MESSAGES:]):
        characters += len(message.content)
        if characters > MAX_CHARACTERS:
            break
        kept.insert(0, message)
    while kept and kept[0].role != "user":
        kept.pop(0)
    return kept


def _storable(message: Message) -> Message:
    """The message without U+0000, which PostgreSQL does not take and which says nothing."""
    return message.model_copy(update={"content": message.content.replace("\0", "")})


_RECALL = """
SELECT messages::text FROM conversations WHERE tenant = $1 AND pipeline = $2 AND owner = $3 AND session_id = $4
"""
_RECALL_LOCKED = _RECALL + " FOR UPDATE"
_BEGIN = """
INSERT INTO conversations (tenant, pipeline, owner, session_id, messages) VALUES ($1, $2, $3, $4, '[]')
ON CONFLICT DO NOTHING
"""
_REMEMBER = """
UPDATE conversations SET messages = $5::text::jsonb, updated_at = now()
WHERE tenant = $1 AND pipeline = $2 AND owner = $3 AND session_id = $4
"""
