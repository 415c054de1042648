"""Runs one tiny model through the engine in every mode, and compares each token with mlx-lm's `generate_step`."""

from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import msgspec
from mlx_lm.generate import generate_step

from service.executor.engine.batch_engine import BatchEngine
from service.executor.engine.chunks import ChunkSizes
from service.executor.loading.batching import Batching, try_batching
from service.executor.loading.cache_cost import measure_cache_cost
from service.executor.loading.cache_kinds import can_undo, is_recurrent
from service.executor.prefix.cache import NoPrefixCache, PrefixCache, Prefixes
from service.executor.prefix.state import PromptStates
from service.executor.prefix.store import PrefixStore
from service.executor.scheduling.messages import Prompt, Sequence
from service.executor.speculation.drafters import Drafters
from service.tallies import StateTally
from tests.executor.engines import sequence

CHUNK = 16
MAX_TOKENS = 6
PLENTY = 10**9

# Behind a tie the texts differ for good: the difference of the log-probabilities of two tokens that counts as one.
TIE = 1e-3

SYSTEM = [(7 * i) % 490 + 3 for i in range(40)]
SHORT, MIDDLE, LONG = ([(m * i + 5) % 490 + 3 for i in range(n)] for m, n in ((11, 9), (13, 45), (17, 120)))
PROMPTS = [SHORT, SYSTEM + SHORT, MIDDLE, LONG]


class Oracle:
    def __init__(self, model: Any, tie: float) -> None:
        self._model = model
        self._tie = tie
        self._known: dict[tuple[int, ...], list[tuple[int, mx.array]]] = {}

    def check(self, prompt: list[int], tokens: list[int]) -> None:
        known = self._known.get(tuple(prompt))
        if known is None:
            steps = generate_step(mx.array(prompt), self._model, max_tokens=MAX_TOKENS)
            known = self._known[tuple(prompt)] = [(int(token), row) for token, row in steps]
        assert len(tokens) <= len(known)
        for (expected, row), token in zip(known, tokens, strict=False):
            if token != expected:
                gap = float((row[expected] - row[token]).item())
                assert gap < self._tie, f"token {token} instead of {expected}, {gap:.2g} less likely"
                return


class Engine:
    """A `BatchEngine` that is stepped by hand, and answers to the oracle."""

    def __init__(self, model: Any, oracle: Oracle, batching: Batching, prefixes: Prefixes, *, guess: bool) -> None:
        self._oracle = oracle
        self._prompts: dict[int, list[int]] = {}
        self.tokens: dict[int, list[int]] = {}
        self.cached: dict[int, int] = {}
        self.prefixes = prefixes
        self.engine = BatchEngine(
            model,
            set(),
            batching=batching,
            chunks=ChunkSizes(CHUNK),
            prefixes=prefixes,
            drafters=Drafters(lookup=guess),
        )

    def start(self, prompt: list[int]) -> int:
        number = len(self._prompts)
        started: Sequence = msgspec.structs.replace(
            sequence(number, max_tokens=MAX_TOKENS),
            prompt=Prompt(prompt, boundaries=tuple(n for n in (len(SYSTEM),) if n < len(prompt))),
        )
        self._prompts[number], self.tokens[number] = prompt, []
        self.engine.insert(started)
        return number

    def step(self) -> None:
        for token in self.engine.step():
            self.tokens[token.sequence].append(token.id)
            if token.end is not None:
                self.cached[token.sequence] = token.prompt_use.cached_tokens if token.prompt_use else 0
                self._oracle.check(self._prompts[token.sequence], self.tokens[token.sequence])

    def run(self, *prompts: list[int]) -> list[int]:
        """Answers prompts side by side; returns their numbers."""
        numbers = [self.start(prompt) for prompt in prompts]
        self.finish(numbers)
        return numbers

    def finish(self, numbers: list[int]) -> None:
        while not set(numbers) <= set(self.cached):
            self.step()

    def abort(self, number: int, *, after: int) -> None:
        while len(self.tokens[number]) < after:
            self.step()
        self.engine.remove(number)


