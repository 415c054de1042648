"""Runs a coroutine's first step in the caller. Work that does not wait, such as a hit, then needs no task and no timer.

try:
    waits_for = work.send(None)
except StopIteration as end:
    return end.value
return await go_on(work, waits_for)
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
