"""Types and pieces that several kinds share."""

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from loam_operator.api.base import Condition, Node
from loam_operator.api.rules import Rule, Unique, matching

Usd = Annotated[
    str,
    Field(max_length=19),
    matching(
        r"^[0-9]{1,9}(\.[0-9]{1,9})?$",
        'must be an amount in USD of at least 0, written as a decimal string such as "0.25"',
    ),
]
Percent = Annotated[
    str,
    Field(max_length=8),
    matching(r"^[0-9]{1,3}(\.[0-9]{1,4})?$", 'must be a percentage written as a decimal string, such as "2.5"'),
]
Label = Annotated[
    str,
    Field(min_length=1, max_length=63),
    matching(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", 'must be lower-case letters, digits and "-", such as "my-name"'),
]
ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matching(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        'must be the name of an object: lower-case letters, digits, "-" and ".", such as "my-name"',
    ),
]
DataKey = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matching(r"^[-._a-zA-Z0-9]+$", 'must be a key of a Secret: letters, digits, "-", "_" and ".", such as "token"'),
]
Host = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matching(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        'must be a host name or an IPv4 address without scheme or port, such as "orders.shop.svc"',
    ),
]
Url = Annotated[
    str,
    Field(max_length=2048),
    matching(r"^https?://[^/\s]+(/\S*)?$", 'must be an http or https URL, such as "https://api.example.com/v1"'),
]
BucketName = Annotated[
    str,
    Field(min_length=3, max_length=63),
    matching(r"^[a-z0-9][-.a-z0-9]*[a-z0-9]$", 'must be the name of an S3 bucket, such as "acme-docs"'),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Ports = Annotated[list[Port], Field(min_length=1, max_length=32), Unique()]
Text = Annotated[str, Field(max_length=256)]

Provider = Literal["Bedrock", "OpenAI", "Anthropic"]

_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"


def _quantity_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("int_or_string_type", "must be a number or a text")
    return str(value)


Quantity = Annotated[
    str,
    BeforeValidator(_quantity_text),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32}),
    Field(max_length=32),
    Rule(
        f"type(self) == string ? self.matches(r'{_QUANTITY}') : self >= 0",
        'must be a quantity of at least 0, such as "500m", "2" or "16Gi"',
        lambda text: re.fullmatch(_QUANTITY, text) is not None,
    ),
]
"""An amount of a resource; a number is taken as text, so that it has one form from here on."""

_RESOURCE_NAME = r"^[a-zA-Z0-9]([-a-zA-Z0-9_./]*[a-zA-Z0-9])?$"

Resources = Annotated[
    dict[Annotated[str, Field(max_length=63)], Quantity],
    Field(max_length=32),
    Rule(
        f"self.all(name, name.size() <= 63 && name.matches(r'{_RESOURCE_NAME}'))",
        'must name resources as Kubernetes does, such as "requests.cpu", "memory" or "pods"',
        lambda names: all(re.fullmatch(_RESOURCE_NAME, name) for name in names),
    ),
]


def _is_cidr(text: str) -> bool:
    """As Kubernetes judges: no host bits, no netmask, no zone, no leading zeros, no IPv4 address inside IPv6."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return False
    plain = "%" not in text and re.search(r"/(0|[1-9][0-9]{0,2})$", text) is not None
    return plain and (network.version == 4 or network.network_address.ipv4_mapped is None)


Cidr = Annotated[
    str,
    Field(max_length=43),
    Rule(
        "isCIDR(self) && cidr(self) == cidr(self).masked()",
        'must be a network in CIDR form without host bits, such as "203.0.113.0/24"',
        _is_cidr,
    ),
]

Conditions = Annotated[list[Condition], Field(max_length=16), Unique("type")]


class SecretKeyRef(Node):
    """One key of a Secret."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey
    """Key within the Secret."""


class NamedRef(Node):
    """An object of the same namespace, by name."""

    name: ObjectName
    """Name of the object."""


class Status(Node):
    """What every kind's status begins with."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """The generation of the object that this status was made from."""
    conditions: Conditions = []
    """What is true of the object now, and why; `Ready` sums it up."""


def exactly_one(*attributes: str) -> Rule:
    """A rule of a model: one and only one of these optional fields is set."""
    fields = [to_camel(attribute) for attribute in attributes]
    counted = " + ".join(f"(has(self.{field}) ? 1 : 0)" for field in fields)
    listed = ", ".join(fields[:-1]) + f" and {fields[-1]}"
    return Rule(
        f"{counted} == 1",
        f"needs exactly one of {listed}",
        lambda node: sum(getattr(node, attribute) is not None for attribute in attributes) == 1,
    )
