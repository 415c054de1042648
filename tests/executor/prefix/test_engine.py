"""The engine with a prefix cache, on tiny random models of every kind of state: the same tokens with it and without."""

import gc
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
import pytest
from mlx_lm.models.cache import make_prompt_cache

from service.device.kv_estimate import SMALLEST_CHUNK
from service.executor.engine.batch_engine import BatchEngine
from service.executor.engine.chunks import LAST_CHUNKS, Attention, ChunkShape, ChunkSizes, Surroundings
from service.executor.loading.batching import Batching
from service.executor.loading.cache_cost import CacheCost, measure_cache_cost
from service.executor.loading.device import room_bytes
from service.executor.prefix.cache import SPAN_TOKENS, NoPrefixCache, PrefixCache, Prefixes
from service.executor.prefix.state import PromptStates
from service.executor.prefix.store import PrefixStore
from service.executor.prefix.tree import Node
from service.executor.prefix.worth import MeasuredPrices, least_tokens
from service.executor.scheduling.messages import Prompt, PromptUse, Sequence
from service.executor.scheduling.protocols import Token
from service.executor.speculation.drafters import Drafters
from service.tallies import Tuning
from tests.executor.engines import sequence

A_LOT = 10**9
CHUNK = 16

TRANSFORMER = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 199,
    "tie_word_embeddings": False,
}
SLIDING_WINDOW = {
    **TRANSFORMER,
    "model_type": "gemma3_text",
    "num_hidden_layers": 3,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 24,
    "sliding_window_pattern": 3,
}
RECURRENT = {
    "model_type": "mamba2",
    "num_heads": 4,
    "head_dim": 16,
    "vocab_size": 199,
    "hidden_size": 32,
    "intermediate_size": 64,
    "state_size": 8,
    "num_hidden_layers": 2,
    "layer_norm_epsilon": 1e-5,
    "conv_kernel": 4,
    "n_groups": 1,
    "use_bias": False,
    "use_conv_bias": True,
    "tie_word_embeddings": False,
    "time_step_limit": (0.001, 100.0),
    "time_step_rank": "auto",
}
HYBRID = {
    "model_type": "falcon_h1",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 199,
    "mamba_d_ssm": 32,
    "mamba_d_head": 8,
    "mamba_n_heads": 4,
    "mamba_d_state": 8,
    "mamba_chunk_size": 16,
    "tie_word_embeddings": False,
}
CONFIGS = {config["model_type"]: config for config in (TRANSFORMER, SLIDING_WINDOW, RECURRENT, HYBRID)}

SYSTEM = [(7 * i) % 190 for i in range(50)]
QUESTION = [(11 * i + 3) % 190 for i in range(21)]
OTHER = [(13 * i + 5) % 190 for i in range(34)]
BOUNDARIES = (len(SYSTEM),)


class Run(msgspec.Struct, frozen=True):
    tokens: tuple[int, ...]
    use: PromptUse


class Harness:
    """An engine that runs what it is given to its end."""

    def __init__(
        self,
        model: Any,
        prefixes: Prefixes,
        room: Callable[[], int | None] = room_bytes,
        drafters: Drafters | None = None,
        chunks: ChunkSizes | None = None,
    ) -> None:
        self.prefixes = prefixes
        self.engine = BatchEngine(
            model,
            {198},
            batching=Batching(4),
            chunks=chunks or ChunkSizes(CHUNK),
            prefixes=prefixes,
            drafters=drafters,
            room=room,
        )
        self.read: list[int] = []
        self._ids = iter(range(10_000))

    def start(self, prompt: list[int], *, max_tokens: int = 6, choice: int = 0, **request: Any) -> Sequence:
        started = msgspec.structs.replace(
            sequence(next(self._ids), max_tokens=max_tokens, **request),
            prompt=Prompt(prompt, boundaries=BOUNDARIES),
            choice=choice,
        )
        self.engine.reserve({started.id: len(prompt) + max_tokens})
        self.engine.insert(started)
        return started

    def finish(self, *sequences: Sequence) -> list[Run]:
        tokens: dict[int, list[int]] = {each.id: [] for each in sequences}
        uses: dict[int, PromptUse] = {}
        while len(uses) < len(sequences):
            for token in self.engine.step():
                tokens[token.sequence].append(token.id)
                if token.end is not None:
                    assert token.prompt_use is not None
                    uses[token.sequence] = token.prompt_use
        return [Run(tuple(tokens[each.id]), uses[each.id]) for each in sequences]

    def run(self, prompt: list[int], **fields: Any) -> Run:
        """Alone. `read` gets how many tokens of its prompt were computed."""
        before = self.engine.prompt_tokens_read
        (run,) = self.finish(self.start(prompt, **fields))
        self.read.append(self.engine.prompt_tokens_read - before)
        return run


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Any:
    return make_model(request.param)


