"""Which models are recommended on machines that are not at hand."""

import pytest
from msgspec.structs import replace

from service.device.memory import load_refusal
from service.models.recommended import RECOMMENDED, RecommendedModel, fitting, most_usable_bytes, present_refusal
from tests.device.machines import GIB, MACHINES, linux, mac

SMALL, EDITS, CHAT, REASONING, CODER, LONG, LARGEST = (model.id for model in RECOMMENDED)


def offered(name: str) -> list[str]:
    """Without MLX, Metal's limit is unknown."""
    return [model.id for model in fitting(replace(MACHINES[name], recommended=None))]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("M1 8 GB", SMALL),
        ("M2 16 GB", CHAT),
        ("M3 24 GB", REASONING),
        ("M1 Pro 32 GB", CODER),
        ("M4 Pro 36 GB", LONG),
        ("M4 Max 48 GB", LONG),
        ("M5 Max 128 GB", LARGEST),
        ("M3 Ultra 512 GB", LARGEST),
        ("RTX 8 GB", EDITS),
        ("RTX 24 GB", LONG),
        ("A100 80 GB", LARGEST),
        ("Linux 16 GB", CHAT),
        ("Linux 64 GB", LONG),
    ],
)
def test_the_first_of_the_models_suits_the_machine_and_can_be_loaded(name: str, first: str) -> None:
    assert offered(name)[0] == first
    assert present_refusal(first, MACHINES[name]) is None


def test_a_model_with_less_context_than_a_session_comes_last() -> None:
    assert offered("M1 8 GB") == [SMALL, EDITS]
    assert most_usable_bytes(MACHINES["M1 8 GB"]) == MACHINES["M1 8 GB"].recommended


def test_the_choice_does_not_depend_on_what_runs_now() -> None:
    full = replace(mac("M1 Pro", 32, free=0.1), recommended=None)
    assert [model.id for model in fitting(full)] == offered("M1 Pro 32 GB")
    refusal = present_refusal(CODER, full)
    assert refusal is not None
    assert "3.4 GB of 34.4 GB is free" in refusal
    assert "close other programs" in refusal
    assert present_refusal("org/unknown", full) is None


def test_a_limit_of_metal_that_was_set_counts() -> None:
    machine = MACHINES["M1 Pro 32 GB"]
    assert most_usable_bytes(replace(machine, recommended=28 * GIB)) == 28 * GIB
    lowered = replace(machine, recommended=16 * GIB)
    assert fitting(lowered)[0].id == REASONING
    refusal = present_refusal(CODER, lowered)
    assert refusal is not None
    assert "Metal recommends at most 17.2 GB" in refusal


def test_a_machine_for_no_model_gets_none() -> None:
    assert fitting(linux(1, free=0.9))[:1] == [RECOMMENDED[0]]
    assert fitting(replace(linux(1), total=GIB // 2)) == []


@pytest.mark.parametrize("model", RECOMMENDED, ids=[model.id for model in RECOMMENDED])
def test_the_least_memory_is_the_one_in_words(model: RecommendedModel) -> None:
    assert (f"{model.shared_gib} GB" in model.good_for) == bool(model.shared_gib)
    if model.shared_gib:
        assert load_refusal(mac("M4", model.shared_gib), model.needs) is None
