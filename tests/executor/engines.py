"""A deterministic engine and writer: what the scheduler and the executor need, without a model."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

from service.events import ChoiceFinished, Event, TextDelta
from service.executor.runtime import Runtime, SharedRuntime
from service.executor.scheduling.messages import Prompt, Sequence
from service.executor.scheduling.protocols import EndReason, Token
from service.generation import GenerationRequest, Message, SamplingParams
from service.profile import ModelProfile
from service.queries import PrefixBranch
from service.settings import Settings
from service.tallies import Tuning
from tests.patience import PATIENCE_SECONDS


class CountingEngine:
    """Reads a prompt two tokens a step, then counts 1, 2, 3, ... up to `max_tokens`. `fail` is called before each
    step with its number, and may raise. `most` is the largest number of sequences it ever held. A token, read or
    written, takes one of `memory` bytes. It gives up to `at_once` tokens of each sequence in one step."""

    def __init__(
        self, fail: Callable[[int], None] = lambda step: None, *, memory: int = 1_000_000, at_once: int = 1
    ) -> None:
        self.fail = fail
        self.memory = memory
        self.at_once = at_once
        self.prompt_tokens_read = 0
        self.held: dict[int, Sequence] = {}
        self.reserved: dict[int, int] = {}
        self.most = 0
        self.resets = 0
        self.steps = 0
        self.closed = False
        self._unread: dict[int, int] = {}
        self._counters: dict[int, int] = {}

    def shortfall(self, lengths: list[int]) -> int:
        return sum(lengths) - self.memory

    def longest(self) -> int:
        return max(0, self.memory)

    def reserve(self, lengths: Mapping[int, int]) -> None:
        self.reserved = dict(lengths)

    def memory_bytes(self) -> int:
        return sum(len(each.prompt.tokens) + each.max_tokens for each in self.held.values())

    def peak_bytes(self) -> int:
        return self.memory

    def tuning(self) -> Tuning:
        return Tuning(chunk_tokens=2)

    def prefix_cache_bytes(self) -> int:
        return 0

    def prefixes(self) -> list[PrefixBranch]:
        return []

    def insert(self, sequence: Sequence) -> None:
        assert sequence.id not in self.held
        self.held[sequence.id] = sequence
        self._unread[sequence.id] = len(sequence.prompt.tokens)
        self._counters[sequence.id] = 0
        self.most = max(self.most, len(self.held))

    def embed(self, tokens: list[int]) -> bytes:
        return bytes(tokens)

    def remove(self, sequence: int) -> None:
        self.held.pop(sequence, None)

    def reading(self) -> dict[int, int]:
        return {i: len(s.prompt.tokens) - self._unread[i] for i, s in self.held.items() if self._unread[i] > 0}

    def step(self) -> list[Token]:
        self.steps += 1
        self.fail(self.steps)
        return [token for sequence in list(self.held.values()) for token in self._several(sequence)]

    def reset(self) -> None:
        self.resets += 1
        self.held.clear()

    def close(self) -> None:
        self.closed = True

    def _several(self, sequence: Sequence) -> list[Token]:
        tokens = []
        while len(tokens) < self.at_once and sequence.id in self.held:
            token = self._next(sequence)
            if token is None:
                break
            tokens.append(token)
        return tokens

    def _next(self, sequence: Sequence) -> Token | None:
        if self._unread[sequence.id] > 0:
            self._unread[sequence.id] -= 2
            self.prompt_tokens_read += 2
            return None
        self._counters[sequence.id] += 1
        count = self._counters[sequence.id]
        last = count == sequence.max_tokens
        if last:
            del self.held[sequence.id]
        return Token(sequence.id, count, "length" if last else None)


class NumberWriter:
    """Writes tokens as numbers, and stops at the request's first stop string."""

    reasoning_tokens = 0

    def __init__(self, sequence: Sequence) -> None:
        self.stopped = False
        self._sequence = sequence

    def feed(self, token: Token) -> list[Event]:
        self.stopped = str(token.id) in self._sequence.request.stop
        return [] if self.stopped else [TextDelta(self._sequence.choice, f"{token.id} ")]

    def interjection(self, end: EndReason | None, room: int) -> tuple[int, ...]:
        return ()

    def finish(self, reason: EndReason) -> list[Event]:
        return [ChoiceFinished(self._sequence.choice, reason)]


def question(text: str = "hello", **fields: object) -> GenerationRequest:
    return GenerationRequest(messages=(Message(role="user", content=text),), **fields)


def sequence(sequence_id: int, *, max_tokens: int = 3, prompt: int = 1, **fields: object) -> Sequence:
    return Sequence(
        id=sequence_id,
        choice=0,
        request=question(max_tokens=max_tokens, **fields),
        prompt=Prompt([7] * prompt),
        sampling=SamplingParams(),
        max_tokens=max_tokens,
        start_before=1000.0,
    )


class WordRenderer:
    """A word is a token."""

    def __init__(self, fail: Callable[[], None] = lambda: None) -> None:
        self._fail = fail

    def render(self, request: GenerationRequest) -> Prompt:
        self._fail()
        return Prompt([1] * self.count(request))

    def count(self, request: GenerationRequest) -> int:
        return sum(len(message.content.split()) for message in request.messages)


def counting_loader(engine: CountingEngine, renderer: WordRenderer | None = None) -> Callable[..., Runtime]:
    def load(path: Path, profile: ModelProfile, settings: Settings) -> Runtime:
        engine.held.clear()
        shared = SharedRuntime(renderer=renderer or WordRenderer(), logits=100)
        return Runtime(engine=engine, open_writer=NumberWriter, shared=shared)

    return load


def failing_at(*steps: int) -> Callable[[int], None]:
    def fail(step: int) -> None:
        if step in steps:
            raise RuntimeError(f"injected at step {step}")

    return fail


def failing_from(first: int) -> Callable[[int], None]:
    return failing_at(*itertools.islice(itertools.count(first), 10_000))


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition that another thread brings about."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - the other thread sets no event
            await asyncio.sleep(0.002)