@pytest.fixture
def transformer() -> Any:
    return make_model("llama")


def make_model(kind: str, **config: Any) -> Any:
    mx.random.seed(3)
    module = importlib.import_module(f"mlx_lm.models.{kind}")
    made = module.Model(module.ModelArgs.from_dict(CONFIGS[kind] | config))
    mx.eval(made.parameters())
    return made


def with_cache(
    model: Any, folder: Path | None = None, memory: int = A_LOT, chunks: ChunkSizes | None = None
) -> Harness:
    caches = PromptStates(model)
    store = None if folder is None else PrefixStore(folder, "tiny", A_LOT, caches)
    return Harness(model, PrefixCache(caches, memory, store), chunks=chunks)


def conversation(harness: Harness) -> list[Run]:
    """Two questions under one system prompt, the first again, and a second turn after it."""
    runs = [harness.run(SYSTEM + QUESTION), harness.run(SYSTEM + OTHER), harness.run(SYSTEM + QUESTION)]
    return [*runs, harness.run([*SYSTEM, *QUESTION, *runs[0].tokens, *OTHER])]


def test_the_same_tokens_with_and_without(model: Any) -> None:
    plain, cached = Harness(model, NoPrefixCache()), with_cache(model)
    assert [run.tokens for run in conversation(cached)] == [run.tokens for run in conversation(plain)]


def test_what_is_known_is_not_read_again(model: Any) -> None:
    harness = with_cache(model)
    uses = [run.use for run in conversation(harness)]
    system, question = len(SYSTEM), len(SYSTEM) + len(QUESTION)
    assert [use.cached_tokens for use in uses[:3]] == [0, system, question - 1]
    assert uses[3].cached_tokens >= question - 1
    prompts = [question, system + len(OTHER), question, question + 6 + len(OTHER)]
    assert harness.read == [prompt - use.cached_tokens for prompt, use in zip(prompts, uses, strict=True)]
    assert [use.stored_tokens for use in uses[:2]] == [question, len(OTHER)]


def test_the_same_tokens_in_a_batch(model: Any) -> None:
    prompts = [SYSTEM + QUESTION, SYSTEM + OTHER, QUESTION, [*SYSTEM, *QUESTION, *OTHER], SYSTEM + OTHER]
    plain = Harness(model, NoPrefixCache())
    alone = [plain.run(prompt).tokens for prompt in prompts]
    harness = with_cache(model)
    for _ in range(3):  # with nothing known, with some, and with all
        started = [harness.start(prompt) for prompt in prompts[:4]]
        assert [run.tokens for run in harness.finish(*started)] == alone[:4]
        assert harness.run(prompts[4]).tokens == alone[4]


class WatchedPrefixes(PrefixCache):
    """Notes the lengths of the states that it gets."""

    def __init__(self, caches: PromptStates) -> None:
        super().__init__(caches, A_LOT)
        self.kept: list[int] = []

    def keep(self, caller: str, tokens: list[int], caches: list[Any]) -> int:
        self.kept.append(len(tokens))
        return super().keep(caller, tokens, caches)


