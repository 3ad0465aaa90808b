"""What can go wrong with a document or a batch. The messages reach the document's owner, so they name the mend."""


class IngestionError(Exception):
    """`passing` says that trying again later may help."""

    def __init__(self, message: str, *, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing


class UnreadableDocumentError(IngestionError):
    """There is no text to be had from this document, now or later."""

    def __init__(self, message: str) -> None:
        super().__init__(message, passing=False)


class ParserUnavailableError(IngestionError):
    """The processes that parse documents cannot be started now."""


class SourceError(IngestionError):
    """A source cannot be listed, or a document of it cannot be read."""


class StorageError(IngestionError):
    """S3 refused or could not be reached."""


class GatewayError(IngestionError):
    """The gateway refused or could not be reached (then without a status)."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        # A budget that is used up (402) opens again with its next window, so it counts as passing too.
        super().__init__(message, passing=status is None or status in {402, 408, 425, 429} or status >= 500)
        self.status = status


class IndexUnavailableError(IngestionError):
    """The index cannot be read or written now."""


class IndexMovedError(IngestionError):
    """Somebody else keeps writing to the index."""


class IndexMismatchError(IngestionError):
    """The index was built with another embedding model or size of vector."""


class LeaseLostError(Exception):
    """Another worker holds the pipeline now; whatever this one has done since counts for nothing."""
