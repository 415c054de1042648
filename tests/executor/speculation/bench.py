"""An engine with drafters, for a model whose state can be taken back."""

from typing import Any

import msgspec

from service.executor.engine.batch_engine import BatchEngine
from service.executor.engine.chunks import ChunkSizes
from service.executor.loading.batching import Batching
from service.executor.prefix.cache import NoPrefixCache, PrefixCache
from service.executor.prefix.state import PromptStates
from service.executor.scheduling.messages import Grammar, Prompt, Sequence
from service.executor.scheduling.protocols import Token
from service.executor.speculation.drafters import Drafters
from service.executor.speculation.step_times import StepTimes
from tests.executor.engines import sequence

CHUNK = 16
NO_DRAFTS = Drafters(lookup=False)


class Untimed(StepTimes):
    """Learns no times, so guesses follow their success alone, however busy the machine is."""

    def learn_plain(self, seconds: float) -> None: ...

    def learn_guess(self, kind: str, guessed: int, seconds: float) -> None: ...


class Bench:
    """An engine, stepped by hand. Asserts what the scheduler relies on: nothing of a sequence comes after its end."""

    def __init__(
        self,
        model: Any,
        drafters: Drafters,
        *,
        end: int = 198,
        shares: bool = False,
        chunk: int = CHUNK,
        timed: bool = True,
    ) -> None:
        if not timed:
            drafters.experience.times = Untimed()
        prefixes = PrefixCache(PromptStates(model), 10**9) if shares else NoPrefixCache()
        self.drafters = drafters
        self.engine = BatchEngine(
            model, {end}, batching=Batching(4), chunks=ChunkSizes(chunk), prefixes=prefixes, drafters=drafters
        )
        self.tokens: dict[int, list[int]] = {}
        self.ends: dict[int, Token] = {}
        self.steps = 0

    def start(self, prompt: list[int], max_tokens: int = 40, grammar: Grammar | None = None, **fields: Any) -> int:
        number = len(self.tokens)
        started: Sequence = msgspec.structs.replace(
            sequence(number, max_tokens=max_tokens), prompt=Prompt(prompt, grammar=grammar), **fields
        )
        self.tokens[number] = []
        self.engine.insert(started)
        return number

    def step(self) -> None:
        self.steps += 1
        for token in self.engine.step():
            assert token.sequence not in self.ends
            self.tokens[token.sequence].append(token.id)
            if token.end is not None:
                self.ends[token.sequence] = token

    def step_until(self, number: int, tokens: int) -> None:
        while len(self.tokens[number]) < tokens:
            self.step()

    def finish(self, *numbers: int) -> list[list[int]]:
        while not set(numbers) <= set(self.ends):
            self.step()
        return [self.tokens[number] for number in numbers]

    def run(self, prompt: list[int], **fields: Any) -> list[int]:
        (tokens,) = self.finish(self.start(prompt, **fields))
        return tokens
