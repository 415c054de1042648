"""Runs a coroutine's first step in the caller, by `work.send(None)`. If that raises `StopIteration`, the work has ended
without waiting, as a hit does, and needs no task and no timer. Otherwise `go_on` awaits the rest.
"""

from collections.abc import Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")


@coroutine
def go_on(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Awaits the rest of `work`, which has just yielded `waits_for`. Await nothing else in between."""
    while True:
        try:
            sent = yield waits_for
        except BaseException as error:  # a cancellation is for `work`
            step = partial(work.throw, error)
        else:
            step = partial(work.send, sent)
        try:
            waits_for = step()
        except StopIteration as end:
            return cast(T, end.value)
