"""A chat completion as an OpenAI client asks for it."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from loam_shared.errors import InvalidRequestError

# What a JSON encoder writes, and a database keeps.
_LARGEST = 2**63 - 1
_NAME = r"^[A-Za-z0-9_-]{1,64}$"


def _writable(schema: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError for what cannot be passed on: integers beyond 64 bits, nesting without end."""
    try:
        orjson.dumps(schema)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"cannot be passed on: {error}") from error
    return schema


_Schema = Annotated[dict[str, Any], AfterValidator(_writable)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class CacheControl(_Part):
    """Marks the end of a prefix that the provider should cache, as Anthropic, OpenRouter and LiteLLM write it."""

    type: Literal["ephemeral"]


class _Cacheable(_Part):
    cache_control: CacheControl | None = None


class TextPart(_Cacheable):
    """A piece of text."""

    type: Literal["text"]
    text: str


class RefusalPart(_Part):
    """An earlier refusal of the assistant, given back as history."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(_Part):
    """Where an image lies; only data URLs are taken, so that nobody can make the gateway fetch things."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(_Cacheable):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


class FileData(_Part):
    """A document, inline as a data URL."""

    file_data: str
    filename: str = "document"


class FilePart(_Cacheable):
    """A document."""

    type: Literal["file"]
    file: FileData


UserPart = Annotated[TextPart | ImagePart | FilePart, Field(discriminator="type")]
AssistantPart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


class SystemMessage(_Cacheable):
    """Instructions."""

    role: Literal["system", "developer"]
    content: str | list[TextPart]
    name: str | None = None


class UserMessage(_Cacheable):
    """What the user says."""

    role: Literal["user"]
    content: str | list[UserPart]
    name: str | None = None


class FunctionCall(_Part):
    """A call of a function, its arguments as JSON text."""

    name: str = Field(pattern=_NAME)
    arguments: str = "{}"


class ToolCall(_Part):
    """A call that the assistant asked for."""

    id: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")
    type: Literal["function"] = "function"
    function: FunctionCall


class ReasoningDetail(_Part):
    """A piece of an answer's reasoning, to be given back as it came: text with its signature, or encrypted data.

    The shapes are OpenRouter's `reasoning_details`.
    """

    type: Literal["reasoning.text", "reasoning.encrypted"]
    text: str = ""
    signature: str | None = None
    data: str = ""


class AssistantMessage(_Cacheable):
    """What the model said before."""

    role: Literal["assistant"]
    content: str | list[AssistantPart] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning_details: list[ReasoningDetail] | None = None
    name: str | None = None

    @property
    def kept_reasoning(self) -> list[ReasoningDetail]:
        """What its model wants back: reasoning without a signature is of no use to any."""
        details = self.reasoning_details or ()
        return [detail for detail in details if detail.signature or detail.type == "reasoning.encrypted"]


class ToolMessage(_Cacheable):
    """The result of a call. Images, documents and `is_error` are more than OpenAI has."""

    role: Literal["tool"]
    tool_call_id: str
    content: str | list[UserPart]
    is_error: bool = False


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class Function(_Part):
    """A function that the model may call; `parameters` is a JSON Schema."""

    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: _Schema | None = None
    strict: bool | None = None


class Tool(_Cacheable):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: Function


class NamedFunction(_Part):
    """A function by its name."""

    name: str


class NamedTool(_Part):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(_Part):
    """The schema that an answer must have."""

    name: str = Field(pattern=_NAME)
    description: str | None = None
    schema_: _Schema = Field(default_factory=lambda: {"type": "object"}, alias="schema")
    strict: bool | None = None


class TextFormat(_Part):
    """Plain text."""

    type: Literal["text"]


class JsonObjectFormat(_Part):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(_Part):
    """JSON of a given schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StreamOptions(_Part):
    """What a stream carries besides the answer."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The body of a chat completion. A field that neither OpenAI nor Loam knows is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, max_length=253)
    messages: list[Message] = Field(min_length=1, max_length=10_000)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=_LARGEST)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=_LARGEST)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    stop: str | list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    response_format: ResponseFormat | None = None
    n: Literal[1] | None = None
    user: str | None = Field(default=None, max_length=256)

    # What some models have no place for: not acted on there, and named in x-loam-dropped-params.
    parallel_tool_calls: bool | None = None
    seed: int | None = Field(default=None, ge=-_LARGEST, le=_LARGEST)
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: Literal[False] | None = None
    metadata: dict[str, str] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    modalities: tuple[Literal["text"]] | None = None

    strict: bool = False
    """Whether a parameter that the model does not take is refused rather than dropped."""

    @property
    def output_limit(self) -> int | None:
        """The most tokens that the caller wants as an answer."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def wants_json(self) -> bool:
        """Whether the answer is to be JSON."""
        return self.response_format is not None and not isinstance(self.response_format, TextFormat)

    @property
    def stop_sequences(self) -> list[str]:
        """Texts that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


EFFECTIVE = (
    "temperature",
    "top_p",
    "parallel_tool_calls",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "reasoning_effort",
    "verbosity",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
)
"""The parameters that change an answer or its price, where the model takes them."""


def dropped_of(request: ChatRequest, taken: Iterable[str]) -> tuple[str, ...]:
    """The given parameters that are not among those `taken`, so that nobody believes they do something."""
    given = request.model_fields_set.intersection(EFFECTIVE).difference(taken)
    return tuple(name for name in EFFECTIVE if name in given and getattr(request, name) is not None) if given else ()


_Body = TypeVar("_Body", bound=BaseModel)


def parse(kind: type[_Body], body: bytes) -> _Body:
    """`body` as a `kind`. Raises InvalidRequestError that names the first field that is wrong."""
    return _checked(kind.model_validate_json, body)


def made(kind: type[_Body], fields: dict[str, Any]) -> _Body:
    """A `kind` of `fields`. Raises as `parse` does."""
    return _checked(kind.model_validate, fields)


def _checked(validate: Callable[[Any], _Body], given: Any) -> _Body:
    try:
        return validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise InvalidRequestError(f"{param}: {first['msg']}" if param else first["msg"], param=param) from error
