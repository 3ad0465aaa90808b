"""IAM: users with one inline policy and one access key, as AWS and S3 servers that speak its API know them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from botocore.exceptions import BotoCoreError, ClientError

from loam_shared.errors import UnavailableError

_POLICY_NAME = "loam-storage"


@dataclass(frozen=True)
class AccessKey:
    """A login of a user; the secret is told once, when it is made."""

    key_id: str
    secret: str = field(repr=False)


class Identities:
    """The users of one account, through a client made at start-up. Raises UnavailableError where IAM fails."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def ensure_user(self, name: str, policy: Mapping[str, Any]) -> None:
        """A user of that name with exactly this policy, whatever was there before; nothing is written when it is so."""
        if _normal(await self._policy(name)) == _normal(policy):
            return
        with _translated(ignore="EntityAlreadyExists"):
            await self._client.create_user(UserName=name)
        with _translated():
            await self._client.put_user_policy(
                UserName=name, PolicyName=_POLICY_NAME, PolicyDocument=orjson.dumps(policy).decode()
            )

    async def _policy(self, name: str) -> Any:
        with _translated(ignore="NoSuchEntity"):
            answer = await self._client.get_user_policy(UserName=name, PolicyName=_POLICY_NAME)
            document = answer["PolicyDocument"]
            # botocore parses what AWS sends percent-encoded, and leaves plain JSON as it is.
            return orjson.loads(document) if isinstance(document, str) else document
        return None

    async def key_ids(self, name: str) -> list[str]:
        """The access keys of a user; none when there is no such user."""
        with _translated(ignore="NoSuchEntity"):
            answer = await self._client.list_access_keys(UserName=name)
            return [entry["AccessKeyId"] for entry in answer["AccessKeyMetadata"]]
        return []

    async def create_key(self, name: str) -> AccessKey:
        """A new access key."""
        with _translated():
            made = (await self._client.create_access_key(UserName=name))["AccessKey"]
        return AccessKey(made["AccessKeyId"], made["SecretAccessKey"])

    async def delete_key(self, name: str, key_id: str) -> None:
        """Delete an access key; one that is gone already does not matter."""
        with _translated(ignore="NoSuchEntity"):
            await self._client.delete_access_key(UserName=name, AccessKeyId=key_id)

    async def delete_user(self, name: str) -> None:
        """Delete a user with its keys and its policy, in the order that IAM asks for."""
        for key_id in await self.key_ids(name):
            await self.delete_key(name, key_id)
        with _translated(ignore="NoSuchEntity"):
            await self._client.delete_user_policy(UserName=name, PolicyName=_POLICY_NAME)
        with _translated(ignore="NoSuchEntity"):
            await self._client.delete_user(UserName=name)


def _normal(policy: Any) -> Any:
    """A policy in one form: a list of one element and that element mean the same, and servers give back either."""
    if isinstance(policy, Mapping):
        return {name: _normal(value) for name, value in policy.items()}
    if isinstance(policy, list | tuple):
        return _normal(policy[0]) if len(policy) == 1 else [_normal(value) for value in policy]
    return policy


@contextmanager
def _translated(ignore: str | None = None) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != ignore:
            raise UnavailableError(f"the identity service refused: {error}", retry_after=5) from error
    except BotoCoreError as error:
        raise UnavailableError(f"the identity service did not answer: {error}", retry_after=5) from error
