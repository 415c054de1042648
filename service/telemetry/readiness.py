import asyncio
import logging
import time
from collections.abc import Callable

from service.executor.base import ExecutorStatus

logger = logging.getLogger("anyclaude.server")

POLL_SECONDS = 0.05


async def announce_ready(status: Callable[[], ExecutorStatus], root: str, *, since: float) -> None:
    """Logs the addresses below `root` when the model is loaded, or why it failed. `since` is a time of the monotonic
    clock."""
    while (now := status()).state == "loading":  # noqa: ASYNC110  (an executor has no event for this)
        await asyncio.sleep(POLL_SECONDS)
    if now.state == "healthy":
        seconds = time.monotonic() - since
        logger.info("ready after %.1f s. API: %s/v1 Dashboard: %s/dashboard", seconds, root, root)
    else:
        logger.error("not ready: %s", now.detail)
