"""Images and documents, which come inline as data URLs, so that nobody can make anyone fetch things."""

import re
from collections.abc import Container

from loam_shared.errors import InvalidRequestError

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*;base64,([A-Za-z0-9+/]+={0,2})")

IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
"""The formats of images that all providers take, by media type."""


def inline(url: str, taken: Container[str], where: str) -> tuple[str, str]:
    """The media type in `url` and its data in base64. Raises InvalidRequestError unless the type is `taken`."""
    match = _DATA_URL.fullmatch(url)
    if match is None:
        raise InvalidRequestError(
            f"{where}: must be a data URL with base64, such as data:image/png;base64,…", param=where
        )
    media_type = match[1].lower()
    if media_type not in taken:
        raise InvalidRequestError(f"{where}: this model does not take {media_type}", param=where)
    return media_type, match[2]