class KeptState(NamedTuple):
    """What the prefix cache keeps. `per_token` is of layers without a window; `per_turn` is what the last of several
    turns added."""

    kind: str
    per_token: int
    per_turn: int = 0
    tokens: int = 0


class Modes:
    def __init__(self, model: Any, folder: Path, *, tie: float = TIE) -> None:
        self.model = model
        self.batching = try_batching(model, 4)
        if self.batching.shares_from is not None:
            self.batching = msgspec.structs.replace(self.batching, shares_from=0)
        self._oracle = Oracle(model, tie)
        self._folder = folder

    def engine(self, *, cached: bool = False, guess: bool = False) -> Engine:
        prefixes: Prefixes = NoPrefixCache()
        if cached and (caches := self.caches()) is not None:
            prefixes = PrefixCache(caches, PLENTY, PrefixStore(self._folder, "tiny", PLENTY, caches))
        return Engine(self.model, self._oracle, self.batching, prefixes, guess=guess)

    def caches(self) -> PromptStates | None:
        try:
            return PromptStates(self.model)
        except ValueError:
            return None

    def alone_and_together(self) -> None:
        engine = self.engine()
        for prompt in PROMPTS:
            engine.run(prompt)
        engine.run(*PROMPTS)

    def joins_leaves_and_aborts(self) -> None:
        engine = self.engine()
        first = engine.start(MIDDLE)
        while len(engine.tokens[first]) < 2:
            engine.step()
        second, third = engine.start(SHORT), engine.start(LONG)
        engine.abort(first, after=3)
        engine.finish([second, third])
        engine.run(MIDDLE)

    def behind_one_prefix(self) -> None:
        """One joins that begins differently, and one that shares less."""
        engine = self.engine()
        engine.run(*(SYSTEM + MIDDLE + last for last in (SHORT, MIDDLE, LONG)))
        first, second = engine.start(SYSTEM + MIDDLE + SHORT), engine.start(SYSTEM + MIDDLE + LONG)
        while len(engine.tokens[second]) < 2:
            engine.step()
        third = engine.start(SYSTEM + LONG)
        engine.abort(first, after=3)
        fourth = engine.start(LONG)
        engine.finish([second, third, fourth])

    def with_guesses(self) -> None:
        if can_undo(self.model):
            engine = self.engine(guess=True)
            engine.run(SHORT * 3)
            engine.run(SHORT * 3, MIDDLE)

    def prefixes_are_used(self) -> None:
        """The same prefix, a growing conversation, an abort, and a restart."""
        engine = self.engine(cached=True)
        first, _ = engine.run(SYSTEM + SHORT)[0], engine.run(SYSTEM + MIDDLE)[0]
        grown = SYSTEM + SHORT + engine.tokens[first] + MIDDLE
        again = engine.run(SYSTEM + SHORT, grown)
        engine.abort(engine.start(LONG), after=2)
        engine.run(LONG)
        engine.engine.close()
        after = self.engine(cached=True)
        (restarted,) = after.run(grown)
        after.engine.close()
        if engine.prefixes.shares:
            assert engine.cached[again[0]] >= len(SYSTEM)
            assert engine.cached[again[1]] >= len(SYSTEM)
            assert after.cached[restarted] >= len(SYSTEM)

    def state(self) -> "KeptState":
        """A conversation of five turns, each of 45 new tokens and 6 drawn ones, in memory."""
        caches = self.caches()
        cost = measure_cache_cost(self.model).layers
        per_token = sum(layer.per_token for layer in cost if layer.window is None)
        if caches is None:
            return KeptState("not kept", per_token)
        engine = Engine(self.model, self._oracle, self.batching, PrefixCache(caches, PLENTY), guess=False)
        held, prompt = [], SYSTEM
        for _ in range(5):
            prompt = prompt + MIDDLE
            (number,) = engine.run(prompt)
            prompt = prompt + engine.tokens[number]
            held.append(engine.prefixes.nbytes)
        assert engine.prefixes.tally == StateTally(turns=5, kept_bytes=engine.prefixes.nbytes)
        kind = "recurrent" if is_recurrent(self.model) else "tokens" if caches.cuts_anywhere else "windows"
        return KeptState(kind, per_token, held[-1] - held[-2], len(prompt))
