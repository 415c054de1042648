"""Web searches in Anthropic's messages, whole and streamed, read by Anthropic's own client."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from anthropic.types import Message

from service.app import create_app
from service.errors import AnswerLost, ServiceError
from service.events import Event, ReasoningDelta, ToolCallDelta, ToolCallStarted
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest
from tests.patience import PATIENCE_SECONDS
from tests.serving import RawRequest, running, settings
from tests.web_search.stand_in import Respond, SearchEngine, hangs, search_engine, sends

SEARCH = {"type": "web_search_20250305", "name": "web_search"}
CLOCK = {"name": "clock", "input_schema": {"type": "object"}}
ASKED = {
    "model": "claude-x",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Which town?"}],
    "tools": [SEARCH],
}


def call(name: str = "web_search", arguments: str = '{"query":"towns"}', call_id: str = "c") -> list[str | Event]:
    return [ToolCallStarted(0, call_id, name), ToolCallDelta(0, arguments[:5]), ToolCallDelta(0, arguments[5:])]


class Steps:
    """A script that plays one list after another; the last for all further requests. It raises errors in them."""

    def __init__(self, *steps: Sequence[str | Event | ServiceError]) -> None:
        self._steps = list(steps)

    async def __call__(self, request: GenerationRequest) -> AsyncIterator[str | Event]:
        for item in self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]:
            if isinstance(item, ServiceError):
                raise item
            yield item


class Searching:
    def __init__(self, executor: ScriptedExecutor, engine: SearchEngine, client: AsyncAnthropic) -> None:
        self.executor, self.engine, self.client = executor, engine, client
        self.cache_status = ""

    async def ask(self, stream: bool = False, **fields: Any) -> Message:
        body: dict[str, Any] = ASKED | fields
        if stream:
            async with self.client.messages.stream(**body) as events:
                self.cache_status = events.response.headers["cache-status"]
                return await events.get_final_message()
        response = await self.client.messages.with_raw_response.create(**body)
        self.cache_status = response.headers["cache-status"]
        return await response.parse()


@asynccontextmanager
async def searching(
    tmp_path: Path, *steps: Sequence[str | Event | ServiceError], respond: Respond | None = None
) -> AsyncIterator[Searching]:
    executor = ScriptedExecutor(Steps(*steps))
    async with search_engine(respond or sends()) as engine:
        configured = settings(tmp_path, web_search_url=engine.url)
        async with (
            running(create_app(configured, executor=executor), configured) as url,
            AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as client,
        ):
            yield Searching(executor, engine, client)


def blocks(message: Message) -> list[dict[str, Any]]:
    return [block.to_dict() for block in message.content]


FOUND = [
    {
        "type": "web_search_result",
        "url": "https://www.bern.example/old-town",
        "title": "Bern",
        "encrypted_content": "The capital.",
        "page_age": "2026-01-02",
    },
    {
        "type": "web_search_result",
        "url": "https://zurich.example/",
        "title": "Zurich",
        "encrypted_content": "",
        "page_age": None,
    },
]
SEARCHED = [
    {"type": "server_tool_use", "id": "srvtoolu_c", "name": "web_search", "input": {"query": "towns"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_c", "content": FOUND},
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_server_searches_and_the_model_goes_on(tmp_path: Path, stream: bool) -> None:
    first: list[str | Event] = [ReasoningDelta(0, "Hm."), "Let me ", "look.", *call()]
    async with searching(tmp_path, first, ["Bern ", "it is."]) as it:
        message = await it.ask(stream)
        request = it.executor.submitted[-1]
    thinking, before, *searched, after = blocks(message)
    assert (thinking["thinking"], before["text"], after["text"]) == ("Hm.", "Let me look.", "Bern it is.")
    assert searched == SEARCHED
    assert message.stop_reason == "end_turn"
    assert message.usage.server_tool_use
    assert message.usage.server_tool_use.web_search_requests == 1
    assert message.usage.output_tokens == len(first) + 2
    assert it.engine.queries == ["towns"]
    said, result = request.messages[-2:]
    assert (said.content, said.reasoning, said.tool_calls[0].name) == ("Let me look.", "Hm.", "web_search")
    assert result.content == (
        "Bern\nhttps://www.bern.example/old-town\nThe capital.\n\nZurich\nhttps://zurich.example/"
    )
    assert request.max_tokens == 50 - len(first)


async def test_a_step_that_the_engine_loses_is_generated_again(tmp_path: Path) -> None:
    lost: list[str | Event | ServiceError] = ["Bern ", AnswerLost("It died.")]
    async with searching(tmp_path, lost, call(), lost, ["Bern ", "it is."]) as it:
        assert blocks(await it.ask())[-1]["text"] == "Bern it is."


async def test_the_stream_has_whole_blocks_in_order(tmp_path: Path) -> None:
    async with searching(tmp_path, ["Hm. ", *call()], ["Bern."]) as it:
        streamed = await it.client.messages.create(**ASKED, stream=True)  # type: ignore[call-overload]
        events = [event.to_dict() async for event in streamed]
    shown = [
        (event["type"], event.get("index"), (event.get("content_block") or event.get("delta") or {}).get("type"))
        for event in events
    ]
    assert shown == [
        ("message_start", None, None),
        ("content_block_start", 0, "text"),
        ("content_block_delta", 0, "text_delta"),
        ("content_block_stop", 0, None),
        ("content_block_start", 1, "server_tool_use"),
        ("content_block_delta", 1, "input_json_delta"),
        ("content_block_stop", 1, None),
        ("content_block_start", 2, "web_search_tool_result"),
        ("content_block_stop", 2, None),
        ("content_block_start", 3, "text"),
        ("content_block_delta", 3, "text_delta"),
        ("content_block_stop", 3, None),
        ("message_delta", None, None),
        ("message_stop", None, None),
    ]


async def test_nothing_of_a_search_is_stored(tmp_path: Path) -> None:
    async with searching(tmp_path, call(), ["Bern."], call(), ["Zurich."]) as it:
        first, second = await it.ask(), await it.ask()
    assert (blocks(first)[-1]["text"], blocks(second)[-1]["text"]) == ("Bern.", "Zurich.")
    assert it.cache_status == "anyclaude; fwd=bypass"
    assert it.engine.queries == ["towns", "towns"]


async def test_a_call_of_the_client_ends_the_answer(tmp_path: Path) -> None:
    async with searching(tmp_path, [*call(), *call("clock", "{}", "d")]) as it:
        message = await it.ask(tools=[SEARCH, CLOCK])
    kinds = [block["type"] for block in blocks(message)]
    assert sorted(kinds) == ["server_tool_use", "tool_use", "web_search_tool_result"]
    assert message.stop_reason == "tool_use"
    assert len(it.executor.submitted) == 1


async def test_searches_end_at_their_limit(tmp_path: Path) -> None:
    async with searching(tmp_path, call(), call(), ["Enough."]) as it:
        message = await it.ask(tools=[SEARCH | {"max_uses": 1}], tool_choice={"type": "any"})
    shown = blocks(message)
    assert shown[:2] == SEARCHED
    assert shown[3]["content"] == {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}
    assert shown[4]["text"] == "Enough."
    assert message.usage.server_tool_use
    assert message.usage.server_tool_use.web_search_requests == 1
    assert [request.tool_choice.mode for request in it.executor.submitted] == ["required", "auto", "auto"]
    assert [len(request.tools) for request in it.executor.submitted] == [1, 1, 0]


async def test_a_model_that_never_stops_searching_is_stopped(tmp_path: Path) -> None:
    async with searching(tmp_path, call()) as it:
        message = await it.ask(max_tokens=1000)
    assert len(it.engine.queries) == 10
    assert message.stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("arguments", "respond", "code"),
    [
        ('{"query":"towns"}', sends(status="500 Oops"), "unavailable"),
        ('{"query":1}', sends(), "invalid_tool_input"),
        ("{}", sends(), "invalid_tool_input"),
    ],
)
async def test_a_failed_search_is_an_error_block(tmp_path: Path, arguments: str, respond: Respond, code: str) -> None:
    async with searching(tmp_path, call(arguments=arguments), ["No luck."], respond=respond) as it:
        message = await it.ask()
    assert blocks(message)[1]["content"] == {"type": "web_search_tool_result_error", "error_code": code}
    assert message.usage.server_tool_use is None
    assert it.executor.submitted[-1].messages[-1].is_error


async def test_a_client_that_leaves_ends_the_search(tmp_path: Path) -> None:
    executor = ScriptedExecutor(Steps(call()))
    async with search_engine(hangs) as engine:
        app = create_app(settings(tmp_path, web_search_url=engine.url), executor=executor)
        request = RawRequest("/v1/messages", json.dumps(ASKED).encode())
        running_request = asyncio.create_task(request.run(app))
        await asyncio.wait_for(engine.was_asked.wait(), PATIENCE_SECONDS)
        request.disconnect()
        await asyncio.wait_for(running_request, PATIENCE_SECONDS)
    assert (request.sent, len(executor.submitted), executor.running) == ([], 1, 0)


async def test_max_tokens_counts_all_steps(tmp_path: Path) -> None:
    async with searching(tmp_path, call(), ["one ", "two ", "three "]) as it:
        cut = await it.ask(max_tokens=5)
    assert (cut.stop_reason, blocks(cut)[-1]["text"]) == ("max_tokens", "one two ")


async def test_without_the_tool_nothing_changes(tmp_path: Path) -> None:
    async with searching(tmp_path, ["Bern."]) as it:
        await it.ask(tools=[])
        await it.ask(tools=[])
    assert it.cache_status.startswith("anyclaude; hit")
