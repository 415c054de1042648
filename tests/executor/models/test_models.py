import gc
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest

from tests.executor.models.modes import MAX_TOKENS, MIDDLE, TIE, Modes
from tests.executor.models.table import Row, Table
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

# mlx-lm masks for a window of one token more than it keeps: answers depend on where a prompt is cut.
TIES = {"plamo3": 0.1}

ALL = [name for name in families() if name not in CANNOT_BE_TRIED]


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """Writes `docs/models.md` once all families have passed."""
    table = Table(CANNOT_BE_TRIED)
    yield table
    if {row.family for row in table.rows} == set(ALL):
        table.write()


def check(name: str, folder: Path) -> Row:
    modes = Modes(make_tiny(name), folder, tie=TIES.get(name, TIE))
    assert modes.batching.possible == (name not in ONE_AT_A_TIME), modes.batching.reason
    modes.alone_and_together()
    modes.joins_leaves_and_aborts()
    modes.behind_one_prefix()
    modes.with_guesses()
    modes.prefixes_are_used()
    state = modes.state()
    if state.kind == "tokens":
        assert state.per_turn == state.per_token * (len(MIDDLE) + MAX_TOKENS)
    elif state.kind in ("windows", "recurrent"):  # full attention layers of the one state that is kept grow
        assert state.per_turn <= 4 * state.per_token * (len(MIDDLE) + MAX_TOKENS)
    row = Row(name, modes.batching, state)
    del modes
    gc.collect()
    mx.clear_cache()
    return row


@pytest.mark.parametrize("name", SAMPLE)
def test_a_family_answers_as_mlx_lm_does(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.models
@pytest.mark.parametrize("name", ALL)
def test_each_family_answers_as_mlx_lm_does(name: str, tmp_path: Path, table: Table) -> None:
    table.rows.append(check(name, tmp_path))
