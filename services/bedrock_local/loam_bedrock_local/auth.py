"""Who is calling: SigV4 or a bearer token must be there, and right where accepted credentials are given."""

from loam_bedrock_local.errors import MissingTokenError, UnrecognizedClientError


class Gate:
    """Lets signed requests in; with `accepted` credentials, only theirs."""

    def __init__(self, accepted: str = "") -> None:
        pairs = (entry.strip().partition(":") for entry in accepted.split(",") if entry.strip())
        self._secrets = {key: secret for key, _, secret in pairs}

    def admit(self, authorization: str) -> str:
        """The access key id or bearer token of the caller.

        Raises:
            MissingTokenError: the request is not signed.
            UnrecognizedClientError: the credential is not one of those accepted.
        """
        scheme, _, rest = authorization.partition(" ")
        if scheme == "Bearer":
            identity = rest.strip()
        elif scheme == "AWS4-HMAC-SHA256" and "Credential=" in rest:
            identity = rest.partition("Credential=")[2].partition("/")[0]
        else:
            raise MissingTokenError("Missing Authentication Token")
        if self._secrets and identity not in self._secrets:
            raise UnrecognizedClientError("The security token included in the request is invalid.")
        return identity
