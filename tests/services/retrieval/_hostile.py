"""What a tenant might send to reach another one's documents: questions, filters, pointers, logins and tokens."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from loam_shared.contracts.retrieval import Serving
from loam_shared.credentials import new_signing_key

from ..ingestion import _rag

CANARY = "zanzibarquagga"
_TOKEN_SECONDS = 30
FIELDS = ("documentId", "name", "source", "mediaType")


@dataclass
class Target:
    """The tenant whose documents are to be reached: its pipeline, how it is served, and what is in it."""

    pipeline: _rag.Pipeline
    serving: Serving
    pointer: dict[str, Any]
    document_ids: list[str]
    names: list[str]


@dataclass
class Attempt:
    """One call to the pool: with which token, and what."""

    token: str
    body: dict[str, Any]
    kind: str = field(default="")


class Attacker:
    """Makes attempts of a tenant at the documents of another, the same ones in every run."""

    def __init__(self, own: Target, other: Target, seed: int = 5) -> None:
        self._own, self._other = own, other
        self._random = random.Random(seed)
        self._tokens: dict[str, tuple[float, str]] = {}

    def attempts(self, count: int) -> Iterator[Attempt]:
        """`count` of them, of all kinds in turn."""
        kinds = (self._filtered, self._worded, self._pointed, self._forged, self._signed, self._impersonated)
        for number in range(count):
            make = kinds[number % len(kinds)]
            attempt = make()
            attempt.kind = make.__name__.strip("_")
            yield attempt

    def _filtered(self) -> Attempt:
        """Filters that name what is the other's, or would say more than a value may."""
        wanted: dict[str, Any] = {}
        for name in self._random.sample(FIELDS, self._random.randint(1, 2)):
            many = self._random.random() < 0.3
            wanted[name] = (
                [self._value() for _ in range(self._random.choice((2, 50, 200, 201)))] if many else self._value()
            )
        return self._attempt(filter=wanted)

    def _worded(self) -> Attempt:
        """Questions with the words that only the other's documents have, and the syntax of several query languages."""
        text = self._random.choice(
            (
                CANARY,
                f'"{CANARY}"',
                f"{CANARY}*",
                f"text:{CANARY}",
                f"+{CANARY} -leave",
                f"{CANARY} OR 1=1",
                f"({CANARY}",
            )
        )
        return self._attempt(query=text + self._random.choice(("", " ", "\u200b", "\0", "'; --", "\ud7ff")), topK=100)

    def _pointed(self) -> Attempt:
        """Pointers at tables that are not the pipeline's."""
        tenant, table = self._other.pipeline.tenant, self._other.pointer["table"]
        place = f"{self._other.serving.storage.bucket}/tenants/{tenant}/index/{table}"
        name = self._random.choice(
            (
                f"../../{tenant}/index/{table}",
                f"{table}/../../../{tenant}/index/{table}",
                f"..%2F..%2F{tenant}%2Findex%2F{table}",
                f"s3://{place}.lance",
                f"/{place}",
                f"{table}\n",
                f"{table}\0",
                f" {table}",
                f"{table}.lance",
                "handbook-v\u0661",
                "handbook-v1-v1",
                "handbook",
                "",
                "*",
                "handbook-v%",
                f"handbook-v1#../../{tenant}",
            )
        )
        return self._attempt(
            index=self._own.pointer | {"table": name, "tableVersion": self._random.choice((1, 2, 3, 2**40))}
        )

    def _forged(self) -> Attempt:
        """Another serving part under a token that was made for the own one."""
        return self._attempt(serving=self._stolen(), token=self._token(self._own.serving.digest))

    def _signed(self) -> Attempt:
        """Another serving part under a token for just that, as if the gateway had been talked into it."""
        serving = self._stolen()
        return self._attempt(serving=serving, token=self._token(serving.digest if serving else None))

    def _impersonated(self) -> Attempt:
        """Tokens for the other tenant that the gateway did not sign, or signed for something else."""
        pipeline, serving = self._other.pipeline, self._other.serving
        claims = self._random.choice(({"key": _FORGER}, {"service": "agents"}, {"pipeline": None}))
        name = f"impersonated {sorted(claims)}"
        token = self._fresh(name, lambda: pipeline.token(serving=serving.digest, **claims))
        return self._attempt(serving=serving, token=token, index=self._other.pointer)

    def _stolen(self) -> Serving | None:
        own, other = self._own.serving, self._other.serving
        mine, theirs = own.storage.prefix, other.storage.prefix
        prefix = self._random.choice(
            (
                theirs,
                f"{mine}../../{theirs}",
                f"{mine}%2e%2e/{theirs}",
                "tenants/",
                "",
                "/",
                theirs.upper(),
                f"{mine}/",
                theirs[:-1],
            )
        )
        storage = self._random.choice(
            (
                other.storage,
                own.storage.model_copy(update={"prefix": prefix}),
                other.storage.model_copy(update={"prefix": prefix}),
                other.storage.model_copy(update={"prefix": mine, "access_key_id": None, "secret_access_key": None}),
                None,
            )
        )
        return None if storage is None else own.model_copy(update={"storage": storage})

    def _value(self) -> str:
        other = self._other
        known = self._random.choice([*other.document_ids, *other.names, CANARY, other.pipeline.tenant])
        return self._random.choice(
            (
                known,
                f"{known}' OR '1'='1",
                f"') OR document_id IN ('{known}') --",
                f'{known}" OR "1"="1',
                f"{known}'; DROP TABLE handbook; --",
                f"{known[:6]}%",
                f"{known[:6]}*",
                f"{known}\0",
                f"../../{other.pipeline.tenant}/{known}",
                known.upper(),
                known.replace("a", "\u0430"),
                "\u202e" + known,
                "x" * 10_000,
                "",
                "%",
                "*",
            )
        )

    def _attempt(self, *, token: str | None = None, serving: Serving | str | None = "own", **body: Any) -> Attempt:
        told = self._own.serving if serving == "own" else serving
        whole = {"query": CANARY, "index": self._own.pointer} | body
        if isinstance(told, Serving):
            whole["serving"] = told.model_dump(by_alias=True, exclude_none=True)
        return Attempt(token or self._token(self._own.serving.digest), whole)

    def _token(self, digest: str | None) -> str:
        """A token of the attacker's own tenant."""
        return self._fresh(str(digest), lambda: self._own.pipeline.token(serving=digest))

    def _fresh(self, name: str, make: Callable[[], str]) -> str:
        """A token that is used again for as long as it lasts: signing them all would take longer than asking."""
        made_at, token = self._tokens.get(name, (float("-inf"), ""))
        if time.monotonic() - made_at > _TOKEN_SECONDS:
            token = make()
            self._tokens[name] = (time.monotonic(), token)
        return token


_FORGER = new_signing_key()
