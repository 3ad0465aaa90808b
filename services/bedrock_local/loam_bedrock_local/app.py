"""Routes: Bedrock's operations under ``/model/``, and the stand-in's own under ``/_local/``."""

import time
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, unquote

import orjson

from loam_bedrock_local import converse, eventstream, faults
from loam_bedrock_local.asgi import Exchange, HungUpError, Receive, Scope, Send
from loam_bedrock_local.auth import Gate
from loam_bedrock_local.billing import Bill, Meter
from loam_bedrock_local.converse import Completion, Usage
from loam_bedrock_local.counting import input_tokens
from loam_bedrock_local.engine import Engine
from loam_bedrock_local.errors import BedrockError, UnknownOperationError, ValidationError
from loam_bedrock_local.faults import Fault, Scenario
from loam_bedrock_local.invoke import Invoker
from loam_bedrock_local.models import Model, resolve
from loam_bedrock_local.prompt import Json

Operation = Callable[[Exchange, Model, Json, Fault], Awaitable[None]]
Control = Callable[[Exchange], Awaitable[None]]


class App:
    """The ASGI application."""

    def __init__(self, gate: Gate, scenario: Scenario, engine: Engine, invoker: Invoker, meter: Meter) -> None:
        self._gate = gate
        self._scenario = scenario
        self._engine = engine
        self._invoker = invoker
        self._meter = meter
        self._operations: dict[str, Operation] = {
            "converse": self._converse,
            "converse-stream": self._converse_stream,
            "invoke": self._invoke,
            "count-tokens": self._count_tokens,
        }
        self._controls: dict[tuple[str, str], Control] = {
            ("GET", "/healthz"): self._health,
            ("GET", "/_local/billed"): self._billed,
            ("DELETE", "/_local/billed"): self._reset_billed,
            ("PUT", "/_local/scenario"): self._play,
            ("DELETE", "/_local/scenario"): self._play,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        exchange = Exchange(scope, receive, send)
        try:
            control = self._controls.get((exchange.method, exchange.path))
            await (control(exchange) if control else self._operate(exchange))
        except BedrockError as error:
            await exchange.refuse(error)
        except HungUpError:
            return

    async def _operate(self, exchange: Exchange) -> None:
        resource, _, name = exchange.path.rpartition("/")
        operation = self._operations.get(name)
        if operation is None or not resource.startswith("/model/") or exchange.method != "POST":
            raise UnknownOperationError(f"No operation at {exchange.method} {exchange.path}")
        raw = await exchange.read()
        self._gate.admit(exchange, raw)
        model = resolve(unquote(resource.removeprefix("/model/")))
        header = exchange.header(faults.HEADER)
        fault = faults.from_header(header) if header else self._scenario.next_fault(model.id, name, raw)
        if fault.delay_ms:
            await exchange.pause(fault.delay_ms / 1000)
        if fault.error_after is None and (error := fault.raised()):
            raise error
        await operation(exchange, model, _parse(raw), fault)

    async def _converse(self, exchange: Exchange, model: Model, body: Json, fault: Fault) -> None:
        started = time.perf_counter()
        completion = await self._engine.complete(model, body, fault.text, obedient=fault.obedient)
        self._meter.bill(model.id, completion.usage, body.get("requestMetadata"))
        answer = converse.document(completion, _elapsed_ms(started), _repeated(body))
        await (exchange.answer(answer) if fault.cut_after is None else exchange.drop(answer))

    async def _converse_stream(self, exchange: Exchange, model: Model, body: Json, fault: Fault) -> None:
        started = time.perf_counter()
        completion = await self._engine.complete(model, body, fault.text, obedient=fault.obedient)
        await exchange.begin(eventstream.CONTENT_TYPE)
        if fault.error_after == 0 and (error := fault.raised()):
            # A model that never began bills nothing, wherever in the answer that is said.
            await exchange.end(converse.exception_event(error))
            return
        bill = self._meter.bill(model.id, completion.usage.without_output(), body.get("requestMetadata"))
        if await self._stream(exchange, bill, completion, fault):
            await exchange.end(converse.metadata_event(completion, _elapsed_ms(started), _repeated(body)))

    async def _stream(self, exchange: Exchange, bill: Bill, completion: Completion, fault: Fault) -> bool:
        """Send all but the last event, billing what is sent; False when a fault ended it early."""
        for sent, (event, output_tokens) in enumerate(converse.events(completion)):
            if sent == fault.cut_after:
                return False
            if sent == fault.error_after and (error := fault.raised()):
                await exchange.end(converse.exception_event(error))
                return False
            if fault.event_delay_ms:
                await exchange.pause(fault.event_delay_ms / 1000)
            bill.output(output_tokens)
            await exchange.chunk(event)
        return True

    async def _invoke(self, exchange: Exchange, model: Model, body: Json, fault: Fault) -> None:
        started = time.perf_counter()
        answer, counted = self._invoker.invoke(model, body)
        self._meter.bill(model.id, Usage(counted, 0))
        if fault.cut_after is not None:
            await exchange.drop(answer)
            return
        await exchange.answer(
            answer,
            (b"x-amzn-bedrock-input-token-count", str(counted).encode()),
            (b"x-amzn-bedrock-invocation-latency", str(_elapsed_ms(started)).encode()),
        )

    async def _count_tokens(self, exchange: Exchange, model: Model, body: Json, _fault: Fault) -> None:
        request = (body.get("input") or {}).get("converse")
        if model.kind != "Chat" or not request:
            raise ValidationError("The provided model doesn't support counting tokens.")
        await exchange.answer({"inputTokens": input_tokens(request)})

    async def _health(self, exchange: Exchange) -> None:
        await exchange.answer({"status": "ok"})

    async def _billed(self, exchange: Exchange) -> None:
        [name] = parse_qs(exchange.query.decode()).get("metadata") or [""]
        by_metadata = {"metadata": self._meter.report_by(name)} if name else {}
        await exchange.answer({"models": self._meter.report()} | by_metadata)

    async def _reset_billed(self, exchange: Exchange) -> None:
        self._meter.reset()
        await exchange.answer({"models": {}})

    async def _play(self, exchange: Exchange) -> None:
        script = faults.script(await exchange.read() or b"{}")
        self._scenario.play(script)
        await exchange.answer(script.model_dump(by_alias=True))


def _parse(raw: bytes) -> Json:
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValidationError(f"Malformed input request: {error}, please reformat your input and try again.") from error
    if not isinstance(parsed, dict):
        raise ValidationError("Malformed input request: expected an object, please reformat your input and try again.")
    return parsed


def _elapsed_ms(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)


def _repeated(body: Json) -> Json:
    """What Converse repeats of the request."""
    return {name: body[name] for name in ("performanceConfig", "serviceTier") if name in body}
