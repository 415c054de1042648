"""Admission on a Mac that is not at hand: Qwen3-Coder-30B on 32 GB, from HTTP to the engine's account of memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import mlx.core as mx
import msgspec
import pytest

from service.app import create_app
from service.device.figures import DeviceFigures
from service.device.memory import missing_bytes, usable_bytes
from service.executor.engine.batch_engine import BatchEngine
from service.executor.engine.chunks import ChunkSizes
from service.executor.loading.batching import Batching
from service.executor.loading.cache_cost import CacheCost, LayerCost, measure_cache_cost
from service.executor.mlx_executor import MlxExecutor
from service.executor.prefix.cache import PrefixCache
from service.executor.prefix.state import PromptStates
from service.executor.runtime import Loader, Runtime, SharedRuntime, release_thread
from service.executor.scheduling.messages import Sequence
from service.profile import ModelProfile
from service.settings import Settings
from tests.device.machines import MACHINES
from tests.executor.engines import CountingEngine, NumberWriter, WordRenderer, counting_loader
from tests.executor.prefix.test_engine import A_LOT, CHUNK, make_model
from tests.serving import client_of, running, settings

CODER_30B = CacheCost((LayerCost(per_token=2048),) * 48)
WEIGHT_BYTES = 17_200_000_000
PROFILE = ModelProfile(id="Qwen3-Coder-30B", fingerprint="1", context_length=262_144)
SHORTER = 26
UNLOADED = MACHINES["M1 Pro 32 GB"]


def with_held(figures: DeviceFigures, held: int) -> DeviceFigures:
    """The figures when MLX holds `held` more bytes."""
    return msgspec.structs.replace(figures, active=figures.active + held, free=(figures.free or 0) - held)


# 22,906,492,245 bytes are recommended: 0.9 * (22,906,492,245 - 17,200,000,000) / 98,304 = 52,244 tokens.
MAC = with_held(UNLOADED, WEIGHT_BYTES)
OFFERED = 52_224
# Of 22,000,000,000 free bytes, 1,717,986,918 are left to other programs:
# 0.9 * (22,000,000,000 - 1,717,986,918 - 17,200,000,000) / 98,304 = 28,217 tokens.
FULL_MAC = with_held(msgspec.structs.replace(UNLOADED, free=22_000_000_000), WEIGHT_BYTES)
OFFERED_ON_FULL = 28_160


class SimulatedEngine(CountingEngine):
    """Counts bytes as the engine on MLX does, on a machine with these figures beside the state of what runs. Prompts
    take one step."""

    def __init__(self, figures: DeviceFigures) -> None:
        super().__init__(at_once=64)
        self.figures = figures

    def shortfall(self, lengths: list[int]) -> int:
        return missing_bytes(CODER_30B.bytes_for(lengths), usable_bytes(self.figures), held=0)

    def longest(self) -> int:
        return CODER_30B.longest(usable_bytes(self.figures), held=0)

    def insert(self, sequence: Sequence) -> None:
        super().insert(sequence)
        self._unread[sequence.id] = 2


class TinyModel:
    """Loads the engine on MLX with a tiny model, on a Mac made smaller: its memory holds a `SHORTER`th of the tokens.
    `held` are bytes of state, in the Mac's measure, whenever the engine looks at its memory."""

    def __init__(self, figures: DeviceFigures) -> None:
        self.figures = figures
        self.held: list[int] = []

    def __call__(self, path: Path, profile: ModelProfile, configured: Settings) -> Runtime:
        model = make_model("llama")
        cost, before = measure_cache_cost(model), mx.get_active_memory()
        scale = SHORTER * CODER_30B.per_token // (cost.per_token + cost.score_bytes)

        def room() -> int | None:
            self.held.append(scale * (mx.get_active_memory() - before))
            usable = usable_bytes(with_held(self.figures, self.held[-1]))
            return None if usable is None else usable // scale

        prefixes = PrefixCache(PromptStates(model), A_LOT)
        engine = BatchEngine(model, set(), batching=Batching(2), chunks=ChunkSizes(CHUNK), prefixes=prefixes, room=room)
        shared = SharedRuntime(renderer=WordRenderer(), logits=100)
        return Runtime(engine=engine, open_writer=NumberWriter, shared=shared, release=release_thread)


