from typing import Any

import mlx.core as mx
import pytest

from service.device.figures import DeviceKind
from service.executor.engine.batch_engine import BatchEngine
from service.executor.engine.chunks import ChunkSizes
from service.executor.loading.batching import (
    LAST,
    LONG,
    SHORT,
    TOLERANCE_16_BIT,
    TOLERANCE_F32,
    UNREAD_LONG,
    open_batching,
    tolerance_for,
    try_batching,
)
from service.executor.loading.shared_prefix import LEAST_SAVED_BYTES
from service.models.errors import InvalidModel
from tests.executor.engines import sequence
from tests.executor.models.tiny import make_tiny, tiny_config


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("gemma2", "changes its answers"),
        ("minimax_m3_vl", "changes its answers"),
        ("gpt_bigcode", "a batch of two fails"),
        ("llama4", "cannot be merged"),
    ],
)
def test_what_cannot_run_in_a_batch_is_found_out(family: str, reason: str) -> None:
    batching = try_batching(make_tiny(family), 4)
    assert (batching.size, batching.possible) == (1, False)
    assert reason in batching.reason


@pytest.mark.parametrize(
    ("family", "shares"), [("llama", True), ("gemma3_text", True), ("gpt_oss", True), ("deepseek_v3", False)]
)
def test_other_families_run_side_by_side(family: str, shares: bool) -> None:
    batching = try_batching(make_tiny(family), 4)
    assert (batching.size, batching.padded, batching.shares_from is not None) == (4, True, shares)


@pytest.mark.parametrize(("family", "shares"), [("mamba", False), ("qwen3_next", True)])
def test_recurrent_prompts_are_read_alone(family: str, shares: bool) -> None:
    batching = try_batching(make_tiny(family), 4)
    assert (batching.size, batching.padded, batching.shares_from is not None) == (4, False, shares)


LAYERS = [*["sliding_attention"] * 4, "full_attention"]


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gemma4_text", {"num_hidden_layers": 10, "num_kv_shared_layers": 5, "layer_types": 2 * LAYERS}),
        ("iquestloopcoder", {}),
    ],
)
def test_a_layer_that_attends_to_the_state_of_another_shares_no_beginning(
    family: str, changes: dict[str, Any], dtype: mx.Dtype
) -> None:
    """In 16 bits, the rows of the trial hardly differ: few layers of few tokens miss the beginning."""
    model = make_tiny(family, **changes)
    model.set_dtype(dtype)
    batching = try_batching(model, 4)
    assert (batching.possible, batching.shares_from) == (True, None)


def test_sharing_begins_with_the_bytes_that_pay() -> None:
    model = make_tiny("llama")
    head_bytes = 4 * (model.args.head_dim or model.args.hidden_size // model.args.num_attention_heads)
    token_bytes = 2 * model.args.num_key_value_heads * head_bytes
    assert try_batching(model, 4).shares_from == LEAST_SAVED_BYTES / token_bytes


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_the_noise_of_half_precision_is_no_fault(dtype: mx.Dtype) -> None:
    model = make_tiny("qwen3")
    model.set_dtype(dtype)
    batching = try_batching(model, 4)
    assert (batching.padded, batching.shares_from is not None) == (True, True)


@pytest.mark.parametrize(
    ("kind", "exact", "tolerance"),
    [
        ("cpu", True, TOLERANCE_F32),
        ("cpu", False, TOLERANCE_16_BIT),
        ("metal", True, TOLERANCE_16_BIT),
        ("metal", False, TOLERANCE_16_BIT),
        ("cuda", True, TOLERANCE_16_BIT),
    ],
)
def test_only_a_cpu_multiplies_f32_exactly(kind: DeviceKind, exact: bool, tolerance: float) -> None:
    assert tolerance_for(kind, exact=exact) == tolerance


def test_the_trial_takes_nine_short_passes() -> None:
    """On a CPU each takes about 0.1 seconds with the demo model."""
    model = Counted(make_tiny("llama"))
    assert try_batching(model, 4).possible
    side_by_side = [(1, LONG - UNREAD_LONG), (2, SHORT - 1), (2, 1), (2, 1)]
    behind_one_beginning = [(1, SHORT - LAST), (1, LONG - LAST), (2, LAST - 1), (2, 1)]
    assert model.shapes == [(1, SHORT), *side_by_side, *behind_one_beginning]


class Counted:
    def __init__(self, model: Any) -> None:
        self._model = model
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, tokens: mx.array, **options: Any) -> Any:
        self.shapes.append(tokens.shape)
        return self._model(tokens, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def test_sparse_attention_that_reaches_too_far_is_not_tried() -> None:
    batching = try_batching(make_tiny("minimax_m3_vl", text_config=_sparse(index_block_size=4096)), 4)
    assert "too long to try" in batching.reason


def test_a_model_that_cannot_run_says_why_in_one_line() -> None:
    class Broken:
        layers = (0,)

        def __call__(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("[metal_kernel] No Metal\n back-end.")

        def parameters(self) -> dict[str, Any]:
            return {}

        def modules(self) -> list[Any]:
            return []

    with pytest.raises(InvalidModel, match=r"^it was read but cannot run: \[metal_kernel\] No Metal back-end\. "):
        open_batching(Broken(), 2, "broken")


def test_one_that_comes_while_another_runs_waits() -> None:
    model = make_tiny("gemma2")
    engine = BatchEngine(model, set(), batching=try_batching(model, 4), chunks=ChunkSizes(16))
    engine.insert(sequence(0, max_tokens=8, prompt=5))
    engine.step()
    engine.insert(sequence(1, max_tokens=2, prompt=5))
    order = [token.sequence for _ in range(12) for token in engine.step()]
    assert order == [0] * 7 + [1] * 2


def _sparse(**changes: int) -> dict[str, Any]:
    text: dict[str, Any] = tiny_config("minimax_m3_vl")["text_config"]
    return text | changes
