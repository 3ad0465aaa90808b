"""What can go wrong in an evaluation."""


class EvaluationError(Exception):
    """The evaluation cannot be made; the message says why and what would help."""


class AbsentError(EvaluationError):
    """There is nothing to evaluate: the folder does not exist."""
