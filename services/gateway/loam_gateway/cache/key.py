"""Which requests are the same. Pure."""

import hashlib
from typing import Any

import orjson
from pydantic import BaseModel

# Part of every key: raised when what is kept changes its meaning, so that nothing old is read as something new.
_FORMAT = b"loam response 1"
# A stream and its plain twin say the same; how it is delivered is no part of the question.
_DELIVERY = {"stream", "stream_options"}


def key_of(tenant_uid: str, route: str, model_id: str, request: BaseModel, template: str = "") -> bytes:
    """The SHA-256 of all that an answer depends on: equal for bodies that are equal as JSON, whatever their order.

    `template` is the name and version of the template that the request was made from.
    """
    body: dict[str, Any] = request.model_dump(exclude=_DELIVERY, exclude_unset=True, by_alias=True)
    asked = orjson.dumps([tenant_uid, route, model_id, template, body], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(_FORMAT + asked).digest()
