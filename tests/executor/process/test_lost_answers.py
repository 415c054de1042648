"""An engine fails within an answer. A client that has seen nothing of the answer notices nothing."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.executor.process.engine_process import EngineProcess
from tests.executor.process.engines import spec
from tests.serving import RawRequest, settings

MESSAGES = [{"role": "user", "content": "hello"}]
RIGHT = "1 2 3 "

BODIES = [
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 3}),
    ("/v1/messages", {"model": "claude-x", "messages": MESSAGES, "max_tokens": 3}),
    ("/v1/responses", {"input": "hello", "max_output_tokens": 3}),
    ("/v1/completions", {"prompt": ["one", "two"], "max_tokens": 3}),
]


@asynccontextmanager
async def dying(tmp_path: Path, how: str = "SIGKILL") -> AsyncIterator[Any]:
    configured = settings(tmp_path)
    # At this pace its first tokens have arrived when it dies.
    fault = {"at": "decoding", "how": how, "once": str(tmp_path / "once"), "step_seconds": 0.15}
    engine = EngineProcess(spec("counting", configured, **fault))
    app = create_app(configured, executor=engine)
    async with app.router.lifespan_context(app):
        yield app
        assert engine.status().engine_restarts == 1


def texts(found: Any) -> list[str]:
    """Returns the strings under `content` or `text` anywhere in the body of an answer."""
    match found:
        case dict():
            own = [found[name] for name in ("content", "text") if isinstance(found.get(name), str)]
            return own + [text for value in found.values() for text in texts(value)]
        case list():
            return [text for value in found for text in texts(value)]
    return []


@pytest.mark.parametrize(("path", "body"), BODIES, ids=[path for path, _ in BODIES])
@pytest.mark.parametrize("how", ["SIGKILL", "raise"])
async def test_an_answer_that_is_not_streamed_is_generated_again(
    how: str, path: str, body: dict[str, Any], tmp_path: Path
) -> None:
    async with dying(tmp_path, how) as app:
        request = RawRequest(path, json.dumps(body).encode())
        await request.run(app)
        assert request.status == 200, request.body
        assert set(texts(json.loads(request.body))) == {RIGHT}
        again = RawRequest(path, json.dumps(body).encode())
        await again.run(app)
        assert again.headers["cache-status"].startswith("anyclaude; hit")


async def test_a_stream_that_has_begun_ends_with_an_error(tmp_path: Path) -> None:
    async with dying(tmp_path) as app:
        request = RawRequest("/v1/chat/completions", json.dumps(BODIES[0][1] | {"stream": True}).encode())
        await request.run(app)
        assert b"killed by SIGKILL" in request.body
