"""Names in the paths of the admin API, as the operator's own kinds allow them.

A tenant's name becomes a prefix and a pattern of an access policy in the object store, where a ``*`` would open more
than one tenant's data; so it is checked where it comes in, whoever sends it.
"""

from typing import Annotated

from fastapi import Path

_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

TenantName = Annotated[str, Path(max_length=63, pattern=_LABEL)]
PipelineName = Annotated[str, Path(max_length=63, pattern=_LABEL)]
KeyId = Annotated[str, Path(max_length=128, pattern=r"^[-_.A-Za-z0-9]+$")]
ModelName = Annotated[str, Path(max_length=253, pattern=r"^[-.a-z0-9]+$")]
