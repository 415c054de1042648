"""The prefix cache with real models: real prompts, before and after a restart."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.executor.base import collect
from service.executor.mlx_executor import MlxExecutor
from service.generation import Completion, GenerationRequest, Message, Usage
from service.profile import ModelProfile
from service.settings import Settings

pytestmark = pytest.mark.model

in_module_loop = pytest.mark.asyncio(loop_scope="module")

RULES = Message(role="system", content="You answer in one short sentence. " * 12)
QUESTIONS = (
    "What is the capital of France?",
    "Name three colours.",
    "What is two plus two?",
    "Name a large animal. " * 20,
)


@asynccontextmanager
async def serving(model: Path, home: Path, **settings: Any) -> AsyncIterator[MlxExecutor]:
    profile = ModelProfile(id="model", fingerprint="model", context_length=8192)
    configured = Settings(home=home, max_concurrency=3, prefill_chunk_tokens=64, **settings)
    executor = MlxExecutor(model, profile, configured)
    await executor.start()
    try:
        yield executor
    finally:
        await executor.aclose()


async def ask(executor: MlxExecutor, *messages: Message, **fields: Any) -> Completion:
    request = GenerationRequest(messages=(RULES, *messages), **{"max_tokens": 12, **fields})
    return await collect((await executor.submit(request)).events())


async def test_each_turn_reads_what_is_new_and_a_restart_reads_nothing_again(demo_model: Path, tmp_path: Path) -> None:
    """The demo model, because a smaller one reads a prompt sooner than a file of it."""
    messages: list[Message] = []
    async with serving(demo_model, tmp_path) as executor:
        usages = []
        for question in QUESTIONS[:3]:
            messages.append(Message(role="user", content=question))
            completion = await ask(executor, *messages)
            usages.append(completion.usage)
            messages.append(Message(role="assistant", content=completion.choices[0].text))
        status = executor.status()
    assert (usages[0].cached_tokens, usages[0].prefix_stored_tokens) == (0, usages[0].prompt_tokens)
    for before, after in itertools.pairwise(usages):
        assert after.cached_tokens >= before.prompt_tokens
        assert after.cached_tokens + after.prefix_stored_tokens == after.prompt_tokens
    assert status.prefix_cache_bytes is not None
    assert status.prefix_cache_bytes > usages[-1].prompt_tokens * 40_000
    async with serving(demo_model, tmp_path) as executor:
        again = await ask(executor, *messages[:5])
    assert again.choices[0].text == messages[5].content
    assert again.usage.cached_tokens == usages[-1].prompt_tokens - 1


async def test_the_same_answers_with_and_without_alone_and_together(tiny_model: Path, tmp_path: Path) -> None:
    questions = [Message(role="user", content=question) for question in QUESTIONS]
    async with serving(tiny_model, tmp_path, prefix_memory_bytes=0, prefix_disk_bytes=0) as executor:
        plain = [(await ask(executor, question, max_tokens=6)).choices for question in questions]
        assert executor.status().prefix_cache_bytes == 0
    async with serving(tiny_model, tmp_path, prefix_disk_bytes=0) as executor:
        for _ in range(2):
            assert [(await ask(executor, question, max_tokens=6)).choices for question in questions] == plain
        together = await asyncio.gather(*[ask(executor, question, max_tokens=6) for question in questions])
    assert [completion.choices for completion in together] == plain


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MlxExecutor]:
    """For tests that ask as callers of their own."""
    async with serving(tiny_model, tmp_path_factory.mktemp("home"), prefix_disk_bytes=0) as executor:
        yield executor


@in_module_loop
async def test_a_request_for_no_tokens_fills_it(executor: MlxExecutor) -> None:
    question = Message(role="user", content=QUESTIONS[0])
    filled = await ask(executor, question, max_tokens=0, caller="warm")
    answered = await ask(executor, question, caller="warm")
    prompt = filled.usage.prompt_tokens
    assert filled.usage == Usage(prompt_tokens=prompt, completion_tokens=0, prefix_stored_tokens=prompt)
    assert answered.usage.cached_tokens == prompt - 1


@in_module_loop
async def test_callers_with_keys_share_nothing(executor: MlxExecutor) -> None:
    question = Message(role="user", content=QUESTIONS[0])
    usages = [(await ask(executor, question, caller=caller, max_tokens=1)).usage for caller in ("a", "b", "a", "")]
    assert [usage.cached_tokens > 0 for usage in usages] == [False, False, True, False]


@in_module_loop
async def test_answers_to_one_request_share_its_prompt(executor: MlxExecutor) -> None:
    question = Message(role="user", content=QUESTIONS[3])
    completion = await ask(executor, question, n=3, max_tokens=5, caller="three")
    assert len({choice.text for choice in completion.choices}) == 1
    assert completion.usage.cached_tokens == 0
    assert completion.usage.completion_tokens == 15
