"""Clients that leave before their request is accepted."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.app import create_app
from service.errors import Overloaded
from service.executor.base import Answer, StoredAnswer
from service.executor.mlx_executor import MlxExecutor
from service.executor.runtime import Runtime
from service.executor.scripted import PROFILE
from service.generation import Completion, Usage
from service.http.body import ClientGone
from service.http.submission import submit_watched
from tests.executor.engines import CountingEngine, counting_loader, until
from tests.serving import RawRequest, settings

BODY = msgspec.json.encode({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2})
ANSWER = StoredAnswer(Completion(choices=(), usage=Usage(prompt_tokens=0, completion_tokens=0)))


class Client:
    """`leave` makes its disconnect arrive."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.receive = self._messages.get

    def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_the_model_loads_frees_its_place(tmp_path: Path, stream: bool) -> None:
    loading = threading.Event()
    configured = settings(tmp_path, max_concurrency=1, max_queue=0)
    executor = MlxExecutor(tmp_path, PROFILE, configured, load=held_back(loading))
    app = create_app(configured, executor=executor)
    async with app.router.lifespan_context(app):
        first, second = (RawRequest("/v1/chat/completions", BODY) for _ in range(2))
        leaving = asyncio.create_task(first.run(app))
        await until(lambda: executor.status().waiting == 1)
        first.disconnect()
        await leaving
        assert first.sent == []
        assert (executor.status().state, executor.status().waiting) == ("loading", 0)
        staying = asyncio.create_task(second.run(app))
        await until(lambda: executor.status().waiting == 1)
        loading.set()
        await staying
        assert (second.status, b"1 2" in second.body) == (200, True)


def held_back(loading: threading.Event) -> Callable[..., Runtime]:
    load = counting_loader(CountingEngine())

    def wait_and_load(*arguments: Any) -> Runtime:
        assert loading.wait(60)
        return load(*arguments)

    return wait_and_load


async def test_what_ends_at_once_reads_nothing_of_the_client() -> None:
    client = Client()
    client.leave()

    async def accept() -> Answer:
        return ANSWER

    assert await submit_watched(client.receive, accept()) is ANSWER
    assert (await client.receive())["type"] == "http.disconnect"


async def test_a_client_that_stays_gets_its_answer_or_its_error() -> None:
    async def accept() -> Answer:
        await asyncio.sleep(0)
        return ANSWER

    async def refuse() -> Answer:
        await asyncio.sleep(0)
        raise Overloaded("full")

    client = Client()
    assert await submit_watched(client.receive, accept()) is ANSWER
    with pytest.raises(Overloaded):
        await submit_watched(client.receive, refuse())
    client.leave()  # and what is done with the answer can still tell that the client has gone
    assert (await client.receive())["type"] == "http.disconnect"


@pytest.mark.parametrize("turns", range(8))
async def test_a_client_that_leaves_at_any_moment_is_gone_or_can_still_be_told_to_be(turns: int) -> None:
    client, accepted = Client(), asyncio.Event()

    async def accept() -> Answer:
        await accepted.wait()
        return ANSWER

    submitting = asyncio.create_task(submit_watched(client.receive, accept()))
    for turn in range(8):
        if turn == 4:
            accepted.set()
        if turn == turns:
            client.leave()
        await asyncio.sleep(0)
    try:
        assert await submitting is ANSWER
    except ClientGone:
        return
    async with asyncio.timeout(5):
        assert (await client.receive())["type"] == "http.disconnect"


async def test_the_cancellation_of_others_stays_one() -> None:
    client = Client()
    submitting = asyncio.create_task(submit_watched(client.receive, asyncio.Event().wait()))  # type: ignore[arg-type]
    for _ in range(3):
        await asyncio.sleep(0)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
