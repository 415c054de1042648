"""Clients that leave while their request is being answered."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.app import create_app
from service.errors import Overloaded
from service.executor.mlx_executor import MlxExecutor
from service.executor.runtime import Runtime
from service.executor.scripted import PROFILE
from service.generation import Completion, Usage
from service.http.client_watch import ClientGone, ClientWatch
from service.response_cache.base import CachedAnswer, StoredAnswer
from tests.executor.engines import CountingEngine, counting_loader, until
from tests.patience import PATIENCE_SECONDS
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
        assert loading.wait(PATIENCE_SECONDS)
        return load(*arguments)

    return wait_and_load


async def accept_at_once() -> CachedAnswer:
    return ANSWER


async def accept() -> CachedAnswer:
    await asyncio.sleep(0)
    return ANSWER


async def wait_for_ever() -> CachedAnswer:
    await asyncio.Event().wait()
    return ANSWER


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_work_that_ends_at_once_reads_nothing_of_the_client() -> None:
    client = Client()
    client.leave()
    assert await ClientWatch(client.receive).run(accept_at_once()) is ANSWER
    assert (await client.receive())["type"] == "http.disconnect"


async def test_a_client_that_stays_gets_its_answer_or_its_error() -> None:
    async def refuse() -> CachedAnswer:
        await asyncio.sleep(0)
        raise Overloaded("full")

    client = Client()
    watch = ClientWatch(client.receive)
    assert await watch.run(accept()) is ANSWER
    with pytest.raises(Overloaded):
        await watch.run(refuse())
    client.leave()
    with pytest.raises(ClientGone):
        await watch.run(wait_for_ever())


@pytest.mark.parametrize("leaves_at", range(8))
async def test_a_client_that_leaves_at_any_moment_is_noticed_then_or_by_later_work(leaves_at: int) -> None:
    client, accepted = Client(), asyncio.Event()
    watch = ClientWatch(client.receive)

    async def accept_later() -> CachedAnswer:
        await accepted.wait()
        return ANSWER

    async def answer() -> None:
        await watch.run(accept_later())
        await watch.run(wait_for_ever())

    answering = asyncio.create_task(answer())
    for turn in range(8):
        if turn == 4:
            accepted.set()
        if turn == leaves_at:
            client.leave()
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(ClientGone):
            await answering


async def test_work_that_keeps_its_result_when_cancelled_leaves_the_task_as_it_was() -> None:
    client = Client()
    watch = ClientWatch(client.receive)

    async def finish_anyway() -> CachedAnswer:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return ANSWER

    async def answer() -> int:
        assert await watch.run(finish_anyway()) is ANSWER
        with pytest.raises(ClientGone):
            await watch.run(accept())
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    answering = asyncio.create_task(answer())
    await turns(3)
    client.leave()
    assert await asyncio.wait_for(answering, PATIENCE_SECONDS) == 0


async def test_the_work_of_a_client_that_leaves_has_ended() -> None:
    client, ended = Client(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    working = asyncio.create_task(ClientWatch(client.receive).run(work()))
    await turns(3)
    client.leave()
    with pytest.raises(ClientGone):
        await asyncio.wait_for(working, PATIENCE_SECONDS)
    assert ended == [True]


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_cancellation_by_others_stays_one(leaves: bool) -> None:
    """Also if the client leaves in the same turn of the loop."""
    client = Client()
    working = asyncio.create_task(ClientWatch(client.receive).run(wait_for_ever()))
    await turns(3)
    if leaves:
        client.leave()
        await turns(1)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
