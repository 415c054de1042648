"""How many tokens of reasoning a request gets."""

from typing import Any

import pytest

from service.endpoints.generation import with_defaults
from service.generation import GenerationRequest, Message
from service.profile import ModelProfile

ASKED = (Message(role="user", content="Hi"),)
THINKER = ModelProfile(
    id="m", fingerprint="f", context_length=100, thinks=True, thinking_budgets={"low": 10, "medium": 20}
)


def effort(name: object) -> dict[str, Any]:
    return {"template_arguments": {"reasoning_effort": name}}


@pytest.mark.parametrize(
    ("fields", "budget"),
    [
        ({}, None),
        ({"thinking_budget": 7}, 7),
        (effort("low"), 10),
        (effort("max"), None),
        (effort(["low"]), None),
        ({"thinking_budget": 7, **effort("medium")}, 7),
        ({"thinking_budget": 7, "thinking": "off"}, None),
    ],
)
def test_the_budget_is_the_clients_or_that_of_its_effort(fields: dict[str, Any], budget: int | None) -> None:
    request = GenerationRequest(messages=ASKED, **fields)
    assert with_defaults(request, THINKER, "").thinking_budget == budget


def test_a_budget_does_not_divide_the_answers_of_a_model_that_does_not_think() -> None:
    plain = ModelProfile(id="m", fingerprint="f", context_length=100, thinking_budgets={"low": 10})
    request = GenerationRequest(messages=ASKED, thinking_budget=7)
    assert with_defaults(request, plain, "") == GenerationRequest(messages=ASKED)
