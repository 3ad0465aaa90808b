"""SQS for tests: moto's server as a process of its own, called with AWS's own client."""

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiobotocore.session import get_session

from . import embedded

LOGIN = {"AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": "adminsecret", "AWS_REGION": "us-east-1"}


@dataclass
class Queue:
    """One queue, and what a test does with it."""

    url: str
    client: Any

    async def send(self, bodies: Sequence[str]) -> None:
        """Put messages into the queue."""
        for start in range(0, len(bodies), 10):
            some = bodies[start : start + 10]
            entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(some)]
            await self.client.send_message_batch(QueueUrl=self.url, Entries=entries)

    async def come_again_after(self, seconds: int) -> None:
        """How long a message that was taken, and not deleted, stays away."""
        await self.client.set_queue_attributes(QueueUrl=self.url, Attributes={"VisibilityTimeout": str(seconds)})

    async def held(self) -> int:
        """How many messages there are, those included that somebody has taken and not deleted."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = await self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)


@contextlib.contextmanager
def sqs() -> Iterator[str]:
    """The endpoint of a running SQS."""
    with embedded.scratch_folder() as folder:
        (folder / "sqs").mkdir()
        [port] = embedded.free_ports(1)
        command = [sys.executable, "-m", "moto.server", "-H", embedded.HOST, "-p", str(port)]
        server = embedded.Server(command, folder / "sqs")
        endpoint = f"http://{embedded.HOST}:{port}"
        server.start(lambda: embedded._answers(f"{endpoint}/moto-api/data.json"))
        try:
            yield endpoint
        finally:
            server.stop()


@contextlib.asynccontextmanager
async def queue(endpoint: str) -> AsyncIterator[Queue]:
    """A new queue."""
    login = {"aws_access_key_id": "admin", "aws_secret_access_key": "adminsecret", "region_name": "us-east-1"}
    async with get_session().create_client("sqs", endpoint_url=endpoint, **login) as client:
        made = await client.create_queue(QueueName=f"q{os.urandom(4).hex()}")
        yield Queue(made["QueueUrl"], client)
