"""The engine of the stand-in, without the HTTP around it."""

import pytest

from loam_bedrock_local.answer import Answerer
from loam_bedrock_local.cache import PromptCache
from loam_bedrock_local.embedder import Embedder
from loam_bedrock_local.engine import Engine
from loam_bedrock_local.models import resolve

HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="session")
def embedder():
    return Embedder()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def engine(embedder, clock):
    return Engine(Answerer(embedder), PromptCache(clock))


@pytest.fixture
def complete(engine):
    """Answer one user text: a Completion."""

    async def ask(text, system="", model=HAIKU, messages=(), **more):
        body = {"messages": [*messages, {"role": "user", "content": [{"text": text}]}], **more}
        return await engine.complete(resolve(model), body | ({"system": [{"text": system}]} if system else {}))

    return ask


@pytest.fixture
def answer(complete):
    """The text of the answer to one user text."""

    async def ask(text, system="", **more):
        (block,) = (await complete(text, system, **more)).blocks
        return block

    return ask
