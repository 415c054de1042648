import pytest

from service.executor.loading.cache_cost import CacheCost, LayerCost

ATTENTION = LayerCost(per_token=100)
WINDOW = LayerCost(per_token=100, window=300)
RECURRENT = LayerCost(fixed=5000)


@pytest.mark.parametrize(
    ("layers", "lengths", "expected"),
    [
        ((ATTENTION,), [], 0),
        ((ATTENTION,), [1], 256 * 100),
        ((ATTENTION,), [256], 256 * 100),
        ((ATTENTION,), [257], 512 * 100),
        ((ATTENTION,) * 3, [1000], 3 * 1024 * 100),
        ((ATTENTION,), [1000, 10], 2 * 1024 * 100),
        ((WINDOW,), [200], 256 * 100),
        ((WINDOW,), [100_000], 300 * 100),
        ((RECURRENT,), [100_000, 1], 2 * 5000),
        ((ATTENTION, WINDOW, RECURRENT), [1024], 1024 * 100 + 300 * 100 + 5000),
    ],
    ids=[
        "nothing", "a token takes a step", "a full step", "a step begun", "layers", "as long as the longest",
        "in the window", "beyond the window", "recurrent", "hybrid",
    ],
)  # fmt: skip
def test_what_sequences_take(layers: tuple[LayerCost, ...], lengths: list[int], expected: int) -> None:
    assert CacheCost(layers).bytes_for(lengths) == expected


@pytest.mark.parametrize(
    ("layers", "expected"),
    [((ATTENTION,) * 3, 1024 * 50), ((WINDOW,), 300 * 50), ((WINDOW, ATTENTION), 1024 * 50), ((RECURRENT,), 0)],
    ids=["one layer at a time", "in the window", "the longest", "no attention"],
)
def test_scores_count_once_for_the_longest(layers: tuple[LayerCost, ...], expected: int) -> None:
    lengths = [1000, 10]
    cost, without = CacheCost(layers, score_bytes=50), CacheCost(layers)
    assert cost.bytes_for(lengths) - without.bytes_for(lengths) == expected