@pytest.mark.parametrize("lookup", [False, True])
def test_a_prompt_is_kept_after_its_first_token_is_delivered(transformer: Any, lookup: bool) -> None:
    prefixes = WatchedPrefixes(PromptStates(transformer))
    harness = Harness(transformer, prefixes, drafters=Drafters(lookup=lookup))
    harness.start(SYSTEM + QUESTION)
    tokens: list[Token] = []
    while not tokens:
        tokens = harness.engine.step()
    assert prefixes.kept == []
    harness.engine.step()
    assert len(prefixes.kept) == 1


def test_a_prompt_is_kept_at_once_for_another_that_begins_alike(transformer: Any) -> None:
    prefixes = WatchedPrefixes(PromptStates(transformer))
    harness = Harness(transformer, prefixes)
    first = harness.start(SYSTEM + QUESTION)
    while harness.engine.prompt_tokens_read < len(SYSTEM + QUESTION):
        harness.engine.step()
    second = harness.start(SYSTEM + QUESTION)
    one, other = harness.finish(first, second)
    assert one.tokens == other.tokens
    assert harness.engine.prompt_tokens_read < len(SYSTEM + QUESTION) + LAST_CHUNKS * CHUNK + 2


def test_a_restart_keeps_what_is_known(model: Any, tmp_path: Path) -> None:
    first = with_cache(model, tmp_path)
    before = conversation(first)
    first.engine.close()
    second = with_cache(model, tmp_path)
    after = conversation(second)
    assert [run.tokens for run in after] == [run.tokens for run in before]
    assert all(run.use.cached_tokens >= len(SYSTEM) for run in after)
    # Of states that cannot be cut, those of an earlier turn were dropped.
    assert second.prefixes.needs_boundaries or all(run.use.stored_tokens == 0 for run in after)
    second.engine.close()


def test_a_state_is_loaded_once_for_a_prompt(model: Any, tmp_path: Path) -> None:
    class CountedStore(PrefixStore):
        loads = 0

        def load(self, node: Node) -> Any:
            self.loads += 1
            return super().load(node)

    first = with_cache(model, tmp_path)
    first.run(SYSTEM + QUESTION)
    first.engine.close()
    states = PromptStates(model)
    store = CountedStore(tmp_path, "tiny", A_LOT, states)
    harness = Harness(model, PrefixCache(states, 0, store))  # memory keeps none of them
    started = harness.start(SYSTEM + OTHER)
    loads = store.loads
    assert loads > 0
    assert harness.finish(started)[0].use.cached_tokens >= len(SYSTEM)
    assert store.loads == loads
    harness.engine.close()


def test_an_aborted_prompt_leaves_what_was_read(model: Any) -> None:
    harness = with_cache(model)
    started = harness.start(SYSTEM + QUESTION)
    for _ in range(3):
        assert harness.engine.step() == []
    harness.engine.remove(started.id)
    again = harness.run(SYSTEM + QUESTION)
    assert again.use.cached_tokens == 3 * CHUNK
    assert again.tokens == Harness(model, NoPrefixCache()).run(SYSTEM + QUESTION).tokens


def test_an_aborted_answer_leaves_its_prompt(model: Any) -> None:
    harness = with_cache(model)
    started = harness.start(SYSTEM + QUESTION, max_tokens=50)
    while not harness.engine.step():
        pass
    use = harness.engine.remove(started.id)
    assert use == PromptUse(0, len(SYSTEM) + len(QUESTION))
    assert harness.run(SYSTEM + QUESTION).use.cached_tokens == len(SYSTEM) + len(QUESTION) - 1


def test_callers_share_nothing(model: Any) -> None:
    harness = with_cache(model)
    harness.run(SYSTEM + QUESTION, caller="alice")
    assert harness.run(SYSTEM + QUESTION, caller="bob").use.cached_tokens == 0
    assert harness.run(SYSTEM + QUESTION, caller="alice").use.cached_tokens == len(SYSTEM) + len(QUESTION) - 1


