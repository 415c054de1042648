"""Web searches in OpenAI's responses, whole and streamed, read by OpenAI's own client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from service.app import create_app
from service.events import Event
from service.executor.scripted import ScriptedExecutor
from tests.serving import running, settings
from tests.web_search.stand_in import Respond, SearchEngine, search_engine, sends
from tests.web_search.test_messages import Steps, call

SEARCH: Any = {"type": "web_search"}
ASKED: dict[str, Any] = {"model": "default", "input": "Which town?", "tools": [SEARCH]}
SOURCES = ["https://www.bern.example/old-town", "https://zurich.example/"]
FOUND = [
    {"url": SOURCES[0], "title": "Bern", "snippet": "The capital."},
    {"url": SOURCES[1], "title": "Zurich", "snippet": ""},
]


class Searching:
    def __init__(self, executor: ScriptedExecutor, engine: SearchEngine, client: AsyncOpenAI) -> None:
        self.executor, self.engine, self.client = executor, engine, client


@asynccontextmanager
async def searching(
    tmp_path: Path, *steps: list[str | Event], respond: Respond | None = None, searches: bool = True
) -> AsyncIterator[Searching]:
    executor = ScriptedExecutor(Steps(*steps))
    async with search_engine(respond or sends()) as engine:
        configured = settings(tmp_path, web_search_url=engine.url if searches else "")
        async with (
            running(create_app(configured, executor=executor), configured) as url,
            AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client,
        ):
            yield Searching(executor, engine, client)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_server_searches_and_the_model_goes_on(tmp_path: Path, stream: bool) -> None:
    async with searching(tmp_path, ["Let me ", "look.", *call()], ["Bern ", "it is."]) as it:
        if stream:
            async with it.client.responses.stream(**ASKED) as events:
                response: Any = await events.get_final_response()
        else:
            response = await it.client.responses.create(**ASKED)
    before, searched, after = response.output
    assert (before.content[0].text, after.content[0].text) == ("Let me look.", "Bern it is.")
    assert (searched.status, searched.action.type, searched.action.query) == ("completed", "search", "towns")
    assert [source.url for source in searched.action.sources] == SOURCES
    assert searched.to_dict()["results"] == FOUND
    assert it.engine.queries == ["towns"]


async def test_the_stream_has_every_event_of_a_search_in_order(tmp_path: Path) -> None:
    async with searching(tmp_path, call(), ["Bern."]) as it:
        stream = await it.client.responses.create(**ASKED, stream=True)
        events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [(event.type, getattr(event, "output_index", None)) for event in events[2:8]] == [
        ("response.output_item.added", 0),
        ("response.web_search_call.in_progress", 0),
        ("response.web_search_call.searching", 0),
        ("response.web_search_call.completed", 0),
        ("response.output_item.done", 0),
        ("response.output_item.added", 1),
    ]


async def test_the_next_turn_knows_what_was_found(tmp_path: Path) -> None:
    async with searching(tmp_path, call(), ["Bern."], ["Yes."]) as it:
        first = await it.client.responses.create(**ASKED)
        await it.client.responses.create(model="default", input="Sure?", previous_response_id=first.id)
        messages = it.executor.submitted[-1].messages
    assert "The capital." in messages[1].content
    assert messages[1].content.endswith("Bern.")


async def test_a_forced_search_has_its_filters_and_its_limit(tmp_path: Path) -> None:
    tool = {**SEARCH, "filters": {"allowed_domains": ["zurich.example"]}}
    async with searching(tmp_path, call(), call(), ["Enough."]) as it:
        response: Any = await it.client.responses.create(
            **{**ASKED, "tools": [tool]}, tool_choice={"type": "web_search"}, max_tool_calls=1
        )
        assert it.executor.submitted[0].tool_choice.name == "web_search"
    first, second, closing = response.output
    assert [source.url for source in first.action.sources] == SOURCES[1:]
    assert (second.status, closing.content[0].text) == ("failed", "Enough.")
    assert it.engine.queries == ["towns site:zurich.example"]


@pytest.mark.parametrize(("searches", "tool"), [(False, SEARCH), (True, {**SEARCH, "external_web_access": False})])
async def test_without_a_search_server_or_access_the_model_is_told(tmp_path: Path, searches: bool, tool: Any) -> None:
    async with searching(tmp_path, ["Bern."], searches=searches) as it:
        response = await it.client.responses.create(**{**ASKED, "tools": [tool]})
        request = it.executor.submitted[0]
    assert response.output_text == "Bern."
    assert (request.tools, it.engine.queries) == ((), [])
    assert "web_search" in request.messages[0].content
