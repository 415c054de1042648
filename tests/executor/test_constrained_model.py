"""A random model under a grammar: all calls and documents are valid, greedy and drawn, in a batch."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import pytest_asyncio

from service.errors import BadRequest
from service.events import Done, Event, ToolCallDelta, ToolCallStarted
from service.executor.base import collect
from service.executor.mlx_executor import MlxExecutor
from service.generation import (
    Choice,
    Completion,
    GenerationRequest,
    Message,
    ResponseFormat,
    SamplingParams,
    Tool,
    ToolChoice,
)
from tests.executor.demo_executor import demo_executor

pytestmark = pytest.mark.model

in_module_loop = pytest.mark.asyncio(loop_scope="module")

CITIES = ("Paris", "Rome", "Oslo", "Zürich", "São Paulo")
WEATHER = Tool(
    name="get_weather",
    description="The weather in a city.",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string", "minLength": 2, "maxLength": 16},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
        },
        "required": ["city", "days"],
    },
)
TIME = Tool(
    name="get_time",
    parameters={
        "type": "object",
        "properties": {"zone": {"type": "string", "maxLength": 12}},
        "required": ["zone"],
        "additionalProperties": False,
    },
)
TOOLS = (WEATHER, TIME)
CITY = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "size": {"enum": ["small", "large"]},
        "place": {
            "type": "object",
            "properties": {
                "north": {"type": "boolean"},
                "height": {"type": "integer", "minimum": 0, "maximum": 4000},
            },
            "required": ["north", "height"],
        },
        "marks": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": 6},
            "minItems": 1,
            "maxItems": 3,
        },
    },
    "required": ["name", "size", "place", "marks"],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MlxExecutor]:
    async with demo_executor(tiny_model, tmp_path_factory.mktemp("home"), max_concurrency=len(CITIES)) as executor:
        yield executor


def asked(text: str, **fields: Any) -> GenerationRequest:
    return GenerationRequest(messages=(Message(role="user", content=text),), **{"max_tokens": 600, **fields})


async def ask_all(executor: MlxExecutor, template: str, **fields: Any) -> list[Choice]:
    """One answer for each city: every other is drawn, with a seed."""

    async def ask(i: int, city: str) -> Completion:
        sampling = SamplingParams(temperature=0.8, seed=i) if i % 2 else SamplingParams()
        answer = await executor.submit(asked(template.format(city), sampling=sampling, **fields))
        return await collect(answer.events())

    completions = await asyncio.gather(*(ask(i, city) for i, city in enumerate(CITIES)))
    return [completion.choices[0] for completion in completions]


@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("required", "get_weather")])
@in_module_loop
async def test_calls_that_are_demanded_are_valid(executor: MlxExecutor, choice: ToolChoice) -> None:
    schemas = {tool.name: tool.parameters for tool in TOOLS}
    answers = await ask_all(executor, "How is the weather in {}?", tools=TOOLS, tool_choice=choice)
    assert len(answers) == len(CITIES)
    for answer in answers:
        (call,) = answer.tool_calls
        assert (answer.finish_reason, answer.text) == ("tool_calls", "")
        assert choice.name in ("", call.name)
        jsonschema.validate(json.loads(call.arguments), schemas[call.name])
    tally = executor.status().tool_calls
    assert (tally.mismatched, tally.repaired, tally.broken) == (0, 0, 0)


@in_module_loop
async def test_documents_are_valid(executor: MlxExecutor) -> None:
    wanted = ResponseFormat(kind="json_schema", schema=CITY)
    answers = await ask_all(executor, "Describe {} as JSON.", response_format=wanted)
    assert [answer.finish_reason for answer in answers] == ["stop"] * len(CITIES)
    for answer in answers:
        jsonschema.validate(json.loads(answer.text), CITY)


@in_module_loop
async def test_any_json_object(executor: MlxExecutor) -> None:
    request = asked("Describe Paris.", response_format=ResponseFormat(kind="json_object"))
    choice = (await collect((await executor.submit(request)).events())).choices[0]
    assert choice.finish_reason == "stop"
    assert isinstance(json.loads(choice.text), dict)


@in_module_loop
async def test_neighbours_in_the_batch_are_not_constrained(executor: MlxExecutor) -> None:
    plain = asked("What is the capital of France?", max_tokens=12)
    forced = asked("What is the capital of France?", response_format=ResponseFormat(kind="json_schema", schema=CITY))
    alone = await collect((await executor.submit(plain)).events())
    answers = await asyncio.gather(*(executor.submit(request) for request in (plain, forced, plain)))
    first, document, second = await asyncio.gather(*(collect(answer.events()) for answer in answers))
    assert first.choices[0].text == second.choices[0].text == alone.choices[0].text
    jsonschema.validate(json.loads(document.choices[0].text), CITY)


@in_module_loop
async def test_a_seed_gives_the_same_document_again(executor: MlxExecutor) -> None:
    request = asked(
        "Describe Rome.",
        response_format=ResponseFormat(kind="json_schema", schema=TIME.parameters),
        sampling=SamplingParams(temperature=1.0, top_p=0.9, seed=5),
    )
    texts = [(await collect((await executor.submit(request)).events())).choices[0].text for _ in range(2)]
    assert texts[0] == texts[1]


@in_module_loop
async def test_logprobs_are_of_what_was_allowed(executor: MlxExecutor) -> None:
    schema = {"enum": ["red", "green"]}
    request = asked("A colour?", response_format=ResponseFormat(kind="json_schema", schema=schema), logprobs=5)
    choice = (await collect((await executor.submit(request)).events())).choices[0]
    assert choice.text in ('"red"', '"green"')
    assert choice.logprobs is not None
    assert "".join(token.token for token in choice.logprobs) == choice.text
    for token in choice.logprobs:
        assert 1 <= len(token.top) <= 5
        assert all(top.logprob > float("-inf") for top in token.top)
        assert token.top[0].logprob == token.logprob


@in_module_loop
async def test_what_does_not_fit_max_tokens_is_told_as_it_is(executor: MlxExecutor) -> None:
    document = asked("Rome?", response_format=ResponseFormat(kind="json_schema", schema=CITY), max_tokens=6)
    cut = (await collect((await executor.submit(document)).events())).choices[0]
    assert cut.finish_reason == "length"
    assert cut.text.startswith("{")
    call = asked("Weather in Rome?", tools=TOOLS, tool_choice=ToolChoice("required"), max_tokens=18)
    choice = (await collect((await executor.submit(call)).events())).choices[0]
    assert (choice.finish_reason, choice.tool_calls) == ("length", ())
    assert choice.text.startswith("<tool_call>")
    assert executor.status().tool_calls.cut == 1


@in_module_loop
async def test_a_schema_that_cannot_be_enforced_is_refused_before_anything_runs(executor: MlxExecutor) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    with pytest.raises(BadRequest, match="uniqueItems"):
        await executor.submit(asked("x", response_format=ResponseFormat(kind="json_schema", schema=schema)))
    assert executor.status().running == executor.status().waiting == 0


@in_module_loop
async def test_a_document_that_was_begun_goes_on(executor: MlxExecutor) -> None:
    begun = (Message(role="user", content="Describe Rome."), Message(role="assistant", content='{"name": "Ro'))
    wanted = ResponseFormat(kind="json_schema", schema=CITY)
    request = GenerationRequest(messages=begun, response_format=wanted, max_tokens=600)
    choice = (await collect((await executor.submit(request)).events())).choices[0]
    jsonschema.validate(json.loads('{"name": "Ro' + choice.text), CITY)


@in_module_loop
async def test_arguments_arrive_while_the_call_is_written(executor: MlxExecutor) -> None:
    """Each event comes with the token that made it known: the name and the first arguments with tokens long before the
    last. A second request runs beside it, and what it has written meanwhile is the clock."""
    clock = await executor.submit(asked("Tell a long story.", max_tokens=150))
    request = asked("Weather in Rome?", tools=TOOLS, tool_choice=ToolChoice("required", "get_weather"))
    call = await executor.submit(request)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        async for _ in clock.events():
            ticks += 1

    ticking = asyncio.ensure_future(tick())
    seen: list[tuple[int, Event]] = [(ticks, event) async for event in call.events()]
    ticking.cancel()
    await asyncio.wait([ticking])
    await clock.aclose()
    assert isinstance(seen[-1][1], Done)
    started = next(at for at, event in seen if isinstance(event, ToolCallStarted))
    deltas = [at for at, event in seen if isinstance(event, ToolCallDelta)]
    assert started < deltas[-1]
    assert deltas[0] + 3 < deltas[-1]
    assert len(deltas) >= 5
