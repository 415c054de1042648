"""Engine processes are killed at random moments, under mixed load over real connections."""

import asyncio
import itertools
import json
import logging
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from service.app import create_app
from service.executor.process.engine_process import EngineProcess
from tests.executor.engines import until
from tests.executor.process.engines import spec
from tests.executor.process.test_engine_process import is_there
from tests.patience import PATIENCE_SECONDS
from tests.serving import running, settings

log = logging.getLogger(__name__)

CLIENTS = 16
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGSTOP)


class Question(NamedTuple):
    """It has no stored answer. `deaths` came before it."""

    body: dict[str, Any]
    answer: str
    deaths: int


class Load:
    """Clients that ask until they are told to stop. `outcomes` counts; anything wrong is raised."""

    def __init__(self, client: httpx.AsyncClient, seed: int, deaths: Callable[[], int]) -> None:
        self._deaths = deaths
        self.outcomes: Counter[str] = Counter()
        self.stopped = False
        self._client = client
        self._random = random.Random(seed)
        self._numbers = itertools.count()

    async def run(self) -> None:
        asks = (self.chat, self.messages, self.streamed_chat, self.streamed_messages, self.hit, self.count)
        while not self.stopped:
            await self._random.choice(asks)()

    def _question(self, **fields: Any) -> Question:
        tokens = self._random.choice((2, 5, 40))
        text = f"question {next(self._numbers)} " + "word " * self._random.choice((0, 20))
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, **fields}
        return Question(body, "".join(f"{number} " for number in range(1, tokens + 1)), self._deaths())

    async def chat(self) -> None:
        question = self._question()
        response = await self._client.post("/v1/chat/completions", json=question.body)
        self._check(response, question, lambda found: found["choices"][0]["message"]["content"] == question.answer)

    async def messages(self) -> None:
        question = self._question(model="claude-x")
        response = await self._client.post("/v1/messages", json=question.body)
        self._check(response, question, lambda found: found["content"][0]["text"] == question.answer)

    async def count(self) -> None:
        question = self._question(model="claude-x")
        words = len(question.body["messages"][0]["content"].split())
        response = await self._client.post("/v1/messages/count_tokens", json=question.body)
        self._check(response, question, lambda found: found["input_tokens"] == words)

    async def hit(self) -> None:
        body = {"messages": [{"role": "user", "content": "known"}], "max_tokens": 3}
        response = await self._client.post("/v1/chat/completions", json=body)
        assert response.status_code == 200
        assert response.headers["cache-status"] == "anyclaude; hit"
        self.outcomes["hit"] += 1

    async def streamed_chat(self) -> None:
        question = self._question(stream=True)
        events = await self._stream("/v1/chat/completions", question.body)
        text = "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e.get("choices"))
        self._check_stream(events, text, question)

    async def streamed_messages(self) -> None:
        question = self._question(stream=True, model="claude-x")
        events = await self._stream("/v1/messages", question.body)
        text = "".join(e["delta"]["text"] for e in events if e.get("type") == "content_block_delta")
        self._check_stream(events, text, question)

    async def _stream(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        response = await self._client.post(path, json=body)
        if response.status_code != 200:
            return [response.json()]
        lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]

    def _check(self, response: httpx.Response, question: Question, is_right: Callable[[Any], bool]) -> None:
        if response.status_code == 200:
            assert is_right(response.json()), response.text
            self.outcomes["right"] += 1
        else:
            self._check_error(response.json(), "", question)

    def _check_stream(self, events: list[dict[str, Any]], text: str, question: Question) -> None:
        assert question.answer.startswith(text)
        errors = [event for event in events if "error" in event]
        if errors:
            self._check_error(errors[0], text, question)
        else:
            assert text == question.answer
            self.outcomes["right"] += 1

    def _check_error(self, body: dict[str, Any], sent: str, question: Question) -> None:
        assert "The engine process has ended: it was" in body["error"]["message"], body
        if not sent:
            assert self._deaths() - question.deaths >= 2, (body, question)
        self.outcomes["failed after it began" if sent else "failed"] += 1


def healthy(engine: EngineProcess) -> bool:
    return engine.pid is not None and engine.status().state == "healthy"


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.endurance)])
async def test_kills_under_load_cost_nothing_that_was_not_begun(kills: int, tmp_path: Path) -> None:
    moments = random.Random(kills)
    configured = settings(tmp_path, max_concurrency=4, stall_seconds=0.5)
    engine = EngineProcess(spec("counting", configured, step_seconds=0.002), deaths_at_most=10 * kills)
    pids, recoveries = set(), []
    app = create_app(configured, executor=engine)
    async with running(app, configured) as url, httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS) as client:
        known = {"messages": [{"role": "user", "content": "known"}], "max_tokens": 3}
        assert (await client.post("/v1/chat/completions", json=known)).status_code == 200
        load = Load(client, kills, lambda: engine.status().engine_restarts)
        clients = [asyncio.create_task(load.run()) for _ in range(CLIENTS)]
        for _ in range(kills):
            await asyncio.sleep(moments.uniform(0, 0.3))
            # On a busy machine, a process may also end for a step that took too long.
            await until(lambda: healthy(engine) or any(task.done() for task in clients))
            assert engine.pid is not None
            pids.add(engine.pid)
            killed, before = time.monotonic(), engine.status().engine_restarts
            os.kill(engine.pid, moments.choice(SIGNALS))
            await until(lambda before=before: engine.status().engine_restarts > before)
            await until(lambda: healthy(engine))
            recoveries.append(time.monotonic() - killed)
        load.stopped = True
        await asyncio.gather(*clients)
        await until(lambda: healthy(engine) and engine.status().running == engine.status().waiting == 0)
        pids.add(engine.pid)
    median, worst = statistics.median(recoveries), max(recoveries)
    log.info("recovered in %.2f s (median), %.2f s (worst); %s", median, worst, dict(load.outcomes))
    assert load.outcomes["right"] > load.outcomes["failed"] + load.outcomes["failed after it began"]
    assert load.outcomes["hit"] > 0
    assert not [pid for pid in pids if pid is not None and is_there(pid)]