def test_what_is_evicted_while_it_is_used_does_no_harm(model: Any) -> None:
    plain = Harness(model, NoPrefixCache())
    harness = with_cache(model)
    harness.run(SYSTEM + QUESTION)
    started = [harness.start(SYSTEM + OTHER), harness.start(SYSTEM + QUESTION)]
    harness.prefixes.set_headroom(-A_LOT)
    assert harness.prefixes.nbytes == 0
    runs = harness.finish(*started)
    assert [run.tokens for run in runs] == [plain.run(SYSTEM + OTHER).tokens, plain.run(SYSTEM + QUESTION).tokens]


@pytest.mark.parametrize("memory", [0, 1, 20_000, 60_000])
def test_memory_is_counted_and_limited(model: Any, memory: int) -> None:
    harness = with_cache(model, memory=memory)
    plain = [run.tokens for run in conversation(Harness(model, NoPrefixCache()))]
    assert [run.tokens for run in conversation(harness)] == plain
    assert harness.prefixes.nbytes <= memory
    assert harness.engine.prefix_cache_bytes() == harness.prefixes.nbytes


@pytest.mark.parametrize("on_disk", [False, True], ids=["in memory", "and on disk"])
def test_what_is_kept_leaves_running_sequences_what_they_were_admitted_for(tmp_path: Path, on_disk: bool) -> None:
    one_head = {"num_attention_heads": 1, "num_key_value_heads": 1}  # scores take little beside the state
    model, prompt = make_model("llama", num_hidden_layers=16, **one_head), [i % 190 for i in range(2500)]
    cost = CacheCost(measure_cache_cost(model).layers).bytes_for([len(prompt) + 6])
    most = int(1.5 * cost)
    gc.collect()  # else what earlier tests left is freed meanwhile, and counts as room
    before = mx.get_active_memory()
    caches = PromptStates(model)
    store = PrefixStore(tmp_path, "tiny", A_LOT, caches) if on_disk else None
    prefixes = PrefixCache(caches, A_LOT, store)
    harness = Harness(model, prefixes, lambda: max(0, before + most - mx.get_active_memory()))
    harness.start(prompt)
    assert harness.engine.shortfall([len(prompt) + 6]) <= 0
    held, ended = [], False
    while not ended:
        ended = any(token.end for token in harness.engine.step())
        mx.synchronize()  # a layer that grows is there twice
        held.append(mx.get_active_memory() - before)
    assert cost <= max(held) <= most
    assert 0 < prefixes.nbytes < cost / 2
    assert harness.run([*prompt, 1]).use.cached_tokens >= SPAN_TOKENS
    harness.engine.close()


def test_what_is_kept_follows_the_memory_there_is_now(transformer: Any) -> None:
    left = [A_LOT]
    harness = Harness(transformer, PrefixCache(PromptStates(transformer), A_LOT), lambda: left[0])
    started = harness.start(SYSTEM + QUESTION)
    left[0] = 0  # something else on the machine has taken it
    harness.finish(started)
    assert harness.prefixes.nbytes == 0
    started = harness.start(SYSTEM + QUESTION)
    left[0] = A_LOT
    harness.finish(started)
    assert harness.prefixes.nbytes > 0


def test_scores_count_where_a_prompt_is_admitted(transformer: Any) -> None:
    harness, lengths = Harness(transformer, NoPrefixCache(), lambda: A_LOT), [40_000]
    cost = measure_cache_cost(transformer)
    assert cost.score_bytes == SMALLEST_CHUNK * 4 * 4 * 2  # heads, bytes of a float, scores and weights
    state = CacheCost(cost.layers)
    assert harness.engine.shortfall(lengths) == state.bytes_for(lengths) + 40_192 * cost.score_bytes - int(0.9 * A_LOT)
    assert harness.engine.longest() < state.longest(A_LOT, 0)


