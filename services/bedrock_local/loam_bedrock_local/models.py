"""Which model ids are known, and what kind of model answers to them."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from loam_bedrock_local.errors import ResourceNotFoundError, ValidationError

Kind = Literal["Chat", "TitanEmbed", "CohereEmbed", "CohereRerank"]

_PROFILE = re.compile(r"(?:us|us-gov|eu|apac|jp|au|ca|global)\.(?=[a-z0-9]+\.)")
_ARN = re.compile(
    r"arn:aws[a-z-]*:bedrock:[a-z0-9-]*:\d*:"
    r"(?P<type>foundation-model|inference-profile|application-inference-profile|provisioned-model|custom-model"
    r"|custom-model-deployment|imported-model|default-prompt-router|prompt-router)/(?P<name>\S+)"
)
_OPAQUE = {"application-inference-profile", "provisioned-model", "default-prompt-router", "prompt-router"}
_FAMILIES: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"amazon\.titan-embed-text-v2:0"), "TitanEmbed"),
    (re.compile(r"cohere\.embed-(english|multilingual)-v3|cohere\.embed-v4:0"), "CohereEmbed"),
    (re.compile(r"cohere\.rerank-v3-5:0"), "CohereRerank"),
    (re.compile(r"anthropic\.claude-\S+|amazon\.nova-\S+|cohere\.command-r\S*|meta\.llama\d\S+"), "Chat"),
    (re.compile(r"mistral\.\S+|openai\.gpt-\S+|qwen\.qwen\S+|deepseek\.\S+|moonshot(ai)?\.kimi\S+"), "Chat"),
    (re.compile(r"writer\.palmyra\S+|zai\.glm\S+|ai21\.jamba\S+|minimax\.\S+|google\.gemma\S+"), "Chat"),
    (re.compile(r"nvidia\.nemotron\S+"), "Chat"),
)
_RETIRED = re.compile(r"anthropic\.claude-(v1|instant-v1)|amazon\.titan-(tg1|text|embed-g1)\S*|ai21\.j2\S*")
# The newest Claude models refuse what steers sampling.
_NO_SAMPLING = re.compile(r"anthropic\.claude-(opus|sonnet|haiku)-5-5")


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the caller named it (`id`), and the foundation model behind profiles and ARNs (`name`)."""

    id: str
    name: str
    kind: Kind

    @property
    def provider(self) -> str:
        """The first part of the name: ``anthropic``, ``amazon``, …"""
        return self.name.split(".", 1)[0]

    @property
    def samples(self) -> bool:
        """Whether it takes temperature and topP."""
        return not _NO_SAMPLING.match(self.name)


@lru_cache(maxsize=1024)
def resolve(model_id: str) -> Model:
    """The model behind an id, a geographic or global inference profile, or an ARN.

    Raises:
        ValidationError: there is no such model.
        ResourceNotFoundError: it was retired.
    """
    arn = _ARN.fullmatch(model_id)
    if arn and arn["type"] in _OPAQUE:
        # What such an ARN stands for is known to its account alone; a chat model is what they are made for.
        return Model(model_id, "application-profile", "Chat")
    name = _PROFILE.sub("", arn["name"] if arn else model_id, count=1)
    if _RETIRED.fullmatch(name):
        raise ResourceNotFoundError(
            "This model version has reached the end of its life. "
            "Please refer to the AWS documentation for more details."
        )
    for pattern, kind in _FAMILIES:
        if pattern.fullmatch(name):
            return Model(model_id, name, kind)
    raise ValidationError("The provided model identifier is invalid.")
