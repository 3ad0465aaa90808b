"""Do the citations of answers support them? Checked by a rule that anybody can follow, not by a model.

A citation supports the sentence that it follows when

1. its quote stands word for word in the cited document at the span it names, and
2. the quote holds at least half of the sentence's content words, by their stems.

An answer is supported when it has citations and each of them supports its sentence. One without any counts as declined.
The rule sees words, not sense: a sentence that turns its quote into the opposite passes, and a fair paraphrase in other
words fails.
"""

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Protocol

import aiohttp
from pydantic import BaseModel, ConfigDict, ValidationError

from loam_bedrock_local.answer import Answerer
from loam_bedrock_local.embedder import Embedder as Table
from loam_bedrock_local.prompt import Prompt
from loam_bedrock_local.words import terms
from loam_evaluation.errors import EvaluationError
from loam_evaluation.library import Library
from loam_evaluation.progress import Steps
from loam_evaluation.spans import Question, QuestionSet
from loam_ingestion.parsing import Extracted
from loam_retrieval import prompt
from loam_retrieval.citations import Citer
from loam_retrieval.pipeline import Generation, Retrieval
from loam_retrieval.settings import Settings
from loam_shared.contracts.retrieval import Citation, Message

_MARKER = re.compile(r"\[(\d{1,3})\]")
_SENTENCE_END = re.compile(r"(?<=[.!?\u2026])[\"')\u201d]*\s+")
_LEAST_SHARE = 0.5
_PROMPT_TOKENS = Settings.model_fields["prompt_tokens"].default
_AT_ONCE = 4


class Answer(BaseModel):
    """The text, in which ``[n]`` marks the n-th citation."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    content: str
    citations: list[Citation] = []


class Answering(Protocol):
    """Something that answers questions about a set of documents."""

    async def __call__(self, question: str) -> Answer:
        """Raises EvaluationError."""


@dataclass(frozen=True)
class Here:
    """Search, prompt and citations as in a pipeline; the words are those of the local stand-in, quotes."""

    library: Library
    model: Answerer = field(default_factory=lambda: Answerer(Table()))

    async def __call__(self, question: str) -> Answer:
        """The answer that the local platform would give."""
        settings = Retrieval()
        found = await self.library.search(question, settings.mode, settings.top_k, settings.candidates)
        said = [Message(role="user", content=question)]
        asked, passages = prompt.Prompt(Generation(model="local"), said, _PROMPT_TOKENS).with_sources(found)
        system, user = ({"text": message["content"]} for message in asked["messages"])
        written = self.model.answer(Prompt({"system": [system], "messages": [{"role": "user", "content": [user]}]}))
        citer = Citer(passages)
        pieces = [*citer.feed(written), *citer.end()]
        return Answer(
            content="".join(piece for piece in pieces if isinstance(piece, str)),
            citations=[piece for piece in pieces if isinstance(piece, Citation)],
        )


@dataclass(frozen=True)
class Platform:
    """A pipeline of a running platform, in which the folder's documents are indexed already."""

    url: str
    api_key: str
    pipeline: str

    @classmethod
    def of_environment(cls, pipeline: str) -> "Platform":
        """By LOAM_URL and LOAM_API_KEY. Raises EvaluationError."""
        url, api_key = os.environ.get("LOAM_URL"), os.environ.get("LOAM_API_KEY")
        if not url or not api_key:
            raise EvaluationError("answers of a pipeline need a gateway: set LOAM_URL and LOAM_API_KEY")
        return cls(url.rstrip("/"), api_key, pipeline)

    async def __call__(self, question: str) -> Answer:
        """The pipeline's answer."""
        body = {"messages": [{"role": "user", "content": question}]}
        headers, timeout = {"authorization": f"Bearer {self.api_key}"}, aiohttp.ClientTimeout(total=300)
        try:
            async with (
                aiohttp.ClientSession(headers=headers, timeout=timeout) as http,
                http.post(f"{self.url}/v1/pipelines/{self.pipeline}/chat", json=body) as response,
            ):
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise EvaluationError(f"the gateway at {self.url} does not answer: {error}") from error
        try:
            return Answer.model_validate(answer)
        except ValidationError as error:
            said = answer.get("error", {}).get("message") if isinstance(answer, dict) else None
            raise EvaluationError(f"pipeline {self.pipeline}: {said or 'an answer of another shape'}") from error


@dataclass(frozen=True)
class Verdict:
    """What one answer is worth; `cites_right_passage` when a citation overlaps a span that answers the question."""

    declined: bool
    supported: bool
    cites_right_passage: bool


async def judged(questions: QuestionSet, answering: Answering) -> list[Verdict]:
    """A verdict for each question, a few asked at once."""
    steps, places = Steps("answers", len(questions.questions)), asyncio.Semaphore(_AT_ONCE)

    async def one(question: Question) -> Verdict:
        async with places:
            found = verdict(question, await answering(question.text), questions.documents)
        steps(1)
        return found

    verdicts = await asyncio.gather(*(one(question) for question in questions.questions))
    steps.end()
    return verdicts


def verdict(question: Question, answer: Answer, documents: dict[str, Extracted]) -> Verdict:
    """By the rule above; documents are named as their files are, with or without an ending."""
    claims = _claims(answer)
    return Verdict(
        declined=not answer.citations,
        supported=bool(claims) and all(_supports(citation, claim, documents) for claim, citation in claims),
        cites_right_passage=any(_overlaps(citation, question) for citation in answer.citations),
    )


def shares(verdicts: Sequence[Verdict]) -> dict[str, float | int]:
    """Of all questions: answered, declined. Of the answered: supported, citing the right passage. From 0 to 1."""
    answered = [one for one in verdicts if not one.declined]
    return {
        "questions": len(verdicts),
        "answered": _share(len(answered), len(verdicts)),
        "declined": _share(len(verdicts) - len(answered), len(verdicts)),
        "supported": _share(sum(one.supported for one in answered), len(answered)),
        "cites_right_passage": _share(sum(one.cites_right_passage for one in answered), len(answered)),
    }


def _claims(answer: Answer) -> list[tuple[str, Citation]]:
    """Each marker's sentence with its citation. One that no marker names is held against the whole answer."""
    claims, end, sentence, named = [], 0, "", set()
    for marker in _MARKER.finditer(answer.content):
        between = answer.content[end : marker.start()].strip()
        # Several markers in a row stand for the same sentence.
        sentence = _SENTENCE_END.split(between)[-1] if between else sentence
        end = marker.end()
        number = int(marker[1])
        if 1 <= number <= len(answer.citations):
            named.add(number)
            claims.append((sentence, answer.citations[number - 1]))
    whole = _MARKER.sub("", answer.content)
    return claims + [(whole, one) for number, one in enumerate(answer.citations, 1) if number not in named]


def _supports(citation: Citation, claim: str, documents: dict[str, Extracted]) -> bool:
    document = documents.get(PurePath(citation.source).stem) or documents.get(citation.source)
    if document is None or document.text[citation.span.start : citation.span.end] != citation.quote:
        return False
    claimed = set(terms(claim))
    return len(claimed & set(terms(citation.quote))) >= _LEAST_SHARE * len(claimed)


def _overlaps(citation: Citation, question: Question) -> bool:
    return PurePath(citation.source).stem == question.document and any(
        citation.span.start < end and start < citation.span.end for start, end in question.references
    )


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
