import os
from pathlib import Path

import pytest

from tests.chat_templates.material import NotFetched, ensure_templates


@pytest.fixture(scope="session")
def templates() -> Path:
    try:
        return ensure_templates()
    except NotFetched as exc:
        reason = f"the chat templates could not be fetched: {exc}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
