"""A question, and what it leans on."""

from collections.abc import Sequence
from dataclasses import dataclass

from loam_shared.contracts.retrieval import Message
from loam_shared.errors import InvalidRequestError

_SHORT_WORDS = 6
# Characters; embedding models take little more.
_LONGEST_SEARCH = 20_000


@dataclass(frozen=True)
class Question:
    """What to search for: the question as it was asked, and where one came before it, also behind that one.

    A follow-up ("And for contractors?") finds little by itself; a change of subject finds the wrong thing behind the
    question before it. So both are searched for, whatever the language. `earlier` is the whole conversation before.
    """

    text: str
    in_context: str | None = None
    earlier: Sequence[Message] = ()

    @property
    def standalone(self) -> str:
        """One text that says it: the question itself, unless it is too short to stand alone."""
        is_short = len(self.text.split()) <= _SHORT_WORDS
        return self.in_context if self.in_context and is_short else self.text

    @classmethod
    def of(cls, messages: Sequence[Message]) -> "Question":
        """The last message's question. Raises InvalidRequestError unless it is the user's and says something."""
        last = messages[-1]
        if last.role != "user" or not last.content.strip():
            raise InvalidRequestError("messages: the last one must be the user's question", param="messages")
        text = last.content[:_LONGEST_SEARCH]
        before = next((message.content for message in reversed(messages[:-1]) if message.role == "user"), "")
        room = _LONGEST_SEARCH - len(text) - 1
        in_context = f"{before} {text}" if before.strip() and len(before) <= room else None
        return cls(text, in_context, messages[:-1])
