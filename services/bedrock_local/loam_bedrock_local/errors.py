"""Bedrock's errors: the names, statuses and bodies that AWS SDKs turn into exceptions of their own.

They are part of the protocol that is spoken here, hence not the platform's `loam_shared.errors`.
"""

from typing import ClassVar


class BedrockError(Exception):
    """What the caller's SDK raises as an exception of class `name`."""

    name: ClassVar[str]
    status: ClassVar[int]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ValidationError(BedrockError):
    """The request breaks a rule of the API or of the model."""

    name, status = "ValidationException", 400


class AccessDeniedError(BedrockError):
    """The identity may not call this model."""

    name, status = "AccessDeniedException", 403


class MissingTokenError(BedrockError):
    """The request is not signed at all."""

    name, status = "MissingAuthenticationTokenException", 403


class UnrecognizedClientError(BedrockError):
    """The access key or bearer token is not one of those accepted."""

    name, status = "UnrecognizedClientException", 403


class InvalidSignatureError(BedrockError):
    """The signature is not what the accepted secret gives for this request."""

    name, status = "InvalidSignatureException", 403


class ResourceNotFoundError(BedrockError):
    """The model or profile is gone."""

    name, status = "ResourceNotFoundException", 404


class UnknownOperationError(BedrockError):
    """There is no such route."""

    name, status = "UnknownOperationException", 404


class ModelTimeoutError(BedrockError):
    """The model took too long."""

    name, status = "ModelTimeoutException", 408


class ModelFailedError(BedrockError):
    """The model failed while it answered."""

    name, status = "ModelErrorException", 424


class ModelStreamError(BedrockError):
    """The model failed while it streamed; seen inside streams only."""

    name, status = "ModelStreamErrorException", 424


class ThrottlingError(BedrockError):
    """Too many requests or tokens for the account's quota."""

    name, status = "ThrottlingException", 429


class ModelNotReadyError(BedrockError):
    """The model is still being loaded."""

    name, status = "ModelNotReadyException", 429


class InternalServerError(BedrockError):
    """Bedrock's own fault."""

    name, status = "InternalServerException", 500


class ServiceUnavailableError(BedrockError):
    """Bedrock has no capacity."""

    name, status = "ServiceUnavailableException", 503


BY_NAME: dict[str, type[BedrockError]] = {kind.name: kind for kind in BedrockError.__subclasses__()}
