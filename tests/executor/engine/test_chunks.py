import random

import pytest

from service.device.kv_estimate import SMALLEST_CHUNK
from service.executor.engine.chunks import (
    LARGEST_CHUNK,
    Attention,
    ChunkShape,
    ChunkSizes,
    Surroundings,
    largest_chunk,
)

KEPT = Attention(score_bytes=16 * 4)  # 16 heads of size 256
GB = 10**9

# Seconds per token, as measured by others for these machines and models, and for the demo model on two CPU cores.
M4_MAX_30B_A3B, M2_PRO_24B, TWO_CORES = 1 / 1500, 1 / 110, 1 / 150


@pytest.mark.parametrize(
    ("around", "attention", "seconds", "expected"),
    [
        pytest.param(Surroundings(read=0), Attention(), None, LARGEST_CHUNK, id="nothing is known"),
        pytest.param(Surroundings(read=0), Attention(), M4_MAX_30B_A3B, 2048, id="M4 Max alone"),
        pytest.param(Surroundings(read=0, beside=True), Attention(), M4_MAX_30B_A3B, 512, id="M4 Max beside"),
        pytest.param(Surroundings(read=0), Attention(), M2_PRO_24B, 128, id="M2 Pro alone"),
        pytest.param(Surroundings(read=0, beside=True), Attention(), M2_PRO_24B, 64, id="M2 Pro beside"),
        pytest.param(Surroundings(read=0), Attention(), TWO_CORES, 256, id="two cores alone"),
        pytest.param(Surroundings(read=0, beside=True), Attention(), TWO_CORES, 64, id="two cores beside"),
        pytest.param(Surroundings(read=0, beside=True), Attention(), 1.0, SMALLEST_CHUNK, id="too slow for any"),
        pytest.param(Surroundings(read=6_000), KEPT, None, 2048, id="scores fit"),
        pytest.param(Surroundings(read=30_000), KEPT, None, 512, id="scores of a long prompt"),
        pytest.param(Surroundings(read=200_000), KEPT, None, 64, id="scores of the longest prompt"),
        pytest.param(Surroundings(read=30_000, room=GB), KEPT, None, 128, id="little room"),
        pytest.param(Surroundings(read=30_000, room=0), KEPT, None, SMALLEST_CHUNK, id="no room"),
        pytest.param(
            Surroundings(read=200_000, room=GB), Attention(), None, 2048, id="fused attention keeps no scores"
        ),
    ],
)
def test_limits_of_a_chunk(around: Surroundings, attention: Attention, seconds: float | None, expected: int) -> None:
    assert largest_chunk(around, attention, seconds) == expected


def read(sizes: ChunkSizes, tokens: int, seconds_of: dict[int, float], *, beside: bool = False) -> list[int]:
    """Reads a prompt on a machine that takes `seconds_of` a chunk of each size."""
    chosen = read_in_lanes(
        sizes, tokens, {ChunkShape(size): seconds for size, seconds in seconds_of.items()}, beside=beside
    )
    return [chunk.tokens for chunk in chosen]


def read_in_lanes(
    sizes: ChunkSizes, tokens: int, seconds_of: dict[ChunkShape, float], *, beside: bool = False
) -> list[ChunkShape]:
    chosen: list[ChunkShape] = []
    while (read := sum(chunk.tokens for chunk in chosen)) < tokens:
        chunk = sizes.choose(Surroundings(read=read, beside=beside))
        sizes.learn(chunk, seconds_of[chunk])
        chosen.append(chunk)
    return chosen


def test_a_gpu_that_gains_from_larger_chunks_gets_them() -> None:
    gpu = {size: 0.05 + size / 3000 for size in (256, 512, 1024, 2048)}
    chosen = read(ChunkSizes(512, Attention()), 60_000, gpu)
    assert chosen[0] == 512
    assert chosen[-1] == 2048
    assert len(chosen) < 60_000 / 512 / 2


def test_a_cpu_that_gains_nothing_stays_where_it_is() -> None:
    cpu = {16: 0.16, 32: 0.24, 64: 0.4, 128: 0.8, 256: 2.0}
    chosen = read(ChunkSizes(64, Attention()), 20_000, cpu)
    assert sum(size for size in chosen if size == 64) > 0.95 * sum(chosen)
    spent = sum(cpu[size] for size in chosen)
    assert spent <= 20_000 / 64 * cpu[64] / 0.98


def test_a_size_that_became_slow_is_left() -> None:
    sizes = ChunkSizes(128, Attention())
    read(sizes, 30_000, {32: 0.4, 64: 0.5, 128: 0.6, 256: 1.4})
    chosen = read(sizes, 30_000, {32: 0.2, 64: 0.3, 128: 0.9, 256: 2.0})
    assert chosen[-1] == 64


@pytest.mark.parametrize("seed", range(20))
def test_other_work_of_the_machine_does_not_change_the_size(seed: int) -> None:
    chance = random.Random(seed)
    cpu = {64: 0.5, 128: 1.1, 256: 2.5, 512: 6.0}
    sizes, chosen = ChunkSizes(64, Attention()), [0]
    while sum(chosen) < 20_000:
        chunk = sizes.choose(Surroundings(read=sum(chosen)))
        chosen.append(chunk.tokens)
        sizes.learn(chunk, cpu[chunk.tokens] * chance.choice([1.0, 1.0, 4.0, 9.0]))
    assert sum(size for size in chosen if size == 64) > 0.9 * sum(chosen)