@asynccontextmanager
async def serving(tmp_path: Path, load: Loader) -> AsyncIterator[httpx.AsyncClient]:
    configured = settings(tmp_path)
    executor = MlxExecutor(Path("simulated"), PROFILE, configured, load=load)
    app = create_app(configured, executor=executor)
    async with (
        running(app, configured) as url,
        client_of(url) as client,
    ):
        await client.post("/v1/messages", json=message("hello", max_tokens=1))
        yield client


def message(text: str, **fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}]} | fields


async def context_length(client: httpx.AsyncClient) -> int:
    (model,) = (await client.get("/v1/models")).json()["data"]
    assert model["context_length"] == model["max_model_len"] == model["max_input_tokens"]
    return int(model["context_length"])


async def test_a_long_prompt_with_a_high_max_tokens_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path, counting_loader(SimulatedEngine(MAC))) as client:
        answer = await client.post("/v1/messages", json=message("word " * 20_000, max_tokens=32_000))
        assert answer.status_code == 200
        assert answer.json()["usage"]["output_tokens"] == 32_000


@pytest.mark.parametrize(
    ("figures", "tokens"), [(MAC, OFFERED), (FULL_MAC, OFFERED_ON_FULL)], ids=["Metal's limit", "other programs"]
)
async def test_the_context_that_is_offered_is_the_one_that_works(
    tmp_path: Path, figures: DeviceFigures, tokens: int
) -> None:
    async with serving(tmp_path, counting_loader(SimulatedEngine(figures))) as client:
        offered = await context_length(client)
        assert offered == tokens
        answer = await client.post("/v1/messages", json=message("word " * (offered - 10), max_tokens=32_000))
        assert answer.json()["usage"]["output_tokens"] == 10
        assert answer.json()["stop_reason"] == "max_tokens"
        refused = await client.post("/v1/messages", json=message("word " * offered, max_tokens=1))
        assert refused.status_code == 400
        assert refused.json()["error"] == {
            "type": "invalid_request_error",
            "message": f"prompt is too long: {offered} tokens > {offered} maximum",
        }
        refused = await client.post("/v1/chat/completions", json=message("word " * offered))
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
        again = await client.post("/v1/messages", json=message("word " * (offered - 10), max_tokens=32_000))
        assert "hit" not in again.headers["cache-status"]  # memory cut the answer


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_that_grows_ends_as_too_long_and_never_as_overload(tmp_path: Path, stream: bool) -> None:
    async with serving(tmp_path, counting_loader(SimulatedEngine(MAC))) as client:
        for turn in range(1, 201):
            body = message("word " * (400 * turn), max_tokens=32_000, stop_sequences=["5"], stream=stream)
            answer = await client.post("/v1/messages", json=body)
            if answer.status_code != 200:
                break
        assert (answer.status_code, turn) == (400, 131)
        assert answer.json()["error"]["message"] == "prompt is too long: 52400 tokens > 52224 maximum"


@pytest.mark.parametrize(
    ("figures", "tokens"), [(MAC, OFFERED), (FULL_MAC, OFFERED_ON_FULL)], ids=["Metal's limit", "other programs"]
)
async def test_the_engine_on_mlx_keeps_to_the_memory_of_the_mac(
    tmp_path: Path, figures: DeviceFigures, tokens: int
) -> None:
    load = TinyModel(figures)
    async with serving(tmp_path, load) as client:
        offered = await context_length(client)
        assert offered == pytest.approx(tokens / SHORTER, abs=256)
        for turn in range(1, offered // 100 + 2):
            answer = await client.post("/v1/messages", json=message("word " * (100 * turn), max_tokens=100))
            if answer.status_code != 200:
                break
        assert (answer.status_code, turn) == (400, -(-offered // 100))
        assert answer.json()["error"]["message"] == f"prompt is too long: {100 * turn} tokens > {offered} maximum"
    assert CODER_30B.bytes_for([7_500]) < max(load.held) < (usable_bytes(figures) or 0)
