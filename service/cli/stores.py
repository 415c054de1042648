"""The response cache's stores, as commands use them beside the server: opened, asked, closed."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from cache_backends import CacheBackend

T = TypeVar("T")


def ask_stores(
    urls: tuple[str, ...], ask: "Callable[[CacheBackend], Coroutine[Any, Any, T]]", seconds: float | None = None
) -> T:
    """What `ask` finds. Raises CacheUnavailable, TimeoutError after `seconds`, and what `ask` raises. What a store
    would log of it besides is left out."""
    from cache_backends import open_backend

    logging.getLogger("cache_backends").addHandler(logging.NullHandler())

    async def run() -> T:
        store = open_backend(urls)
        try:
            async with asyncio.timeout(seconds):
                return await ask(store)
        finally:
            await store.aclose()

    return asyncio.run(run())
