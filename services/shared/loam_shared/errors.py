"""Errors as classes with a code; the HTTP status and body appear only in `render` and the handlers of `http`."""

from typing import Any, ClassVar


class LoamError(Exception):
    """Anything that a caller is told. `param` names the offending field, `retry_after` is in seconds.

    `details` are further facts for machines (a cap's name, what is left of it); they go into the body beside the rest.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    type: ClassVar[str] = "server_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: int | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.details = details


class InvalidRequestError(LoamError):
    """The request is malformed or asks for something that cannot be."""

    status, code, type = 400, "invalid_request", "invalid_request_error"


class InvalidApiKeyError(LoamError):
    """No credential, or one that is unknown, expired or revoked."""

    status, code, type = 401, "invalid_api_key", "authentication_error"


class BudgetExceededError(LoamError):
    """A cap has no headroom left for this request. Details: cap, remainingUsd, resetsAt."""

    status, code, type = 402, "budget_exceeded", "budget_error"


class ForbiddenError(LoamError):
    """The credential is good, but not for this."""

    status, code, type = 403, "forbidden", "permission_error"


class NotFoundError(LoamError):
    """There is no such thing, or it is another tenant's, which looks the same from outside."""

    status, code, type = 404, "not_found", "not_found_error"


class ConflictError(LoamError):
    """The state has moved on, or belongs to somebody else."""

    status, code, type = 409, "conflict", "conflict_error"


class IdempotencyConflictError(ConflictError):
    """The same Idempotency-Key came before with another body, or is still being worked on."""

    code = "idempotency_conflict"


class IdempotencyPendingError(IdempotencyConflictError):
    """The first request with this Idempotency-Key is still being worked on."""


class TooLargeError(LoamError):
    """The body is larger than the limit."""

    status, code, type = 413, "too_large", "invalid_request_error"


class ModelNotPricedError(LoamError):
    """The model has no price, so nothing could be charged for it."""

    status, code, type = 422, "model_not_priced", "invalid_request_error"


class RateLimitedError(LoamError):
    """Too many requests or tokens; `retry_after` says when to come back."""

    status, code, type = 429, "rate_limited", "rate_limit_error"


class ProviderError(LoamError):
    """The model's provider refused or failed."""

    status, code, type = 502, "provider_error", "server_error"


class UnavailableError(LoamError):
    """Something that this needs is away for now."""

    status, code, type = 503, "unavailable", "server_error"


class DeadlineExceededError(LoamError):
    """It took longer than it may."""

    status, code, type = 504, "timeout", "server_error"


def render(error: LoamError, request_id: str) -> dict[str, Any]:
    """The body of every error on every route; an OpenAI SDK parses it."""
    body = {
        "type": error.type,
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "requestId": request_id,
    }
    return {"error": body | error.details}
