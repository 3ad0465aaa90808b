"""SQS: messages that are taken from a queue, and deleted once they are dealt with."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from loam_gateway.adapters import aws
from loam_shared.errors import UnavailableError

# The most that SQS gives or deletes in one call, and the longest that it waits for a message, in seconds.
_PER_CALL = 10
_LONG_POLL = 20
# How many calls ask at once for what is left.
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Message:
    """A message; it comes again, after the queue's visibility timeout, unless its `receipt` is deleted."""

    id: str
    body: str = field(repr=False)
    receipt: str = field(repr=False)


class MessageQueue:
    """One queue. Raises UnavailableError where SQS does not answer as it should."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    async def take(self, most: int) -> list[Message]:
        """What is there, about `most` of it if there is that much; waits up to 20 s for the first message."""
        taken = await self._receive(_LONG_POLL)
        # SQS says that there is more by giving all that it gives at once.
        full = len(taken) == _PER_CALL
        while full and len(taken) < most:
            more = await asyncio.gather(*(self._receive(0) for _ in range(_AT_ONCE)))
            taken += itertools.chain.from_iterable(more)
            full = all(len(batch) == _PER_CALL for batch in more)
        return taken

    async def delete(self, messages: Sequence[Message]) -> None:
        """Have messages not come again; one that could not be deleted comes again, like any other."""
        starts = range(0, len(messages), _PER_CALL)
        await asyncio.gather(*(self._delete(messages[start : start + _PER_CALL]) for start in starts))

    async def _receive(self, wait_seconds: int) -> list[Message]:
        with _translated():
            answer = await self._client.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=_PER_CALL, WaitTimeSeconds=wait_seconds
            )
        return [Message(one["MessageId"], one["Body"], one["ReceiptHandle"]) for one in answer.get("Messages", [])]

    async def _delete(self, messages: Sequence[Message]) -> None:
        entries = [{"Id": str(number), "ReceiptHandle": one.receipt} for number, one in enumerate(messages)]
        with _translated():
            await self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[MessageQueue]:
    """The queue, with a client of its own. Raises UnavailableError when what AWS's variables say makes no client."""
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(aws.client("sqs", aws.AwsSettings()))
        except (BotoCoreError, ValueError) as error:
            raise UnavailableError(f"the message queue cannot be called: {error}") from error
        yield MessageQueue(client, url)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise UnavailableError(f"the message queue did not answer as expected: {error}", retry_after=5) from error
