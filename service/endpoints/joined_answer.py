import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import msgspec

from service.events import Done, Event
from service.executor.base import collect
from service.generation import Completion, Usage, total_usage
from service.response_cache.base import CachedAnswer, CacheOutcome, completed

_BEST_FIRST: tuple[CacheOutcome, ...] = ("hit", "collapsed", "miss", "bypass")


class JoinedAnswer:
    """A `CachedAnswer` for a body with several prompts, with `n` choices for each in their order. It is a hit if all
    are."""

    def __init__(self, answers: Sequence[CachedAnswer], n: int) -> None:
        self._answers = answers
        self._n = n
        self._events = self._merge()
        self._whole = False
        self.outcome: CacheOutcome = max((answer.outcome for answer in answers), key=_BEST_FIRST.index)

    @property
    def stored(self) -> bool:
        return self.outcome != "hit" and all(answer.stored or answer.outcome == "hit" for answer in self._answers)

    @property
    def age(self) -> float | None:
        ages = [answer.age for answer in self._answers]
        return max((age for age in ages if age is not None), default=None) if self.outcome == "hit" else None

    @property
    def prompt_tokens(self) -> int:
        return sum(answer.prompt_tokens for answer in self._answers)

    @property
    def read_tokens(self) -> int | None:
        read = [tokens for answer in self._answers if (tokens := answer.read_tokens) is not None]
        return sum(read) if read else None

    @property
    def written(self) -> int:
        return sum(answer.written for answer in self._answers)

    def events(self) -> AsyncIterator[Event]:
        return self._events

    async def completion(self) -> Completion:
        self._whole = True
        return await collect(self._events)

    async def aclose(self) -> None:
        await self._events.aclose()
        for answer in self._answers:
            await answer.aclose()

    async def _merge(self) -> AsyncGenerator[Event, None]:
        arrived: asyncio.Queue[Event | BaseException] = asyncio.Queue()
        readers = [
            asyncio.ensure_future(self._read(answer, i * self._n, arrived)) for i, answer in enumerate(self._answers)
        ]
        usages: list[Usage] = []
        try:
            while len(usages) < len(readers):
                event = await arrived.get()
                if isinstance(event, BaseException):
                    raise event
                if isinstance(event, Done):
                    usages.append(event.usage)
                else:
                    yield event
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        yield Done(total_usage(usages))

    async def _read(self, answer: CachedAnswer, first: int, arrived: asyncio.Queue[Event | BaseException]) -> None:
        try:
            async for event in completed(answer) if self._whole else answer.events():
                if not isinstance(event, Done):
                    event = msgspec.structs.replace(event, choice=first + event.choice)
                arrived.put_nowait(event)
        except Exception as exc:
            arrived.put_nowait(exc)
