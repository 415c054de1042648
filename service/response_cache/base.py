from collections.abc import AsyncGenerator, AsyncIterator
from typing import Literal, Protocol

import msgspec

from service.events import Event, events_of
from service.executor.base import Answer, event_stream
from service.generation import Completion

CacheOutcome = Literal["hit", "miss", "collapsed", "bypass"]


class CacheDirectives(msgspec.Struct, frozen=True, kw_only=True):
    """The client's `Cache-Control` (RFC 9111). `max_age` is in seconds. `bypass` is the server's own: no lookup and no
    storing, but the prefix cache is used."""

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    bypass: bool = False


NO_DIRECTIVES = CacheDirectives()


class StoreTimes(msgspec.Struct, frozen=True, kw_only=True):
    lookup: float = 2.0  # seconds; a longer one is a miss, which mostly costs more
    lease: float = 3.0  # unless it is renewed
    lease_call: float = 0.5  # after a longer one, the server generates without a lease


STORE_TIMES = StoreTimes()


class CachedAnswer(Answer, Protocol):
    """Read it once with `events` or `completion`, or close it."""

    @property
    def outcome(self) -> CacheOutcome: ...
    @property
    def stored(self) -> bool: ...

    @property
    def age(self) -> float | None:
        """Seconds since a hit was stored, else None."""
        ...

    @property
    def written(self) -> int:
        """Events so far, about one a token."""
        ...

    async def completion(self) -> Completion:
        """Raises `ServiceError` if the generation fails."""
        ...


async def completed(answer: CachedAnswer) -> AsyncGenerator[Event, None]:
    """Its events, none before all are there."""
    for event in events_of(await answer.completion()):
        yield event


class StoredAnswer:
    stored = False

    def __init__(self, completion: Completion, outcome: CacheOutcome = "hit", *, age: float | None = None) -> None:
        self._completion = completion
        self.outcome: CacheOutcome = outcome
        self.age = age

    @property
    def prompt_tokens(self) -> int:
        return self._completion.usage.prompt_tokens

    @property
    def read_tokens(self) -> int | None:
        return None

    @property
    def written(self) -> int:
        return self._completion.usage.completion_tokens

    def events(self) -> AsyncIterator[Event]:
        return event_stream(self._completion)

    async def completion(self) -> Completion:
        return self._completion

    async def aclose(self) -> None:
        return None


class Recorder(Protocol):
    """Its methods raise nothing."""

    def record_answer(self, key: str, completion: Completion) -> None: ...
    def record_count(self, key: str, prompt_tokens: int) -> None: ...
    def close(self) -> None: ...
