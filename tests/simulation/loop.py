"""An event loop with a clock of its own: it jumps to the next timer when nothing else is left to do."""

import asyncio
import heapq
import itertools
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

# Far above what a world needs. Two tasks that wake each other for ever end here.
MOST_CALLBACKS = 1_000_000


class NothingLeftToDo(Exception):
    """Every task waits for another, and no timer will wake one of them."""


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Runs callbacks in the order in which they were scheduled, as asyncio promises. It promises no order for timers
    of the same time, so `random` draws it. `unhandled` holds what was reported to `call_exception_handler`."""

    def __init__(self, random: Random) -> None:
        self.unhandled: list[dict[str, Any]] = []
        self._random = random
        self._now = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._close_generator)
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main)
            for _ in range(MOST_CALLBACKS):
                if task.done():
                    return task.result()
                self._run_next()
            raise NothingLeftToDo(f"still busy after {MOST_CALLBACKS} callbacks, at {self._now:.3f} s")
        finally:
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def _run_next(self) -> None:
        while not self._ready:
            if not self._timers:
                raise NothingLeftToDo(f"at {self._now:.3f} s")
            self._wake_timer()
            # Others of this time come before what this one schedules, or after it.
            while self._timers and self._timers[0][0] <= self._now and self._random.random() < 0.5:
                self._wake_timer()
        handle = self._ready.popleft()
        if not handle.cancelled():
            handle._run()

    def _wake_timer(self) -> None:
        when, _, _, timer = heapq.heappop(self._timers)
        if not timer.cancelled():
            self._now = max(self._now, when)
            self._ready.append(timer)

    def _close_generator(self, generator: AsyncGenerator[Any, None]) -> None:
        self.create_task(generator.aclose())

    # What tasks, futures and timeouts of asyncio ask of a loop.

    def time(self) -> float:
        return self._now

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_debug(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, self._random.random(), next(self._order), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.unhandled.append(context)


def simulate(main: Coroutine[Any, Any, None]) -> None:
    """Runs a test on a loop of its own, which must report nothing."""
    loop = SimulatedLoop(Random(0))
    loop.run(main)
    loop.run(_end_the_others())
    assert not loop.unhandled


async def _end_the_others() -> None:
    """Otherwise the interpreter would end them during a later test."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def now() -> float:
    """Simulated seconds."""
    return asyncio.get_running_loop().time()