def test_no_larger_chunk_is_tried_beside_an_answer() -> None:
    gpu = {size: 0.05 + size / 3000 for size in (256, 512, 1024, 2048)}
    sizes = ChunkSizes(512, Attention())
    read(sizes, 60_000, gpu)
    assert set(read(sizes, 20_000, gpu, beside=True)) == {512}


@pytest.mark.parametrize(
    ("first", "seconds", "alone", "beside"),
    [
        (512, None, 1024, 1024),
        (512, M4_MAX_30B_A3B, 1024, 1024),
        (512, M2_PRO_24B, 256, 128),
        (64, M2_PRO_24B, 128, 128),
        (64, 1.0, 128, 128),
    ],
    ids=["not measured", "M4 Max", "M2 Pro", "a CPU", "a slow CPU"],
)
def test_the_end_of_a_prompt_follows_the_speed(first: int, seconds: float | None, alone: int, beside: int) -> None:
    sizes = ChunkSizes(first, Attention())
    if seconds is not None:
        sizes.learn(sizes.chosen, first * seconds)
    assert (sizes.most_at_end(False), sizes.most_at_end(True)) == (alone, beside)


def test_the_end_of_a_prompt_is_short_while_another_process_waits() -> None:
    sizes = ChunkSizes(512, Attention(), lambda: True)
    sizes.learn(sizes.chosen, 512 * M2_PRO_24B)
    assert sizes.most_at_end(False) == 128


def test_a_configured_size_is_that_of_an_end_too() -> None:
    sizes = ChunkSizes(512)
    sizes.learn(sizes.chosen, 512 * M2_PRO_24B)
    assert sizes.most_at_end(True) == 1024
    assert sizes.ends_together([1000] * 4, Surroundings(read=0, beside=True)) == 4


@pytest.mark.parametrize(
    ("unread", "together"),
    [([128], 1), ([64, 64], 2), ([64, 65], 1), ([30] * 8, 4), ([5, 100, 5], 1)],
    ids=["one", "two", "too many", "some of eight", "padded"],
)
def test_ends_are_read_together_if_they_fit_with_padding(unread: list[int], together: int) -> None:
    sizes = ChunkSizes(512, Attention())
    sizes.learn(sizes.chosen, 512 * M2_PRO_24B)
    assert sizes.ends_together(unread, Surroundings(read=0, beside=True)) == together


@pytest.mark.parametrize(("read", "room", "together"), [(0, None, 4), (30_000, None, 2), (30_000, GB, 1), (0, 0, 1)])
def test_ends_are_read_together_if_their_scores_fit(read: int, room: int | None, together: int) -> None:
    sizes = ChunkSizes(512, KEPT)
    assert sizes.ends_together([200] * 4, Surroundings(read=read, beside=True, room=room)) == together


def test_no_larger_chunk_is_read_while_another_process_waits() -> None:
    gpu = {size: 0.01 + size / 10_000 for size in (256, 512, 1024, 2048)}
    assert max(read(ChunkSizes(512, Attention(), lambda: True), 60_000, gpu)) == 512


def test_a_configured_size_stays() -> None:
    assert set(read(ChunkSizes(96), 10_000, {96: 9.0})) == {96}


# Measured for the demo model: seconds of chunks in one lane, and in two.
ONE_LANE = {64: 0.41, 128: 0.8, 256: 1.6, 512: 3.4}
TWO_LANES = {64: 0.30, 128: 0.51, 256: 0.94, 512: 1.9}


def times_in_lanes(one: dict[int, float], two: dict[int, float]) -> dict[ChunkShape, float]:
    return {ChunkShape(size, lanes): each[size] for lanes, each in ((1, one), (2, two)) for size in each}


def test_lanes_that_read_faster_stay_and_larger_chunks_are_found() -> None:
    chosen = read_in_lanes(ChunkSizes(64, Attention(), lanes=2), 20_000, times_in_lanes(ONE_LANE, TWO_LANES))
    assert chosen[0] == ChunkShape(64, 2)
    assert [chunk.tokens for chunk in chosen[:9]] == [64, 64, 64, 128, 128, 128, 128, 256, 256]
    assert sum(chunk.tokens for chunk in chosen if chunk == ChunkShape(256, 2)) > 0.9 * 20_000


@pytest.mark.parametrize("measured", [ONE_LANE, TWO_LANES], ids=["one lane", "two lanes"])
def test_a_cpu_is_never_slower_than_with_the_constant_size(measured: dict[int, float]) -> None:
    chosen = read(ChunkSizes(64, Attention()), 20_000, measured)
    assert sum(measured[size] for size in chosen) <= sum(chosen) / 64 * measured[64] / 0.98


def test_lanes_that_read_slower_are_left() -> None:
    sizes = ChunkSizes(64, Attention(), lanes=2)
    chosen = read_in_lanes(sizes, 20_000, times_in_lanes(TWO_LANES, ONE_LANE))
    assert sum(chunk.tokens for chunk in chosen if chunk.lanes == 1) > 0.9 * 20_000
    assert sizes.chosen.lanes == 1


@pytest.mark.parametrize(("one", "two", "lanes"), [(0.4, 0.3, 2), (0.3, 0.4, 1)])
def test_lanes_of_a_configured_size_are_measured(one: float, two: float, lanes: int) -> None:
    seconds = {ChunkShape(96, 1): one, ChunkShape(96, 2): two}
    chosen = read_in_lanes(ChunkSizes(96, lanes=2), 10_000, seconds)
    assert sum(chunk.lanes == lanes for chunk in chosen) > 0.9 * len(chosen)
