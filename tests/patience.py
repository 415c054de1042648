"""How tests wait for what must happen."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_SECONDS = 180.0
"""On a busy machine everything takes many times as long. Only a test that fails waits this long."""
POLL_SECONDS = 0.02

T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str) -> T:
    """Waits for a condition, and returns what it gave."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(POLL_SECONDS)
    return result
