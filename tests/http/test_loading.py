"""Requests that arrive while their model is loaded."""

import asyncio
import json
from pathlib import Path

import pytest

from service.app import create_app
from service.errors import NotReady
from service.executor.base import Answer, ExecutorStatus
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest
from tests.serving import RawRequest, settings

SIGNS_OF_LIFE = {
    "/v1/chat/completions": b": keep-alive",
    "/v1/completions": b": keep-alive",
    "/v1/messages": b"event: ping",
    "/v1/responses": b"event: response.in_progress",
}
FAILURES = {
    "/v1/chat/completions": b'data: {"error":{"message":"it does not fit"',
    "/v1/completions": b'data: {"error":{"message":"it does not fit"',
    "/v1/messages": b'data: {"type":"error","error":{"type":"overloaded_error","message":"it does not fit"',
    "/v1/responses": b"event: response.failed",
}


class LoadingExecutor(ScriptedExecutor):
    """Accepts requests once `loaded` is set, or refuses them with `failure`."""

    def __init__(self, failure: NotReady | None = None) -> None:
        super().__init__()
        self.loaded = asyncio.Event()
        self.state = ExecutorStatus(state="loading")
        self._failure = failure

    async def submit(self, request: GenerationRequest) -> Answer:
        await self.loaded.wait()
        if self._failure is not None:
            raise self._failure
        return await super().submit(request)


def body(path: str, text: str = "one two", *, stream: bool = True) -> bytes:
    content: dict[str, object] = {"messages": [{"role": "user", "content": text}]}
    if path == "/v1/completions":
        content = {"prompt": text}
    elif path == "/v1/responses":
        content = {"input": text}
    tokens = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    return json.dumps(content | {tokens: 50, "stream": stream}).encode()


@pytest.mark.parametrize("path", SIGNS_OF_LIFE)
async def test_a_stream_gets_keep_alives_while_its_model_is_loaded(path: str, tmp_path: Path) -> None:
    executor = LoadingExecutor()
    app = create_app(settings(tmp_path, keep_alive_interval_seconds=0.02), executor=executor)
    first, second = RawRequest(path, body(path)), RawRequest(path, body(path))
    tasks = [asyncio.create_task(request.run(app)) for request in (first, second)]
    for request, outcome in ((first, "fwd=uri-miss"), (second, "collapsed")):
        await request.until(SIGNS_OF_LIFE[path])
        assert request.status == 200
        assert outcome in request.headers["cache-status"]
    executor.loaded.set()
    await asyncio.gather(*tasks)
    for request in (first, second):
        assert request.body.count(b"two") >= 1
    assert len(executor.submitted) == 1


@pytest.mark.parametrize("path", FAILURES)
async def test_a_load_that_fails_is_an_error_in_the_open_stream(path: str, tmp_path: Path) -> None:
    executor = LoadingExecutor(NotReady("it does not fit"))
    app = create_app(settings(tmp_path, keep_alive_interval_seconds=0.02), executor=executor)
    request = RawRequest(path, body(path))
    task = asyncio.create_task(request.run(app))
    await request.until(SIGNS_OF_LIFE[path])
    executor.loaded.set()
    await task
    assert FAILURES[path] in request.body
    assert b"it does not fit" in request.body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", FAILURES)
async def test_a_load_that_fails_soon_is_a_status(path: str, stream: bool, tmp_path: Path) -> None:
    executor = LoadingExecutor(NotReady("it does not fit", retry_after=5))
    executor.loaded.set()
    request = RawRequest(path, body(path, stream=stream))
    await request.run(create_app(settings(tmp_path), executor=executor))
    assert (request.status, request.headers["retry-after"]) == (503, "5")


async def test_a_client_that_leaves_while_its_model_is_loaded_is_not_answered(tmp_path: Path) -> None:
    executor = LoadingExecutor()
    app = create_app(settings(tmp_path, keep_alive_interval_seconds=0.02), executor=executor)
    request = RawRequest("/v1/messages", body("/v1/messages"))
    task = asyncio.create_task(request.run(app))
    await request.until(b"event: ping")
    request.disconnect()
    await task
    executor.loaded.set()
    assert not executor.submitted
