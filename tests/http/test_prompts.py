"""Completions, embeddings and tokens over HTTP, with an executor that repeats the prompt."""

import asyncio
from pathlib import Path

import pytest

from service.app import create_app
from service.errors import EngineFailed
from service.executor.scripted import ScriptedExecutor
from tests.http.test_generation import gated_app, raw
from tests.serving import client_of, running, settings

COMPLETIONS, EMBEDDINGS = "/v1/completions", "/v1/embeddings"
MISS, HIT = "anyclaude; fwd=uri-miss; stored", "anyclaude; hit"


async def test_each_prompt_has_its_own_entry(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url, client_of(url) as client:
        both = await client.post(COMPLETIONS, json={"prompt": ["one two", "three"]})
        one = await client.post(COMPLETIONS, json={"prompt": "three"})
        again = await client.post(COMPLETIONS, json={"prompt": ["three", "one two"], "stream": True})
        health = (await client.get("/health")).json()
    assert [choice["text"] for choice in both.json()["choices"]] == ["one two", "three"]
    assert both.json()["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert [each.headers["cache-status"] for each in (both, one, again)] == [MISS, HIT, HIT]
    assert (health["cache"]["hits"], health["cache"]["misses"]) == (3, 2)
    assert again.text.endswith("data: [DONE]\n\n")


async def test_an_echo_of_tokens_is_their_text(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url, client_of(url) as client:
        answer = await client.post(COMPLETIONS, json={"prompt": [[104, 105], [33]], "echo": True})
        suffix = await client.post(COMPLETIONS, json={"prompt": "a", "suffix": "b"})
    assert [choice["text"] for choice in answer.json()["choices"]] == ["hihi", "!!"]
    assert suffix.json()["choices"][0]["text"] == "a...b"


async def test_embeddings_are_cached_whatever_their_form(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url, client_of(url) as client:
        first = await client.post(EMBEDDINGS, json={"input": ["abba", "cab"], "model": "text-embedding-3-small"})
        again = await client.post(EMBEDDINGS, json={"input": "cab", "encoding_format": "base64", "dimensions": 2})
        refused = await client.post(EMBEDDINGS, json={"input": "cab", "dimensions": 9})
    assert [each["embedding"] for each in first.json()["data"]] == [
        [2.0, 2.0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
    ]
    assert [each.headers["cache-status"] for each in (first, again)] == [MISS, HIT]
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "dimensions")


async def test_stored_means_that_all_answers_are_stored(tmp_path: Path) -> None:
    async def script(request):
        if request.raw_prompt.text != "silence":
            yield "good"

    configured = settings(tmp_path)
    app = create_app(configured, executor=ScriptedExecutor(script))
    async with running(app, configured) as url, client_of(url) as client:
        asked = [await client.post(COMPLETIONS, json={"prompt": p}) for p in (["a", "silence"], ["a", "b"], ["b", "a"])]
    assert [answer.headers["cache-status"] for answer in asked] == [MISS.removesuffix("; stored"), MISS, HIT]


async def test_one_prompt_that_fails_fails_all(tmp_path: Path) -> None:
    async def script(request):
        if request.raw_prompt.text == "bad":
            raise EngineFailed("It broke.")
        yield "good"

    configured = settings(tmp_path)
    app = create_app(configured, executor=ScriptedExecutor(script))
    async with running(app, configured) as url, client_of(url) as client:
        failed = await client.post(COMPLETIONS, json={"prompt": ["good", "bad"]})
        streamed = await client.post(COMPLETIONS, json={"prompt": ["bad", "good"], "stream": True})
    assert (failed.status_code, failed.json()["error"]["message"]) == (500, "It broke.")
    assert "It broke." in streamed.text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_leaves_frees_every_prompt(tmp_path: Path, stream: bool) -> None:
    app, executor, script = gated_app(tmp_path)
    request = raw(COMPLETIONS, stream=stream, prompt=["a", "b"], messages=None)
    running_request = asyncio.ensure_future(request.run(app))
    await script.started.wait()
    request.disconnect()
    await running_request
    assert (executor.aborted, executor.running) == (2, 0)


async def test_tokens(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    async with running(create_app(configured), configured) as url, client_of(url) as client:
        llama = (await client.post("/tokenize", json={"content": "hi", "with_pieces": True})).json()
        vllm = (await client.post("/tokenize", json={"prompt": "hi", "model": "default"})).json()
        chat = (await client.post("/tokenize", json={"messages": [{"role": "user", "content": "one two"}]})).json()
        text = (await client.post("/detokenize", json={"tokens": [104, 105]})).json()
        refused = [
            (await client.post(path, json=body)).status_code
            for path, body in (("/tokenize", {}), ("/detokenize", {"tokens": [-1]}), ("/detokenize", {"tokens": "x"}))
        ]
    assert llama["tokens"] == [{"id": 104, "piece": "h"}, {"id": 105, "piece": "i"}]
    assert (vllm["tokens"], vllm["count"]) == ([104, 105], 2)
    assert (chat["count"], chat["max_model_len"]) == (2, 200_000)
    assert (text["content"], text["prompt"]) == ("hi", "hi")
    assert refused == [400, 400, 400]
