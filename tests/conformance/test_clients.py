"""The official OpenAI clients, for Python and for Node.js, with Loam as their base URL."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import openai
import pytest
from pydantic import BaseModel

from ..services.gateway._platform import eventually, say

NODE = Path(__file__).with_name("node")
SLOW = "take your time"
CHAT = {"model": "haiku", "messages": say("Say hello.")}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


@pytest.fixture
def poor(gateway):
    made = gateway.new_tenant(budget={"monthlyUsd": "0"})
    yield made
    made.close()


@pytest.fixture
def busy(gateway):
    made = gateway.new_tenant(rateLimit={"concurrentRequests": 1})
    yield made
    made.close()


@pytest.fixture
def slow(faults):
    faults({"contains": SLOW, "fault": {"delayMs": 1500}})


def missing(what: str) -> None:
    """Skip, but in CI, where everything has to be there."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def node_client() -> Path:
    """The folder with the Node.js client and the tests of it, installed as the lock file says."""
    if not (shutil.which("node") and shutil.which("npm")):
        missing("there is no node and npm here; install Node.js 18 or newer")
    lock = (NODE / "package-lock.json").read_bytes()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loam" / "node"
    folder = base / hashlib.sha256(lock).hexdigest()[:16]
    if not folder.exists():
        base.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=base))
        for name in ("package.json", "package-lock.json"):
            shutil.copy(NODE / name, fresh)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            shutil.rmtree(fresh)
            missing(f"npm could not install the client: {done.stderr[-500:]}")
        try:
            fresh.rename(folder)
        except OSError:
            # Another run was faster.
            shutil.rmtree(fresh)
    return folder


@pytest.fixture
def node_folder(node_client, tmp_path) -> Path:
    """Where the tests lie beside what they import."""
    shutil.copy(NODE / "openai.test.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(node_client / "node_modules")
    return tmp_path


@pytest.fixture
def node_environment(gateway, tenant, poor, busy) -> dict[str, str]:
    return os.environ | {
        "LOAM_URL": f"{gateway.public}/v1",
        "LOAM_KEY": tenant.new_key(),
        "LOAM_NARROW_KEY": tenant.new_key(scopes=("ai:embed",)),
        "LOAM_POOR_KEY": poor.new_key(),
        "LOAM_BUSY_KEY": busy.new_key(),
        "LOAM_SLOW": SLOW,
    }


@pytest.mark.usefixtures("slow")
def test_the_client_for_node_works_as_with_openai(node_folder, node_environment, tenant, query):
    command = ["node", "--test", "--test-reporter=tap", "openai.test.mjs"]
    done = subprocess.run(
        command, cwd=node_folder, env=node_environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "# pass 9\n" in done.stdout
    nothing_is_held(query, tenant)


def nothing_is_held(query, tenant):
    sql = "SELECT 1 FROM accounts WHERE tenant = $1 AND held > 0"
    eventually(lambda: query(sql, tenant.name) == [], "something stayed held")


def test_a_stream_says_the_same_as_the_helper_gathers(tenant):
    client = tenant.client()
    with client.chat.completions.stream(**CHAT) as stream:
        events = [event.type for event in stream]
        gathered = stream.get_final_completion()
    assert events[-1] == "content.done" or "content.done" in events
    plain = client.chat.completions.create(**CHAT)
    assert gathered.choices[0].message.content == plain.choices[0].message.content


def test_tools_are_called_and_their_arguments_stream(tenant):
    client = tenant.client()
    ask = {"model": "haiku", "messages": say("What is the weather in Lisbon?"), "tools": [WEATHER]}
    asked = client.chat.completions.create(**ask, tool_choice="required").choices[0]
    assert asked.finish_reason == "tool_calls"
    [call] = asked.message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}
    turns = [*ask["messages"], asked.message, result]
    assert client.chat.completions.create(model="haiku", messages=turns, tools=[WEATHER]).choices[0].message.content
    with client.chat.completions.stream(**ask, tool_choice="required") as stream:
        [streamed] = stream.get_final_completion().choices[0].message.tool_calls
    assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)


class City(BaseModel):
    city: str
    inhabitants: int


def test_an_answer_is_parsed_by_a_pydantic_model(tenant):
    parsed = tenant.client().chat.completions.parse(
        model="haiku", messages=say("Lisbon has 550000 inhabitants."), response_format=City
    )
    assert isinstance(parsed.choices[0].message.parsed, City)


def test_embeddings_are_the_same_as_floats_and_as_base64(tenant):
    client = tenant.client()
    ask = {"model": "embedder", "input": ["one", "two"]}
    packed = client.embeddings.create(**ask)
    plain = client.embeddings.create(**ask, encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


def test_errors_are_raised_as_the_clients_own_classes(tenant, poor):
    client = tenant.client()
    with pytest.raises(openai.AuthenticationError):
        tenant.client("loam_wrong").chat.completions.create(**CHAT)
    with pytest.raises(openai.PermissionDeniedError):
        tenant.client(tenant.new_key(scopes=("ai:embed",))).chat.completions.create(**CHAT)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**CHAT | {"model": "nothing"})
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**CHAT | {"temperature": 3})
    assert refused.value.param == "temperature"
    with pytest.raises(openai.APIStatusError) as broke:
        poor.client().chat.completions.create(**CHAT)
    assert (broke.value.status_code, broke.value.code) == (402, "budget_exceeded")
    assert broke.value.request_id


async def test_a_rate_limit_is_an_error_of_its_own_and_retry_after_is_waited_for(busy, slow, gateway):
    key = busy.new_key()
    async with busy.async_client(key) as client:
        first = asyncio.create_task(client.chat.completions.create(model="haiku", messages=say(SLOW)))
        await asyncio.sleep(0.3)
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(**CHAT)
        assert refused.value.response.headers["retry-after"] == "1"
        patient = client.with_options(max_retries=3)
        assert (await patient.chat.completions.create(**CHAT)).choices[0].message.content
        await first


def test_an_aborted_stream_is_settled(tenant, query, faults):
    faults({"contains": tenant.name, "fault": {"text": "word " * 50, "eventDelayMs": 50}})
    stream = tenant.client().chat.completions.create(**CHAT, stream=True)
    next(stream)
    stream.close()
    sql = "SELECT outcome FROM entries WHERE tenant = $1"
    eventually(lambda: [row["outcome"] for row in query(sql, tenant.name)] == ["cut"], "it was not settled")
    nothing_is_held(query, tenant)
