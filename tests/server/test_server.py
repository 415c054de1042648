"""How the server starts and ends, and what it logs then."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from service.app import create_app
from service.events import Event
from service.executor.base import ExecutorStatus
from service.executor.scripted import ScriptedExecutor
from service.generation import GenerationRequest
from service.server.server import bind, serve
from tests.executor.engines import until
from tests.patience import PATIENCE_SECONDS
from tests.serving import RawRequest, client_of, running, settings

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("state", "said"),
    [("healthy", "stopping: answers have 1 seconds to end; "), ("loading", "stopping: the model is still loading; ")],
)
async def test_what_is_waited_for_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, state: Any, said: str
) -> None:
    executor, configured = ScriptedExecutor(), settings(tmp_path)
    executor.state = ExecutorStatus(state=state)
    with caplog.at_level(logging.INFO, "anyclaude.server"):
        async with running(create_app(configured, executor=executor), configured):
            pass
    *_, message = [record.getMessage() for record in caplog.records if record.name == "anyclaude.server"]
    assert message.startswith(said)
    assert message.endswith("; a second signal ends the server at once")


async def test_no_part_of_a_stream_waits_for_an_acknowledgement(tmp_path: Path) -> None:
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    listener = bind(settings(tmp_path))
    server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), sock=listener)
    async with asyncio.timeout(PATIENCE_SECONDS), server:
        _, client = await asyncio.open_connection(*listener.getsockname())
        connection = await accepted.get()
        assert connection.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.close()
        client.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_lets_a_running_answer_end(tmp_path: Path, number: signal.Signals) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def script(request: GenerationRequest) -> AsyncIterator[str | Event]:
        begun.set()
        await go_on.wait()
        yield "done"

    configured = settings(tmp_path, shutdown_grace_seconds=PATIENCE_SECONDS)
    app = create_app(configured, executor=ScriptedExecutor(script))
    listener = bind(configured)
    serving = asyncio.create_task(serve(app, configured, listener))
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=PATIENCE_SECONDS
    ) as client:
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=HELLO))
        await begun.wait()
        os.kill(os.getpid(), number)
        while await accepts(str(client.base_url)):
            pass
        go_on.set()
        assert (await asking).json()["choices"][0]["message"]["content"] == "done"
    await asyncio.wait_for(serving, PATIENCE_SECONDS)


async def test_stop_waits_for_open_requests_only(tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def script(request: GenerationRequest) -> AsyncIterator[str | Event]:
        begun.set()
        await go_on.wait()
        yield "done"

    configured = settings(tmp_path, shutdown_grace_seconds=10 * PATIENCE_SECONDS)
    app = create_app(configured, executor=ScriptedExecutor(script))
    async with asyncio.timeout(PATIENCE_SECONDS), app.router.lifespan_context(app):
        request = RawRequest("/v1/chat/completions", msgspec.json.encode(HELLO))
        asking = asyncio.create_task(request.run(app))
        await begun.wait()
        stopping = asyncio.create_task(app.stop())
        await asyncio.wait([stopping], timeout=0.05)
        assert not stopping.done()
        go_on.set()
        await stopping
        await asking
    assert b"done" in request.body


async def accepts(url: str) -> bool:
    """Whether a new connection is served."""
    async with client_of() as client:
        try:
            return (await client.get(f"{url}/health")).status_code == 200
        except httpx.TransportError:
            return False


async def test_the_ready_line_names_api_and_dashboard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only once the model is loaded."""
    executor, configured = ScriptedExecutor(), settings(tmp_path)
    executor.state = ExecutorStatus(state="loading")
    with caplog.at_level(logging.INFO, "anyclaude.server"):
        async with (
            running(create_app(configured, executor=executor), configured) as url,
            client_of() as client,
        ):
            assert (await client.get(url + "/health")).json()["status"] == "loading"
            assert not [record for record in caplog.records if "ready" in record.getMessage()]
            executor.state = ExecutorStatus(state="healthy")
            await until(lambda: any("ready after" in record.getMessage() for record in caplog.records))
    (line,) = [record.getMessage() for record in caplog.records if "ready after" in record.getMessage()]
    assert f"{url}/v1 " in line
    assert line.endswith(f"{url}/dashboard")


async def test_a_model_that_cannot_be_loaded_is_no_ready_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    executor, configured = ScriptedExecutor(), settings(tmp_path)
    executor.state = ExecutorStatus(state="unhealthy", detail="no such file")
    with caplog.at_level(logging.INFO, "anyclaude.server"):
        async with running(create_app(configured, executor=executor), configured):
            await until(lambda: any(record.getMessage() == "not ready: no such file" for record in caplog.records))
    assert not [record for record in caplog.records if "ready after" in record.getMessage()]
