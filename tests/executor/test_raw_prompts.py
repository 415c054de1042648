"""Prompts without a chat template on a random model: continued, tokenized, embedded."""

from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path

import mlx.core as mx
import msgspec
import numpy as np
import pytest
import pytest_asyncio
from mlx_lm import generate, load
from tokenizers import Tokenizer

from service.errors import BadRequest, ContextLengthExceeded, UnsupportedValue
from service.executor.base import collect
from service.executor.mlx_executor import MlxExecutor
from service.generation import Completion, GenerationRequest, RawPrompt, ResponseFormat
from service.profile import ModelProfile
from service.queries import Detokenize, TextFound, Tokenize, TokensFound
from service.settings import Settings
from tests.no_home import NO_HOME

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

CHAT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
TEXT = "It was a dark and stormy night; the rain fell in torrents. " * 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor(tiny_model: Path) -> AsyncIterator[MlxExecutor]:
    profile = ModelProfile(id="tiny", fingerprint="tiny", context_length=512)
    configured = Settings(home=NO_HOME, prefix_memory_bytes=0, prefix_disk_bytes=0, prefill_chunk_tokens=32)
    executor = MlxExecutor(tiny_model, profile, configured)
    await executor.start()
    try:
        yield executor
    finally:
        await executor.aclose()


async def ask(executor: MlxExecutor, raw: RawPrompt, **fields: object) -> Completion:
    request = GenerationRequest(**{"messages": (), "raw_prompt": raw, "max_tokens": 8, **fields})
    return await collect((await executor.submit(request)).events())


async def embed(executor: MlxExecutor, raw: RawPrompt) -> np.ndarray:
    raw = msgspec.structs.replace(raw, embeds=True)
    (choice,) = (await ask(executor, raw, max_tokens=1)).choices
    return np.frombuffer(b64decode(choice.text), "<f4")


async def test_a_raw_prompt_is_read_as_it_is(executor: MlxExecutor, tiny_model: Path) -> None:
    tokens = tuple(Tokenizer.from_file(str(tiny_model / "tokenizer.json")).encode(CHAT).ids)
    expected = generate(*load(str(tiny_model)), list(tokens), max_tokens=8)
    for raw in (RawPrompt(text=CHAT), RawPrompt(tokens=tokens)):
        completion = await ask(executor, raw)
        assert completion.choices[0].text == expected
        assert completion.usage.prompt_tokens == len(tokens)


async def test_a_raw_answer_follows_a_grammar(executor: MlxExecutor) -> None:
    wanted = ResponseFormat(kind="grammar", grammar='start: "Rome" | "Oslo"')
    completion = await ask(executor, RawPrompt(text="The capital of Norway is "), response_format=wanted)
    assert completion.choices[0].text in ("Rome", "Oslo")


async def test_what_a_raw_prompt_cannot_be_is_refused(executor: MlxExecutor) -> None:
    with pytest.raises(BadRequest, match="token ids from 0 to"):
        await ask(executor, RawPrompt(tokens=(10**8,)))
    with pytest.raises(UnsupportedValue, match="fill in the middle"):
        await ask(executor, RawPrompt(text="a", suffix="b"))
    with pytest.raises(ContextLengthExceeded):
        await ask(executor, RawPrompt(text=TEXT * 20))
    assert (await ask(executor, RawPrompt(text=""))).usage.prompt_tokens == 1


async def test_tokens_and_text(executor: MlxExecutor, tiny_model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    found = await executor.ask(Tokenize("Grüße, <|im_end|>"))
    assert isinstance(found, TokensFound)
    assert list(found.tokens) == tokenizer.encode("Grüße, <|im_end|>").ids
    assert b"".join(found.pieces).decode() == "Grüße, <|im_end|>"
    assert await executor.ask(Detokenize(found.tokens)) == TextFound("Grüße, <|im_end|>")
    assert await executor.ask(Tokenize("")) == TokensFound(())
    assert await executor.ask(Detokenize(())) == TextFound("")
    with pytest.raises(BadRequest):
        await executor.ask(Detokenize((10**8,)))


async def test_an_embedding_is_the_last_hidden_state(executor: MlxExecutor, tiny_model: Path) -> None:
    model, tokenizer = load(str(tiny_model))
    hidden = model.model(mx.array([tokenizer.encode(TEXT)]))[0, -1].astype(mx.float32)
    expected = np.array(hidden / mx.linalg.norm(hidden))
    found = await embed(executor, RawPrompt(text=TEXT))
    assert float(np.linalg.norm(found)) == pytest.approx(1, abs=1e-5)
    assert float(found @ expected) == pytest.approx(1, abs=1e-3)
    assert (await embed(executor, RawPrompt(text=TEXT))).tobytes() == found.tobytes()


async def test_embeddings_and_answers_do_not_disturb_each_other(executor: MlxExecutor) -> None:
    alone = await embed(executor, RawPrompt(text="rain"))
    expected = (await ask(executor, RawPrompt(text=CHAT))).choices
    answer = await executor.submit(GenerationRequest(messages=(), raw_prompt=RawPrompt(text=CHAT), max_tokens=8))
    assert (await embed(executor, RawPrompt(text="rain"))).tobytes() == alone.tobytes()
    assert (await collect(answer.events())).choices == expected
    completion = await ask(executor, RawPrompt(text="rain", embeds=True), max_tokens=1)
    assert completion.usage.completion_tokens == 0
