"""What a call says about the cache, and what holds when it says nothing."""

from dataclasses import dataclass, replace

from loam_shared.contracts.templates import PromptTemplate


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long an answer is kept, in seconds, and whether one that is kept may be served.

    `template` is the name and version of the template that the request was made from; it is part of the question.
    """

    seconds: int
    fresh: bool = False
    refused: bool = False
    template: str = ""

    @classmethod
    def of(cls, cache_control: str | None, seconds: int) -> "CachePolicy":
        """The policy for a request with that ``Cache-Control``: ``no-store`` is neither, ``no-cache`` only keeps."""
        if not cache_control:
            return cls(seconds)
        said = {part.strip().lower() for part in cache_control.split(",")}
        if "no-store" in said:
            return cls(0, refused=True)
        return cls(seconds, fresh=bool(said & {"no-cache", "max-age=0"}))

    @property
    def read(self) -> bool:
        """Whether an answer that is kept may be served."""
        return self.seconds > 0 and not self.fresh

    def of_template(self, template: PromptTemplate) -> "CachePolicy":
        """The policy for a call of `template`, which may say how long its answers last."""
        seconds = self.seconds if template.cache_seconds is None or self.refused else template.cache_seconds
        return replace(self, seconds=seconds, template=template.label)


OFF = CachePolicy(0)
