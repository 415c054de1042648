"""`ANYCLAUDE_SEEDS=10000 pytest tests/simulation` tries more worlds, `ANYCLAUDE_SEED=N` one of them alone."""

import logging
import os
from collections.abc import Iterator

import pytest

from tests.simulation.models_world import ModelsWorld
from tests.simulation.store import SharedStore
from tests.simulation.world import World

SEEDS = int(os.environ.get("ANYCLAUDE_SEEDS", "300"))
CHUNK = 50
ONLY = os.environ.get("ANYCLAUDE_SEED")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Injected faults are logged as they should be, 100,000 lines of them."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("kind", [World, ModelsWorld])
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK) if ONLY is None else [int(ONLY)])
def test_worlds_keep_their_promises(first: int, kind: type[World] | type[ModelsWorld]) -> None:
    for seed in range(first, min(first + CHUNK, SEEDS)) if ONLY is None else [first]:
        world = kind(seed)
        try:
            world.run()
        except BaseException as exc:
            pytest.fail(f"seed {seed}: {exc!r} in {world!r}. Replay it with ANYCLAUDE_SEED={seed}.")


class Generous(SharedStore):
    """Gives every lease to everyone who asks."""

    def holder(self, key: str) -> None:
        return None


def test_a_store_whose_leases_hold_nothing_is_found() -> None:
    def try_worlds() -> None:
        for seed in range(100):
            World(seed, Generous()).run()

    with pytest.raises(AssertionError):
        try_worlds()


@pytest.mark.parametrize("kind", [World, ModelsWorld])
def test_a_seed_decides_everything(kind: type[World] | type[ModelsWorld]) -> None:
    def history(seed: int) -> tuple[float, int]:
        world = kind(seed)
        world.run()
        return world.random.random(), world.ended

    assert history(7) == history(7)
