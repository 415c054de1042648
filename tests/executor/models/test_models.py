import gc
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from tests.executor.models.modes import Modes
from tests.executor.models.tiny import families, make_tiny

SAMPLE = [
    "llama", "qwen3_moe", "qwen3_next", "qwen3_5", "gpt_oss", "gemma3_text", "gemma4_text", "deepseek_v3", "glm4_moe",
    "nemotron_h", "lfm2", "mamba", "llama4", "gemma2", "minimax_m3_vl",
]  # fmt: skip

CANNOT_BE_TRIED = {
    "bitnet": "needs a Metal kernel",
    "muse_spark": "needs a Metal kernel",
    "olmo": "needs the package ai2-olmo",
    "phi3small": "ends the process in mlx-lm",
    "prism_hadamard_qwen35": "needs packed weights",
}

ONE_AT_A_TIME = {"afm7", "deepseek_v41", "gemma2", "gpt_bigcode", "llama4", "minimax_m3_vl"}


@pytest.fixture
def modes(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    yield Modes(make_tiny(request.param), tmp_path)
    gc.collect()
    mx.clear_cache()


def check(modes: Modes, name: str) -> None:
    assert modes.batching.possible == (name not in ONE_AT_A_TIME), modes.batching.reason
    modes.alone_and_together()
    modes.joins_leaves_and_aborts()
    modes.with_guesses()
    modes.prefixes_are_used()


@pytest.mark.parametrize(("modes", "name"), [(name, name) for name in SAMPLE], ids=SAMPLE, indirect=["modes"])
def test_a_family_answers_as_mlx_lm_does(modes: Modes, name: str) -> None:
    check(modes, name)


OTHERS = [name for name in families() if name not in {*SAMPLE, *CANNOT_BE_TRIED}]


@pytest.mark.models
@pytest.mark.parametrize(("modes", "name"), [(name, name) for name in OTHERS], ids=OTHERS, indirect=["modes"])
def test_another_family_answers_as_mlx_lm_does(modes: Modes, name: str) -> None:
    check(modes, name)
