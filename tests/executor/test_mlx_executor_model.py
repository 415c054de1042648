"""The executor with the demo model: real prompts, real tokens."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from tokenizers import Tokenizer

from service.errors import ContextLengthExceeded, EngineFailed
from service.executor.base import collect
from service.executor.mlx_executor import MlxExecutor
from service.executor.runtime import Loader, Runtime, load_runtime
from service.executor.scheduling.messages import Sequence
from service.executor.scheduling.protocols import Engine, Token
from service.generation import Completion, SamplingParams
from service.profile import ModelProfile
from service.queries import ListPrefixes, PrefixBranch, PrefixesFound
from service.settings import Settings
from service.tallies import Tuning
from tests.executor.engines import failing_at, question, until
from tests.no_home import NO_HOME

pytestmark = pytest.mark.model

in_module_loop = pytest.mark.asyncio(loop_scope="module")

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."


@asynccontextmanager
async def serving(path: Path, load: Loader = load_runtime, **settings: Any) -> AsyncIterator[MlxExecutor]:
    profile = ModelProfile(id="demo", fingerprint="demo", context_length=8192)
    configured = Settings(**{"home": NO_HOME, "prefix_memory_bytes": 0, "prefix_disk_bytes": 0, **settings})
    executor = MlxExecutor(path, profile, configured, load=load)
    await executor.start()
    try:
        yield executor
    finally:
        await executor.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor(demo_model: Path) -> AsyncIterator[MlxExecutor]:
    async with serving(demo_model, max_concurrency=4, prefill_chunk_tokens=32) as executor:
        yield executor


async def ask(executor: MlxExecutor, text: str, **fields: Any) -> Completion:
    return await collect((await executor.submit(question(text, **{"max_tokens": 12, **fields}))).events())


@in_module_loop
async def test_paris(executor: MlxExecutor) -> None:
    completion = await ask(executor, FRANCE)
    assert completion.choices[0].text == PARIS
    assert completion.choices[0].finish_reason == "stop"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (37, 8)
    assert await executor.count_tokens(question(FRANCE)) == 37


async def test_what_is_read_and_what_is_kept_can_be_watched(tiny_model: Path) -> None:
    async with serving(tiny_model, prefix_memory_bytes=2**26, prefill_chunk_tokens=16) as executor:
        long = "word " * 200
        answer = await executor.submit(question(f"{long} one", max_tokens=2))
        await collect(answer.events())
        assert answer.prompt_tokens // 2 < (answer.read_tokens or 0) <= answer.prompt_tokens
        await ask(executor, f"{long} two")
        await until(lambda: (executor.status().peak_bytes or 0) > 0)  # once nothing runs
        tuning = executor.status().tuning
        assert tuning is not None
        assert (tuning.chunk_tokens, tuning.file_tokens) == (16, None)
        found = await executor.ask(ListPrefixes())
        assert isinstance(found, PrefixesFound)
        shared = found.branches[0]
        assert (shared.start, shared.prompts, shared.end > 200) == (0, 2, True)
        assert shared.memory_tokens == shared.end
        assert sum(branch.memory_bytes for branch in found.branches) == executor.status().prefix_cache_bytes


@in_module_loop
async def test_a_batch_answers_as_each_request_alone(executor: MlxExecutor) -> None:
    prompts = [FRANCE, "Name three colours.", "Count to five. " * 12, "Hi"]
    alone = [await ask(executor, prompt) for prompt in prompts]
    together = await asyncio.gather(*[ask(executor, prompt) for prompt in prompts])
    assert [c.choices[0].text for c in together] == [c.choices[0].text for c in alone]


@in_module_loop
async def test_a_seed_gives_the_same_answer_alone_and_in_a_batch(executor: MlxExecutor) -> None:
    sampling = SamplingParams(temperature=1.0, top_p=0.95, seed=11)
    alone = await ask(executor, "Tell me a story.", sampling=sampling)
    others = [ask(executor, f"Write line {i}.", sampling=SamplingParams(temperature=1.0)) for i in range(3)]
    together, *_ = await asyncio.gather(ask(executor, "Tell me a story.", sampling=sampling), *others)
    assert together.choices[0].text == alone.choices[0].text
    other_seed = SamplingParams(temperature=1.0, top_p=0.95, seed=12)
    assert (await ask(executor, "Tell me a story.", sampling=other_seed)).choices[0].text != alone.choices[0].text


@pytest.mark.parametrize(("stop", "text"), [("is Par", "The capital of France "), ("l of", "The capita")])
@in_module_loop
async def test_stop_strings_across_tokens(executor: MlxExecutor, stop: str, text: str) -> None:
    (choice,) = (await ask(executor, FRANCE, stop=("nowhere", stop))).choices
    assert (choice.text, choice.finish_reason, choice.stop_sequence) == (text, "stop", stop)


@in_module_loop
async def test_max_tokens(executor: MlxExecutor) -> None:
    completion = await ask(executor, FRANCE, max_tokens=3)
    assert completion.choices[0].text == "The capital of"
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 3


@in_module_loop
async def test_logprobs(executor: MlxExecutor) -> None:
    (choice,) = (await ask(executor, FRANCE, logprobs=3)).choices
    assert choice.logprobs is not None
    assert "".join(token.token for token in choice.logprobs) == choice.text
    for token in choice.logprobs:
        assert len(token.top) == 3
        assert (token.top[0].token, token.top[0].logprob) == (token.token, token.logprob)  # greedy
        assert [top.logprob for top in token.top] == sorted((top.logprob for top in token.top), reverse=True)
    assert (await ask(executor, FRANCE, logprobs=0, max_tokens=2)).choices[0].logprobs is not None
    assert (await ask(executor, FRANCE, max_tokens=2)).choices[0].logprobs is None


@in_module_loop
async def test_several_choices_differ_when_drawn(executor: MlxExecutor) -> None:
    sampling = SamplingParams(temperature=1.5, seed=1)
    completion = await ask(executor, "Invent a word.", n=3, max_tokens=4, sampling=sampling)
    assert len({choice.text for choice in completion.choices}) > 1


@in_module_loop
async def test_penalties_and_bias_change_the_answer(executor: MlxExecutor, demo_model: Path) -> None:
    (paris,) = Tokenizer.from_file(str(demo_model / "tokenizer.json")).encode(" Paris").ids
    banned = await ask(executor, FRANCE, max_tokens=8, sampling=SamplingParams(logit_bias=((paris, -100.0),)))
    assert banned.choices[0].text.startswith("The capital of France is")
    assert "Paris" not in banned.choices[0].text
    forced = SamplingParams(logit_bias=((paris, 100.0),))
    assert (await ask(executor, FRANCE, max_tokens=3, sampling=forced)).choices[0].text == "Paris Paris Paris"
    repeated = SamplingParams(repetition_penalty=1.5)
    assert (await ask(executor, FRANCE, max_tokens=8, sampling=repeated)).choices[0].text != PARIS


@in_module_loop
async def test_a_prompt_longer_than_the_context_is_refused_with_its_counts(executor: MlxExecutor) -> None:
    with pytest.raises(ContextLengthExceeded, match=r"8192 tokens, but the prompt has 1\d{4}"):
        await executor.submit(question("word " * 10_000))


@in_module_loop
async def test_leaving_in_the_middle_of_a_prompt_frees_the_place(executor: MlxExecutor) -> None:
    answer = await executor.submit(question("word " * 2000))
    await until(lambda: executor.status().running == 1)
    await answer.aclose()
    assert (await ask(executor, FRANCE)).choices[0].text == PARIS
    assert executor.status().running == executor.status().waiting == 0


@in_module_loop
async def test_a_question_does_not_wait_for_a_document_to_be_read(executor: MlxExecutor) -> None:
    document = "word " * 400
    alone = await ask(executor, document, max_tokens=4)
    ended: list[str] = []

    async def ask_for(name: str, text: str, **fields: Any) -> Completion:
        completion = await ask(executor, text, **fields)
        ended.append(name)
        return completion

    reading = asyncio.ensure_future(ask_for("document", document, max_tokens=4))
    await until(lambda: executor.status().running == 1)
    questions = [ask_for("question", FRANCE), ask_for("other question", "Say hello.", max_tokens=2)]
    answer, _ = await asyncio.gather(*questions)
    assert answer.choices[0].text == PARIS
    assert (await reading).choices == alone.choices
    assert ended[-1] == "document"


class FaultyEngine:
    """A real engine that fails at given steps."""

    def __init__(self, engine: Engine, fail: Callable[[int], None]) -> None:
        self._engine = engine
        self._fail = fail
        self._steps = 0

    @property
    def prompt_tokens_read(self) -> int:
        return self._engine.prompt_tokens_read

    def shortfall(self, lengths: list[int]) -> int:
        return self._engine.shortfall(lengths)

    def longest(self) -> int:
        return self._engine.longest()

    def reserve(self, lengths: Mapping[int, int]) -> None:
        self._engine.reserve(lengths)

    def prefix_cache_bytes(self) -> int:
        return self._engine.prefix_cache_bytes()

    def memory_bytes(self) -> int:
        return self._engine.memory_bytes()

    def peak_bytes(self) -> int:
        return self._engine.peak_bytes()

    def tuning(self) -> Tuning:
        return self._engine.tuning()

    def prefixes(self) -> list[PrefixBranch]:
        return self._engine.prefixes()

    def insert(self, sequence: Sequence) -> None:
        self._engine.insert(sequence)

    def remove(self, sequence: int) -> None:
        self._engine.remove(sequence)

    def reading(self) -> dict[int, int]:
        return self._engine.reading()

    def step(self) -> list[Token]:
        self._steps += 1
        tokens = self._engine.step()
        self._fail(self._steps)
        return tokens

    def reset(self) -> None:
        self._engine.reset()

    def close(self) -> None:
        self._engine.close()


@in_module_loop
async def test_a_failing_engine_is_rebuilt_and_answers_right(tiny_model: Path) -> None:
    def load(fail: Callable[[int], None]) -> Loader:
        def load_faulty(*args: Any) -> Runtime:
            runtime = load_runtime(*args)
            return msgspec.structs.replace(runtime, engine=FaultyEngine(runtime.engine, fail))

        return load_faulty

    async with serving(tiny_model) as healthy:
        expected = (await ask(healthy, FRANCE)).choices[0].text
    async with serving(tiny_model, load(failing_at(1, 4))) as faulty:
        with pytest.raises(EngineFailed):
            await ask(faulty, FRANCE)
        assert (await ask(faulty, FRANCE)).choices[0].text == expected


@in_module_loop
async def test_requests_join_and_leave_at_random(tiny_model: Path) -> None:
    async with serving(tiny_model, max_concurrency=3) as executor:
        expected = {length: (await ask(executor, FRANCE, max_tokens=length)).choices[0].text for length in (1, 5, 20)}

        async def one(i: int) -> None:
            length = (1, 5, 20)[i % 3]
            answer = await executor.submit(question(FRANCE, max_tokens=length))
            if i % 4 == 3:
                await answer.aclose()
            else:
                assert (await collect(answer.events())).choices[0].text == expected[length]

        await asyncio.gather(*[one(i) for i in range(40)])
        await until(lambda: executor.status().running == 0)


def test_importing_the_executor_imports_no_mlx() -> None:
    loaded = "[m for m in ('mlx.core', 'transformers') if m in sys.modules]"
    code = f"import sys, service.executor.mlx_executor; print({loaded})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