def test_the_end_of_a_prompt_is_read_in_parts_if_its_scores_are_large(transformer: Any) -> None:
    chunks = ChunkSizes(512, Attention(score_bytes=2**20))
    harness = Harness(transformer, NoPrefixCache(), lambda: A_LOT, chunks=chunks)
    harness.start([token % 190 for token in range(300)])
    harness.engine.step()
    assert harness.engine.prompt_tokens_read == SMALLEST_CHUNK


def test_what_was_chosen_can_be_seen(model: Any, tmp_path: Path) -> None:
    states, prices = PromptStates(model), MeasuredPrices()
    store = PrefixStore(tmp_path, "tiny", A_LOT, states, prices=prices)
    harness = Harness(model, PrefixCache(states, A_LOT, store))
    assert harness.engine.tuning() == Tuning(chunk_tokens=CHUNK, file_tokens=1)
    harness.run(SYSTEM + QUESTION)
    prices.learn_write(1, 10**6)  # a token takes less to read, however busy the machine is
    cost = measure_cache_cost(model)
    expected = least_tokens(cost.fixed, cost.per_token, prices.prices)
    assert harness.engine.tuning().file_tokens == expected != 1
    assert harness.engine.peak_bytes() > 0
    harness.engine.close()


def test_answers_to_one_request_read_its_prompt_once(transformer: Any) -> None:
    harness = with_cache(transformer)
    prompt = SYSTEM + QUESTION
    started = [harness.start(prompt, choice=choice) for choice in range(3)]
    shared = started[0].prompt
    for each in started[1:]:
        harness.engine.remove(each.id)
        harness.engine.insert(msgspec.structs.replace(each, prompt=shared))
    before = harness.engine.prompt_tokens_read
    runs = harness.finish(*started)
    assert len({run.tokens for run in runs}) == 1
    rest = len(prompt) % CHUNK  # too few to be read before the batch
    assert harness.engine.prompt_tokens_read - before == len(prompt) + 2 * rest


def test_requests_that_come_together_read_what_they_share_once(model: Any) -> None:
    plain = Harness(model, NoPrefixCache())
    prompts = [[*SYSTEM, *QUESTION, *OTHER], [*SYSTEM, *OTHER], OTHER, [*SYSTEM, *OTHER, *OTHER]]
    alone = [plain.run(prompt).tokens for prompt in prompts]
    harness = with_cache(model)
    started = [harness.start(prompt) for prompt in prompts]
    stranger = harness.start(prompts[0], caller="somebody else")
    runs = harness.finish(*started, stranger)
    assert [run.tokens for run in runs] == [*alone, alone[0]]
    assert [run.use.cached_tokens >= len(SYSTEM) for run in runs] == [False, True, False, True, False]


class WatchedChunks(ChunkSizes):
    """Notes which chunks are read beside others."""

    def __init__(self) -> None:
        super().__init__(CHUNK)
        self.beside: list[bool] = []

    def choose(self, around: Surroundings) -> ChunkShape:
        self.beside.append(around.beside)
        return super().choose(around)


def test_a_prompt_that_others_wait_for_is_read_as_fast_as_alone(transformer: Any) -> None:
    chunks = WatchedChunks()
    harness = with_cache(transformer, chunks=chunks)
    started = [harness.start([*SYSTEM, *OTHER, *end]) for end in (QUESTION, OTHER)]
    harness.finish(*started)
    assert chunks.beside[0] is False
    chunks.beside.clear()
    started = [harness.start(prompt) for prompt in ([*OTHER, *SYSTEM], [*QUESTION, *SYSTEM])]
    harness.finish(*started)
    assert chunks.beside[0] is True


