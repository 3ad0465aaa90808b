"""From pydantic's JSON schema to the structural schema that Kubernetes takes."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from loam_operator.api.base import Node
from loam_operator.api.rules import Rule, Unique, matching
from loam_operator.api.schema import structural


class Part(Node):
    """A part."""

    size: Annotated[int, Field(ge=1)] = 3
    """How large."""
    name: Annotated[str, Field(max_length=9)] | None = None


class Bare(Node):
    """Nothing in it by default."""

    name: Annotated[str, Field(max_length=9)] | None = None


class Whole(Node):
    """A whole."""

    part: Part = Part()
    maybe: Part | None = None
    bare: Bare = Bare()
    parts: Annotated[list[Part], Field(max_length=2)] = Field(default_factory=list)
    keyed: Annotated[list[Part], Field(max_length=2), Unique("name")] = Field(default_factory=list)
    labels: Annotated[dict[str, Annotated[str, matching("^a$", "must be a")]], Field(max_length=2)] = Field(
        default_factory=dict
    )
    kind: Literal["Whole"]


def test_references_are_resolved_and_their_descriptions_kept() -> None:
    part = structural(Whole)["properties"]["part"]
    assert part["description"] == "A part."
    assert part["properties"]["size"] == {"type": "integer", "minimum": 1, "default": 3, "description": "How large."}


def test_an_object_has_the_defaults_of_all_that_is_in_it() -> None:
    properties = structural(Whole)["properties"]
    assert properties["part"]["default"] == {"size": 3}
    assert "default" not in properties["maybe"]
    assert "default" not in properties["bare"]


def test_an_optional_field_is_one_that_is_not_required() -> None:
    schema = structural(Whole)
    assert schema["required"] == ["kind"]
    assert schema["properties"]["maybe"]["type"] == "object"


def test_a_constant_is_an_enumeration_of_one() -> None:
    assert structural(Whole)["properties"]["kind"] == {"type": "string", "enum": ["Whole"]}


def test_every_list_says_how_it_is_merged() -> None:
    properties = structural(Whole)["properties"]
    assert properties["parts"]["x-kubernetes-list-type"] == "atomic"
    assert properties["keyed"]["x-kubernetes-list-type"] == "map"
    assert properties["keyed"]["x-kubernetes-list-map-keys"] == ["name"]


def test_rules_of_a_type_are_written_where_it_is_used() -> None:
    values = structural(Whole)["properties"]["labels"]["additionalProperties"]
    assert values == {
        "type": "string",
        "x-kubernetes-validations": [{"rule": "self.matches(r'^a$')", "message": "must be a"}],
    }


def test_a_rule_of_a_model_points_at_its_field() -> None:
    rule = Rule("self.size < 9", "must be less than 9", lambda part: part.size < 9, field="size")
    assert rule.to_crd() == {"rule": "self.size < 9", "message": "must be less than 9", "fieldPath": ".size"}


def test_what_a_structural_schema_cannot_say_stops_the_generator() -> None:
    class Odd(BaseModel):
        size: Annotated[int, Field(multiple_of=3)]

    class Either(BaseModel):
        size: int | str

    with pytest.raises(ValueError, match="cannot say multipleOf"):
        structural(Odd)
    with pytest.raises(ValueError, match="cannot say anyOf"):
        structural(Either)
