"""How a command fails: one sentence for people, and an exit code."""


class CommandError(Exception):
    """The command cannot go on; the message is the whole story."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
