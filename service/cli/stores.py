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
    """Raises CacheUnavailable, TimeoutError after `seconds`, and the errors of `ask`."""
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
