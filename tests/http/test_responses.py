"""Errors as responses, what the official clients make of them, and the root path."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anthropic
import openai
import pytest

from service.app import create_app
from service.errors import EngineFailed, GenerationTimeout, ServiceError
from service.events import Event
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest
from tests.serving import RawRequest, client_of, running, settings

ASKED = {"model": "default", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
ONLY_IF_CACHED = {"cache-control": "only-if-cached"}


class Failing(ScriptedExecutor):
    def __init__(self, error: ServiceError) -> None:
        self._error = error
        super().__init__(self._fail)

    async def _fail(self, request: GenerationRequest) -> AsyncIterator[str | Event]:
        yield "half "
        raise self._error


async def test_the_official_clients_ask_once_for_what_is_not_cached(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:
            with pytest.raises(openai.InternalServerError, match="only-if-cached"):
                await client.chat.completions.create(**ASKED, extra_headers=ONLY_IF_CACHED)
        async with anthropic.AsyncAnthropic(base_url=url, api_key="any") as client:
            with pytest.raises(anthropic.InternalServerError, match="only-if-cached"):
                await client.messages.create(**ASKED, extra_headers=ONLY_IF_CACHED)
        async with client_of(url) as client:
            stats = (await client.get("/stats")).json()
    assert [(request["dialect"], request["error"]) for request in stats["recent"]] == [
        ("anthropic_messages", "not_cached"),
        ("openai_chat", "not_cached"),
    ]


@pytest.mark.parametrize(
    ("error", "said"), [(GenerationTimeout("too long"), "false"), (EngineFailed("once"), None)], ids=["final", "not"]
)
async def test_clients_are_told_what_is_not_worth_repeating(
    tmp_path: Path, error: ServiceError, said: str | None
) -> None:
    configured = settings(tmp_path)
    app = create_app(configured, executor=Failing(error))
    async with running(app, configured) as url, client_of(url) as client:
        response = await client.post("/v1/chat/completions", json=ASKED)
    assert (response.status_code, response.headers.get("x-should-retry")) == (error.status, said)


@pytest.mark.parametrize("path", ["/v1/message", "/v1/messages/count", "/v1/edits"])
async def test_a_path_that_there_is_not_names_those_of_all_protocols(tmp_path: Path, path: str) -> None:
    request = RawRequest(path)
    await request.run(create_app(settings(tmp_path)))
    assert request.status == 404
    for endpoint in ("messages", "chat/completions", "responses", "completions", "embeddings"):
        assert f" /v1/{endpoint}," in request.body.decode()
    assert b"{id}" not in request.body


async def test_a_browser_is_led_to_the_dashboard_and_a_program_gets_links(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    browser = RawRequest("/", method="GET", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    await browser.run(app)
    assert (browser.status, browser.headers["location"]) == (307, "/dashboard")
    program = RawRequest("/", method="GET", headers={"accept": "*/*"})
    await program.run(app)
    assert json.loads(program.body) == {"name": "anyclaude", "health": "/health", "dashboard": "/dashboard"}
