"""Taking documents in: from the request into the object store as they arrive, with bounded memory, all or none."""

import base64
import hashlib
import mimetypes
import re
import unicodedata
import uuid
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from fastapi import Request
from pydantic import Field, ValidationError

from loam_gateway.directory.model import Principal
from loam_gateway.pipelines import catalog, documents
from loam_gateway.pipelines.model import PipelineId, StoredObject, document_id, takes_uploads
from loam_gateway.pipelines.multipart import files
from loam_gateway.storage.policy import prefix_of
from loam_shared.contracts import Wire
from loam_shared.errors import InvalidRequestError, TooLargeError

if TYPE_CHECKING:
    from loam_gateway.pipelines.room import Room

# A JSON body is held in memory as a whole, so it has a limit of its own.
MAX_INLINE_BYTES = 10 * 2**20
# Boundaries and part headers come on top of the documents' own bytes.
_FRAMING_BYTES = 64 * 2**10
_MAX_NAME = 512
_MAX_MEDIA_TYPE = 255
# It becomes a header towards the object store.
_MEDIA_TYPE = re.compile(r"[\x20-\x7e]+/[\x20-\x7e]+")
_MAX_IDEMPOTENCY_KEY = 255


class InlineDocument(Wire):
    """A document within a JSON body: text, or any bytes in base64."""

    name: str
    text: str | None = None
    content_base64: str | None = Field(default=None, repr=False)
    media_type: str | None = Field(default=None, max_length=_MAX_MEDIA_TYPE)


class Intake:
    """One request's uploads. What was stored is discarded again unless all of it was accepted."""

    def __init__(self, room: "Room", caller: Principal, name: str) -> None:
        self._room = room
        self._caller = caller
        self._pipeline = PipelineId(caller.tenant, name)
        self._stored: list[StoredObject] = []

    async def take(self, request: Request) -> list[documents.Accepted]:
        """Store and queue what `request` carries.

        Raises NotFoundError, TooLargeError before more than the limit was read, IdempotencyConflictError,
        UnavailableError when too many are under way, and InvalidRequestError for a pipeline that takes no uploads, a
        body without a document, or one that is malformed.
        """
        if not takes_uploads(await catalog.spec(self._room.pool, self._pipeline)):
            raise InvalidRequestError(
                f"the pipeline {self._pipeline.name} takes no uploads; add `uploads: {{}}` to its spec.sources"
            )
        try:
            with self._room.uploads.place(self._pipeline.tenant):
                await self._store(request)
            return await documents.accept(self._room.pool, self._pipeline, self._stored, self._receipt(request))
        except BaseException:
            # Also when the client hangs up: what was stored so far must not stay. Housekeeping deletes it.
            await documents.discard_objects(self._room.pool, [one.key for one in self._stored])
            raise

    def _receipt(self, request: Request) -> documents.Receipt | None:
        value = request.headers.get("idempotency-key")
        if value is not None and len(value) > _MAX_IDEMPOTENCY_KEY:
            raise InvalidRequestError(f"Idempotency-Key: at most {_MAX_IDEMPOTENCY_KEY} characters")
        return documents.Receipt(self._room.vault, self._caller, value) if value else None

    async def _store(self, request: Request) -> None:
        content_type = request.headers.get("content-type", "")
        if content_type.startswith("multipart/form-data"):
            limit = self._room.settings.max_document_bytes
            async for part in files(content_type, _limited(request, limit, slack=_FRAMING_BYTES)):
                await self._write(part.name, part.media_type, part.body)
        elif content_type.startswith("application/json"):
            await self._store_inline(await _inline(request))
        else:
            raise InvalidRequestError("send documents as multipart/form-data or as application/json")
        if not self._stored:
            raise InvalidRequestError("the body carries no file; send each as a part with a filename")

    async def _store_inline(self, document: InlineDocument) -> None:
        await self._write(document.name, document.media_type, _once(_content(document)))

    async def _write(self, given_name: str, media_type: str | None, body: AsyncIterator[bytes]) -> None:
        name = _checked_name(given_name)
        media_type = _checked_media_type(media_type) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        key = self._new_key(name)
        await documents.announce_object(self._room.pool, self._pipeline.tenant, key)
        digest = hashlib.sha256()
        size = await self._room.objects.write(key, _hashing(body, digest.update), media_type)
        self._stored.append(StoredObject(name, media_type, key, size, digest.hexdigest()))

    def _new_key(self, name: str) -> str:
        """A key of its own for every upload, so that a document is replaced at one moment, by its row."""
        folder = document_id(self._pipeline, "Uploads", None, name)
        return f"{prefix_of(self._pipeline.tenant)}raw/{self._pipeline.name}/{folder}/{uuid.uuid4().hex}"


async def _limited(request: Request, limit: int, *, slack: int = 0) -> AsyncIterator[bytes]:
    """The request's body, refused as soon as it is known to be longer than `limit` bytes."""
    refusal = TooLargeError(f"an upload may have at most {limit} bytes; send larger ones through a source bucket")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit + slack:
        raise refusal
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > limit + slack:
            raise refusal
        yield chunk


async def _inline(request: Request) -> InlineDocument:
    body = b"".join([chunk async for chunk in _limited(request, MAX_INLINE_BYTES)])
    try:
        return InlineDocument.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"])
        raise InvalidRequestError(f"{param}: {first['msg']}" if param else first["msg"], param=param or None) from error


def _content(document: InlineDocument) -> bytes:
    if (document.text is None) == (document.content_base64 is None):
        raise InvalidRequestError("give exactly one of text and contentBase64", param="text")
    if document.text is not None:
        return document.text.encode()
    try:
        return base64.b64decode(document.content_base64 or "", validate=True)
    except ValueError as error:  # binascii's own errors are such, and so is the one about letters beyond ASCII
        raise InvalidRequestError(f"contentBase64 is not base64: {error}", param="contentBase64") from error


def _checked_name(name: str) -> str:
    """The name in one Unicode form, so that what looks the same is the same document. Raises InvalidRequestError."""
    name = unicodedata.normalize("NFC", name).strip()
    if not name or len(name) > _MAX_NAME or any(unicodedata.category(letter) == "Cc" for letter in name):
        raise InvalidRequestError(
            f"a document's name needs 1 to {_MAX_NAME} characters and no control characters", param="name"
        )
    return name


def _checked_media_type(media_type: str | None) -> str | None:
    if media_type and (len(media_type) > _MAX_MEDIA_TYPE or not _MEDIA_TYPE.fullmatch(media_type)):
        raise InvalidRequestError("a document's media type is written such as text/plain", param="mediaType")
    return media_type


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _hashing(body: AsyncIterator[bytes], update: Callable[[bytes], None]) -> AsyncIterator[bytes]:
    async for chunk in body:
        update(chunk)
        yield chunk
