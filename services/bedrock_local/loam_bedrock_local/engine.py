"""One Converse request from end to end: checked, answered, cut to its limits, and counted."""

import asyncio
import hashlib
from dataclasses import replace

import orjson

from loam_bedrock_local import tokens, tools, validation
from loam_bedrock_local.answer import Answerer
from loam_bedrock_local.arguments import Filler
from loam_bedrock_local.cache import PromptCache
from loam_bedrock_local.converse import Block, Completion, Reasoning, ToolUse, Usage, output_tokens
from loam_bedrock_local.models import Model
from loam_bedrock_local.obedient import orders
from loam_bedrock_local.prompt import Json, Prompt

# Above this many input tokens an answer takes milliseconds, which streams that are under way should not wait for.
_LONG_PROMPT_TOKENS = 1000


class Engine:
    """Answers Converse requests; whether they are streamed is none of its business."""

    def __init__(self, answerer: Answerer, cache: PromptCache, *, obedient: bool = False) -> None:
        self._answerer = answerer
        self._cache = cache
        self._obedient = obedient

    async def complete(
        self, model: Model, body: Json, scripted: str | None = None, *, obedient: bool = False
    ) -> Completion:
        """The answer to `body`, its text `scripted` where that is given, or what it is told to say to the `obedient`.

        Raises:
            ValidationError: Bedrock would refuse it.
            AccessDeniedError: it asks for a prompt cache that the model has not.
        """
        validation.check(model, body)
        usage = self._cache.usage(model, body)
        prompt = Prompt(body)
        if scripted is not None:
            return _limited([scripted], "end_turn", prompt, usage)
        if (obedient or self._obedient) and (told := orders(body)):
            return _limited(["\n".join(told)], "end_turn", prompt, usage)
        if usage.input < _LONG_PROMPT_TOKENS:
            blocks, stop_reason = self._blocks(model, prompt)
        else:
            blocks, stop_reason = await asyncio.to_thread(self._blocks, model, prompt)
        return _limited(blocks, stop_reason, prompt, usage)

    def _blocks(self, model: Model, prompt: Prompt) -> tuple[list[Block], str]:
        """The whole answer, and why it ends."""
        thoughts: list[Block] = [_thought(prompt)] if model.provider == "anthropic" and prompt.thinks else []
        if tool := tools.choose(prompt):
            call = ToolUse(_tool_use_id(prompt), tool.name, Filler(prompt.told).fill(tool.schema))
            return [*thoughts, call], "tool_use"
        if prompt.output_schema is not None:
            return [*thoughts, orjson.dumps(Filler(prompt.told).fill(prompt.output_schema)).decode()], "end_turn"
        return [*thoughts, self._answerer.answer(prompt)], "end_turn"


def _limited(blocks: list[Block], stop_reason: str, prompt: Prompt, usage: Usage) -> Completion:
    """`blocks` up to the first stop sequence and the limit of tokens."""
    kept: list[Block] = []
    left = prompt.max_tokens
    for block in blocks:
        ended = _stopped(block, prompt.stop_sequences)
        cut = ended if left is None else _cut(ended, left)
        kept.append(cut)
        if cut != ended:
            stop_reason = "max_tokens"
            break
        if ended != block:
            stop_reason = "stop_sequence"
            break
        left = None if left is None else left - output_tokens(block)
    return Completion(tuple(kept), stop_reason, replace(usage, output=sum(map(output_tokens, kept))))


def _stopped(block: Block, stop_sequences: list[str]) -> Block:
    if not isinstance(block, str):
        return block
    return block[: min((block.index(stop) for stop in stop_sequences if stop in block), default=len(block))]


def _cut(block: Block, limit: int) -> Block:
    """`block` in at most `limit` tokens; a tool's input that was cut is no JSON any more."""
    if output_tokens(block) <= limit:
        return block
    match block:
        case str():
            return tokens.truncate(block, limit)
        case Reasoning():
            return replace(block, text=tokens.truncate(block.text, limit))
        case ToolUse():
            room = max(0, limit - tokens.count(block.name))
            return replace(block, input={}, partial=tokens.truncate(block.json, room))


def _thought(prompt: Prompt) -> Reasoning:
    text = f"The question is: {prompt.question} I look for the sentences of the prompt that answer it."
    return Reasoning(text, hashlib.sha256(text.encode()).hexdigest())


def _tool_use_id(prompt: Prompt) -> str:
    """An id like Bedrock's, the same for the same conversation."""
    return f"tooluse_{hashlib.sha256(orjson.dumps(prompt.messages)).hexdigest()[:22]}"
