"""What the server says while it ends."""

import logging
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.executor.base import ExecutorStatus
from service.executor.scripted import ScriptedExecutor
from tests.serving import running, settings


@pytest.mark.parametrize(
    ("state", "said"),
    [("ready", "stopping: answers have 1 seconds to end; "), ("loading", "stopping: the model's loading cannot be ")],
)
async def test_what_is_waited_for_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, state: Any, said: str
) -> None:
    executor, configured = ScriptedExecutor(), settings(tmp_path)
    executor.state = ExecutorStatus(state=state)
    with caplog.at_level(logging.INFO, "anyclaude.server"):
        async with running(create_app(configured, executor=executor), configured):
            pass
    (message,) = [record.getMessage() for record in caplog.records if record.name == "anyclaude.server"]
    assert message.startswith(said)
    assert message.endswith("; a second signal ends it at once")
