"""What is shown while a server starts."""

import pytest

from service.cli.client import Health
from service.cli.startup import phase


@pytest.mark.parametrize(
    ("detail", "shown"), [("loading big, 3 of 40 layers", "loading big, 3 of 40 layers"), ("", "loading big")]
)
def test_a_phase_is_said_once(detail: str, shown: str) -> None:
    assert phase(Health(status="loading", model="big", model_loaded=False, cache={}, detail=detail), None) == shown
