import pytest

from service.device.memory import LEAST_CONTEXT_TOKENS
from service.executor.base import ExecutorStatus
from service.profile import ModelProfile


@pytest.mark.parametrize(
    ("context_tokens", "offered"),
    [(None, 262_144), (300_000, 262_144), (52_224, 52_224), (500, 500), (0, LEAST_CONTEXT_TOKENS)],
    ids=["unknown", "more than the model's", "what fits", "little", "no memory"],
)
def test_the_context_that_is_offered_fits_into_memory(context_tokens: int | None, offered: int) -> None:
    profile = ModelProfile(id="m", fingerprint="f", context_length=262_144)
    assert ExecutorStatus(state="healthy", context_tokens=context_tokens).context_length(profile) == offered


def test_a_model_with_a_short_context_offers_no_more_of_it() -> None:
    profile = ModelProfile(id="m", fingerprint="f", context_length=2_048)
    assert ExecutorStatus(state="healthy", context_tokens=0).context_length(profile) == 2_048