def test_nothing_stays_of_a_request_that_must_not_be_stored(model: Any, tmp_path: Path) -> None:
    harness, plain = with_cache(model, tmp_path), Harness(model, NoPrefixCache())
    expected = plain.run(SYSTEM + QUESTION).tokens
    secret, other = (harness.start(SYSTEM + QUESTION, no_store=True) for _ in range(2))
    runs = harness.finish(secret, other)
    assert [run.tokens for run in runs] == [expected] * 2
    assert [run.use.cached_tokens for run in runs] == [0, 0]
    assert harness.prefixes.nbytes == 0
    harness.run(SYSTEM + OTHER)
    assert harness.run(SYSTEM + QUESTION, no_store=True).use.cached_tokens == len(SYSTEM)
    aborted = harness.start([*OTHER, *QUESTION], no_store=True)
    harness.engine.step()
    harness.engine.remove(aborted.id)
    kept = harness.prefixes.nbytes
    harness.engine.close()
    again = with_cache(model, tmp_path)
    assert again.run(SYSTEM + QUESTION).use.cached_tokens == len(SYSTEM)
    assert again.run([*OTHER, *QUESTION]).use.cached_tokens == 0
    assert kept > 0


def test_who_waits_for_another_goes_on_when_that_one_leaves(model: Any) -> None:
    harness = with_cache(model)
    leader, follower = harness.start([*SYSTEM, *QUESTION, *OTHER]), harness.start(SYSTEM + OTHER)
    assert harness.engine.step() == []
    harness.engine.remove(leader.id)
    (run,) = harness.finish(follower)
    assert run.use.cached_tokens == CHUNK
    assert run.tokens == Harness(model, NoPrefixCache()).run(SYSTEM + OTHER).tokens


@pytest.mark.parametrize(("kind", "arrays"), [("llama", 1), ("gemma3_text", 2), ("mamba2", 2), ("falcon_h1", 3)])
def test_the_layers_of_a_state_share_their_arrays(kind: str, arrays: int) -> None:
    model = make_model(kind, num_hidden_layers=8)
    caches, cache = PromptStates(model), make_prompt_cache(model)
    model(mx.array([OTHER]), cache=cache)
    assert len(caches.capture(cache, 0, len(OTHER)).arrays) == arrays


def test_states_hold_only_what_is_used(transformer: Any) -> None:
    """mlx-lm makes room for 256 tokens at a time."""
    harness = with_cache(transformer)
    harness.run(SYSTEM, max_tokens=1)
    per_token = 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes of a float
    assert harness.prefixes.nbytes == per_token * (len(SYSTEM) + 1)


class Unknown:
    """A kind of prompt cache that nobody knows."""


def test_a_model_with_a_state_of_another_kind_is_refused(transformer: Any) -> None:
    kind: Callable[[], list[Any]] = lambda: [Unknown()]  # noqa: E731
    transformer.make_cache = kind
    with pytest.raises(ValueError, match="Unknown"):
        PromptStates(transformer)


def test_bfloat16_comes_back_from_disk(transformer: Any, tmp_path: Path) -> None:
    transformer.set_dtype(mx.bfloat16)
    first = with_cache(transformer, tmp_path)
    before = first.run(SYSTEM + QUESTION)
    first.engine.close()
    second = with_cache(transformer, tmp_path)
    after = second.run(SYSTEM + QUESTION)
    second.engine.close()
    assert after.use.cached_tokens == len(SYSTEM) + len(QUESTION) - 1
    assert after.tokens == before.tokens


@pytest.mark.parametrize("length", [10, 24, 30, 100])
def test_a_window_is_cut_to_its_rows_before_it_is_kept(length: int) -> None:
    model = make_model("gemma3_text")
    caches, cache = PromptStates(model), make_prompt_cache(model)
    model(mx.array([QUESTION[:10]]), cache=cache)
    if length > 10:
        model(mx.array([list(range(length - 10))]), cache=cache)
    state = caches.capture(cache, 0, length)
    windows = [size for layer in cache if (size := getattr(layer, "max_size", None))]
    rows = {min(length, *windows), length}  # of windows, and of full attention
    assert {array.shape[2] for array in state.arrays} == rows
    token = mx.array([[5]])
    assert mx.allclose(model(token, cache=cache), model(token, cache=caches.restore([(state, length)])), atol=1e-5)
