"""Who is calling: SigV4 or a bearer token must be there, and right where accepted credentials are given."""

import hashlib
import hmac
import re
from collections.abc import Iterator
from urllib.parse import quote

from loam_bedrock_local.asgi import Exchange
from loam_bedrock_local.errors import InvalidSignatureError, MissingTokenError, UnrecognizedClientError

_SIGV4 = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=(?P<key>[^/]+)/(?P<scope>[^,]+),\s*"
    r"SignedHeaders=(?P<headers>[^,]+),\s*Signature=(?P<signature>[0-9a-f]+)"
)


class Gate:
    """Lets signed requests in; with accepted credentials, only theirs."""

    def __init__(self, accept_keys: str = "") -> None:
        pairs = (entry.strip().partition(":") for entry in accept_keys.split(",") if entry.strip())
        self._secrets = {key: secret for key, _, secret in pairs}

    def admit(self, exchange: Exchange, body: bytes) -> None:
        """Return for a caller that is accepted.

        Raises:
            MissingTokenError: the request is not signed.
            UnrecognizedClientError: the credential is not one of those accepted.
            InvalidSignatureError: it is, but another secret made the signature, or for another request.
        """
        authorization = exchange.header(b"authorization")
        signed = _SIGV4.fullmatch(authorization)
        if not signed and not authorization.startswith("Bearer "):
            raise MissingTokenError("Missing Authentication Token")
        if not self._secrets:
            return
        identity = signed["key"] if signed else authorization.removeprefix("Bearer ").strip()
        if identity not in self._secrets:
            raise UnrecognizedClientError("The security token included in the request is invalid.")
        secret = self._secrets[identity]
        if (
            signed
            and secret
            and not hmac.compare_digest(signed["signature"], _signature(exchange, body, signed, secret))
        ):
            raise InvalidSignatureError(
                "The request signature we calculated does not match the signature you provided. "
                "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
            )


def _signature(exchange: Exchange, body: bytes, signed: re.Match[str], secret: str) -> str:
    """The signature that `secret` gives for this request, by AWS Signature Version 4."""
    text = "\n".join(
        ("AWS4-HMAC-SHA256", exchange.header(b"x-amz-date"), signed["scope"], _canonical_hash(exchange, body, signed))
    )
    key = f"AWS4{secret}".encode()
    for part in signed["scope"].split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _canonical_hash(exchange: Exchange, body: bytes, signed: re.Match[str]) -> str:
    parts = (
        exchange.method,
        # Everywhere but in S3 the path is encoded once more than it is sent.
        quote(exchange.path, safe="/-_.~"),
        exchange.query.decode("ascii"),
        *_canonical_headers(exchange, signed["headers"].split(";")),
        "",
        signed["headers"],
        _payload_hash(exchange, body),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _canonical_headers(exchange: Exchange, names: list[str]) -> Iterator[str]:
    return (f"{name}:{' '.join(exchange.header(name.encode()).split())}" for name in names)


def _payload_hash(exchange: Exchange, body: bytes) -> str:
    # The hash that a caller claims is not trusted, only its word that the body is not signed.
    unsigned = exchange.header(b"x-amz-content-sha256") == "UNSIGNED-PAYLOAD"
    return "UNSIGNED-PAYLOAD" if unsigned else hashlib.sha256(body).hexdigest()
