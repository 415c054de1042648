from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cache_backends.redis_server import RedisServer


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, which it may stop and pause."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()
