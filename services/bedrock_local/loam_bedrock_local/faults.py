"""What can be made to go wrong: per request by a header, or for chosen calls by a scenario."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from loam_bedrock_local import errors

HEADER = b"x-loam-local-fault"
_BY_ALIAS: dict[str, type[errors.BedrockError]] = {
    "throttle": errors.ThrottlingError,
    "not-ready": errors.ModelNotReadyError,
    "400": errors.ValidationError,
    "403": errors.AccessDeniedError,
    "404": errors.ResourceNotFoundError,
    "408": errors.ModelTimeoutError,
    "424": errors.ModelFailedError,
    "429": errors.ThrottlingError,
    "500": errors.InternalServerError,
    "503": errors.ServiceUnavailableError,
}
_COMPACT = {"error": "error", "delay": "delayMs", "slow": "eventDelayMs", "cut": "cutAfter", "errorAfter": "errorAfter"}


class _Local(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Fault(_Local):
    """What happens to one call.

    `error` is an exception's name, an HTTP status, ``throttle`` or ``not-ready``. It is raised at once, or inside the
    stream after `error_after` events. `cut_after` closes the connection after so many events of a stream, or half-way
    through any other answer. `text` is answered instead of what the prompt would give. `obedient` has the model follow
    every instruction outside of fences (see `obedient`).
    """

    error: str | None = None
    message: str = "This is a fault that was asked for."
    delay_ms: int = Field(default=0, ge=0)
    event_delay_ms: int = Field(default=0, ge=0)
    cut_after: int | None = Field(default=None, ge=0)
    error_after: int | None = Field(default=None, ge=0)
    text: str | None = None
    obedient: bool = False

    @field_validator("error", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if value is not None and str(value) not in _BY_ALIAS and str(value) not in errors.BY_NAME:
            raise ValueError(f"no such error: {value}; take one of {', '.join([*_BY_ALIAS, *errors.BY_NAME])}")
        return value if value is None else str(value)

    def raised(self) -> errors.BedrockError | None:
        """The error that this asks for, if any."""
        if self.error is None:
            return None
        kind = _BY_ALIAS.get(self.error) or errors.BY_NAME[self.error]
        return kind(self.message)


class Rule(_Local):
    """Calls of models that match `model` (a glob) by `operation`, whose body contains `contains`.

    Of these the first `skip` pass, the next `times` (all, when it is None) get the fault.
    """

    model: str = "*"
    operation: str = "*"
    contains: str = ""
    skip: int = Field(default=0, ge=0)
    times: int | None = Field(default=None, ge=1)
    fault: Fault

    def covers(self, model_id: str, operation: str, body: bytes) -> bool:
        """Whether a call is one of those meant."""
        named = fnmatchcase(model_id, self.model) and fnmatchcase(operation, self.operation)
        return named and self.contains.encode() in body


class Script(_Local):
    """A scenario as it is written: the first rule that applies to a call wins."""

    rules: tuple[Rule, ...] = ()


NONE = Fault()


class Scenario:
    """Rules, and how often each has been met."""

    def __init__(self, script: Script) -> None:
        self.play(script)

    @classmethod
    def load(cls, path: Path | None) -> "Scenario":
        """From a JSON file, or an empty one."""
        return cls(Script.model_validate_json(path.read_bytes()) if path else Script())

    def play(self, script: Script) -> None:
        """Start over with other rules."""
        self._rules = script.rules
        self._met = [0] * len(script.rules)

    def next_fault(self, model_id: str, operation: str, body: bytes) -> Fault:
        """What this call, which counts as met by the rules that cover it, is to suffer."""
        fault = NONE
        for index, rule in enumerate(self._rules):
            if rule.covers(model_id, operation, body):
                self._met[index] += 1
                due = self._met[index] - rule.skip
                if fault is NONE and due > 0 and (rule.times is None or due <= rule.times):
                    fault = rule.fault
        return fault


def script(body: bytes) -> Script:
    """A scenario from a request's body.

    Raises:
        ValidationError: it is not one.
    """
    try:
        return Script.model_validate_json(body)
    except ValidationError as error:
        raise errors.ValidationError(f"not a scenario: {error}") from error


def from_header(value: str) -> Fault:
    """A fault written as JSON, or in short: ``throttle``, ``error=500,delay=200``, ``slow=30,cut=3``.

    Raises:
        ValidationError: it is neither.
    """
    try:
        if value.lstrip().startswith("{"):
            return Fault.model_validate_json(value)
        return Fault.model_validate(dict(_compact(part) for part in value.split(",")))
    except (ValidationError, KeyError) as error:
        raise errors.ValidationError(f"{HEADER.decode()}: {error}") from error


def _compact(part: str) -> tuple[str, str]:
    name, equals, value = part.strip().partition("=")
    if name == "obedient":
        return name, value or "true"
    return (_COMPACT[name], value) if equals else ("error", name)
