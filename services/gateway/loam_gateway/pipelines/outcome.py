"""What a worker's report about a job means. Pure."""

from dataclasses import dataclass
from typing import Literal

from loam_shared.contracts.internal import JobResult

_LONGEST_PAUSE = 600.0


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that is under way under the reporting worker's lease."""

    id: int
    kind: Literal["Ingest", "Remove", "Build", "Sync", "Check"]
    document_id: str | None
    attempt: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a job, or another attempt `again_in` seconds from now."""

    job: OpenJob
    result: JobResult
    again_in: float | None = None


def judge(job: OpenJob, result: JobResult, *, max_attempts: int, retry_seconds: float) -> Outcome:
    """Another attempt for what may still succeed, with a pause that doubles; the end for all else.

    Removing is tried for ever: what a user took away must be gone. So is building as long as it may succeed (a budget
    opens again), because nobody waits for it; what cannot succeed is tried anew, too, while the sources are looked at.
    """
    few = job.attempt < max_attempts
    worth_another = {"Remove": True, "Build": result.retry or few}.get(job.kind, result.retry and few)
    if result.state == "Done" or not worth_another:
        return Outcome(job, result)
    pause = min(retry_seconds * 2.0 ** min(job.attempt - 1, 16), _LONGEST_PAUSE)
    return Outcome(job, result, again_in=pause)
