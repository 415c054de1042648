"""What the engine chooses on real machines."""

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from service.device.memory import dense_weights_fit, usable_bytes
from service.executor.engine.chunks import (
    FIRST_ON_CPU,
    FIRST_ON_GPU,
    Attention,
    Surroundings,
    first_chunk,
    largest_chunk,
)
from service.executor.engine.lanes import MOST_LANES, most_lanes
from service.executor.loading.attention import read_attention
from service.executor.prefix.opening import FALLBACK_BYTES, memory_for_prefixes
from tests.device.machines import MACHINES

HEADS_OF_128 = SimpleNamespace(num_attention_heads=32, hidden_size=4096)
HEADS_OF_256 = SimpleNamespace(num_attention_heads=16, hidden_size=2048, head_dim=256)


# Half of what is usable, in MiB.
@pytest.mark.parametrize(
    ("name", "prefix_mib"),
    [
        ("M1 8 GB", 1_843),
        ("M2 16 GB", 5_461),
        ("M3 24 GB", 8_192),
        ("M1 Pro 32 GB", 10_922),
        ("M4 Pro 36 GB", 13_824),
        ("M4 Max 48 GB", 18_432),
        ("M5 Max 128 GB", 49_152),
        ("M3 Ultra 512 GB", 196_608),
        ("RTX 8 GB", 3_932),
        ("RTX 24 GB", 11_796),
        ("A100 80 GB", 39_321),
        ("Linux 16 GB", 6_144),
        ("Linux 64 GB", 24_576),
    ],
)
def test_the_prefix_cache_takes_half_of_what_is_free(name: str, prefix_mib: int) -> None:
    assert memory_for_prefixes(None, usable_bytes(MACHINES[name])) // 2**20 == prefix_mib


# Bytes of 4-bit weights, and of the state of a token.
QWEN3_8B = (4_600_000_000, 147_456)
QWEN3_14B = (8_300_000_000, 163_840)
CODER_30B = (17_200_000_000, 98_304)


# Claude Code's own prompt has about 12,000 tokens.
@pytest.mark.parametrize(
    ("name", "model", "tokens"),
    [
        ("M2 16 GB", QWEN3_8B, 23_238),
        ("M3 24 GB", QWEN3_14B, 27_099),
        ("M1 Pro 32 GB", CODER_30B, 29_024),
        ("M4 Max 48 GB", CODER_30B, 109_124),
        ("RTX 24 GB", CODER_30B, 38_345),
    ],
)
def test_the_prefix_cache_holds_a_conversation_beside_the_weights(
    name: str, model: tuple[int, int], tokens: int
) -> None:
    (weights, token_bytes), empty = model, MACHINES[name]
    free, card_free = (empty.free or 0) - weights, (empty.card_free or 0) - weights
    loaded = replace(empty, active=weights, free=free, card_free=card_free)
    assert memory_for_prefixes(None, usable_bytes(loaded)) // token_bytes == tokens


@pytest.mark.parametrize(
    ("setting", "room", "nbytes"),
    [(7, 2**40, 7), (0, 2**40, 0), (None, None, FALLBACK_BYTES // 2), (None, 0, 0), (None, -(2**30), 0)],
    ids=["set", "off", "unknown", "none free", "others need some of it"],
)
def test_the_prefix_cache_takes_nothing_that_is_not_free(setting: int | None, room: int | None, nbytes: int) -> None:
    assert memory_for_prefixes(setting, room) == nbytes


# Dense f32 weights of 0.6, 1.7, 4, 8 and 14 billion parameters.
@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("Linux 16 GB", [True, True, False, False, False]),
        ("Linux 64 GB", [True, True, True, True, False]),
    ],
)
def test_weights_become_dense_on_a_cpu_if_they_take_three_fifths_of_what_is_free(name: str, fits: list[bool]) -> None:
    sizes = [int(4e9 * billions) for billions in (0.6, 1.7, 4, 8, 14)]
    assert [dense_weights_fit(MACHINES[name], size) for size in sizes] == fits
    assert dense_weights_fit(replace(MACHINES[name], free=None), sizes[-1])


@pytest.mark.parametrize("name", MACHINES)
def test_chunks_are_small_and_lanes_several_on_a_cpu_only(name: str) -> None:
    figures = MACHINES[name]
    lanes = [most_lanes(figures.kind, threads) for threads in (0, 1, 2, figures.cores)]
    expected = (FIRST_ON_CPU, [1, 1, 2, MOST_LANES]) if figures.kind == "cpu" else (FIRST_ON_GPU, [1, 1, 1, 1])
    assert (first_chunk(figures.kind), lanes) == expected


@pytest.mark.parametrize("name", MACHINES)
def test_scores_are_kept_where_no_kernel_spares_them(name: str) -> None:
    kind = MACHINES[name].kind
    bytes_each = 2 * 4 if kind == "cpu" else 4
    assert read_attention(HEADS_OF_128, kind).score_bytes == (32 * bytes_each if kind == "cpu" else 0)
    assert read_attention(None, kind).score_bytes == 32 * bytes_each
    assert read_attention(HEADS_OF_256, kind).score_bytes == 16 * bytes_each


# Tokens that a model which fits is read with in a second. They follow from the arithmetic of each machine, and were not
# measured. An eighth of its free memory is left, and the model keeps the scores of 16 heads.
@pytest.mark.parametrize(
    ("name", "read_rate", "alone", "beside", "after_30000"),
    [
        ("M1 8 GB", 150, 256, 64, 64),
        ("M2 16 GB", 250, 256, 64, 128),
        ("M3 24 GB", 220, 256, 64, 256),
        ("M1 Pro 32 GB", 500, 512, 128, 256),
        ("M4 Pro 36 GB", 800, 1024, 256, 256),
        ("M4 Max 48 GB", 1500, 2048, 512, 512),
        ("M5 Max 128 GB", 4000, 2048, 1024, 512),
        ("M3 Ultra 512 GB", 700, 1024, 256, 512),
        ("RTX 8 GB", 3000, 2048, 1024, 128),
        ("RTX 24 GB", 6000, 2048, 2048, 256),
        ("A100 80 GB", 9000, 2048, 2048, 512),
        ("Linux 16 GB", 150, 256, 64, 128),
        ("Linux 64 GB", 60, 64, 64, 64),
    ],
)
def test_chunks_follow_the_speed_and_the_room(
    name: str, read_rate: int, alone: int, beside: int, after_30000: int
) -> None:
    usable = usable_bytes(MACHINES[name])
    assert usable is not None

    def largest(around: Surroundings, score_bytes: int = 0) -> int:
        return largest_chunk(around, Attention(score_bytes), 1 / read_rate)

    assert largest(Surroundings(read=0)) == alone
    assert largest(Surroundings(read=0, beside=True)) == beside
    assert largest(Surroundings(read=30_000, room=usable // 8), 16 * 4) == after_30000
