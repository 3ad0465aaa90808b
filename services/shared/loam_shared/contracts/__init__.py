"""Wire types of the seams between rooms: admin (operator to gateway), internal (pods to gateway), retrieval.

They hold shapes and units only. JSON is camelCase; unknown fields are refused, so a typing error is never ignored.
"""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """Base of all wire types."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    def to_json(self) -> str:
        """The body as it goes over the wire."""
        return self.model_dump_json(by_alias=True, exclude_none=True)
