"""Settings that change answers are in the key of the requests that they can affect."""

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from cache_backends.memory import MemoryBackend
from service.app import create_app
from service.executor.scripted import PROFILE, ScriptedExecutor
from tests.serving import client_of, running, settings

CHAT = ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]})
COMPLETION = ("/v1/completions", {"model": PROFILE.id, "prompt": "Hi"})
EMBEDDING = ("/v1/embeddings", {"model": PROFILE.id, "input": "Hi"})
ENDS_LOOPS, LEAVES_REASONING = {"end_loops": True}, {"answer_after_reasoning": False}


async def ask(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> str:
    return (await client.post(path, json=body)).headers["cache-status"].removeprefix("anyclaude; ")


@pytest.mark.parametrize(
    ("question", "changes", "outcome"),
    [
        (CHAT, {}, "hit"),
        (CHAT, ENDS_LOOPS, "fwd=uri-miss; stored"),
        (CHAT, LEAVES_REASONING, "fwd=uri-miss; stored"),
        (COMPLETION, ENDS_LOOPS, "fwd=uri-miss; stored"),
        (COMPLETION, LEAVES_REASONING, "hit"),
        (EMBEDDING, ENDS_LOOPS | LEAVES_REASONING, "hit"),
    ],
)
async def test_an_answer_under_other_settings_is_no_hit_if_they_matter(
    tmp_path: Path, question: tuple[str, dict[str, Any]], changes: dict[str, bool], outcome: str
) -> None:
    configured, cache = settings(tmp_path), MemoryBackend()
    before, after = (
        create_app(
            configured, executor=ScriptedExecutor(profile=msgspec.structs.replace(PROFILE, **fields)), cache=cache
        )
        for fields in ({}, changes)
    )
    async with running(before, configured) as url, client_of(url) as client:
        assert await ask(client, *question) == "fwd=uri-miss; stored"
        async with running(after, configured) as other_url, client_of(other_url) as other:
            assert await ask(other, *question) == outcome
