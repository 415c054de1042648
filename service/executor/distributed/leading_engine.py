import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from service.errors import UnsupportedValue
from service.executor.distributed.calls import (
    Call,
    History,
    Insert,
    Measure,
    Remove,
    Reserve,
    Step,
    Weigh,
    encode,
    insert,
)
from service.executor.distributed.ranks import RankLost, Ranks
from service.executor.scheduling.messages import PromptUse, Sequence
from service.executor.scheduling.protocols import Engine, EngineLost, Token
from service.queries import PrefixBranch
from service.tallies import Tuning

log = logging.getLogger(__name__)

SEED_BITS = 63


class LeadingEngine:
    """Sends each call to the other ranks, then makes it on `engine`."""

    def __init__(self, engine: Engine, ranks: Ranks) -> None:
        self._engine = engine
        self._ranks = ranks
        self._history = History()
        self._broken = ""

    @property
    def prompt_tokens_read(self) -> int:
        return self._engine.prompt_tokens_read

    def memory_bytes(self) -> int:
        return self._engine.memory_bytes()

    def peak_bytes(self) -> int:
        return self._engine.peak_bytes()

    def tuning(self) -> Tuning:
        return self._engine.tuning()

    def prefix_cache_bytes(self) -> int:
        return self._engine.prefix_cache_bytes()

    def prefixes(self) -> list[PrefixBranch]:
        return self._engine.prefixes()

    def shortfall(self, lengths: list[int]) -> int:
        """Returns the largest of all ranks."""
        self._tell(Weigh(lengths))
        with self._in_step():
            return self._ranks.largest(self._engine.shortfall(lengths))

    def longest(self) -> int:
        """Returns the smallest of all ranks."""
        self._tell(Measure())
        with self._in_step():
            return -self._ranks.largest(-self._engine.longest())

    def reserve(self, lengths: Mapping[int, int]) -> None:
        self._tell(Reserve(dict(lengths)))
        with self._in_step():
            self._engine.reserve(lengths)

    def insert(self, sequence: Sequence) -> None:
        sequence = seeded(sequence)
        self._tell(insert(sequence))
        accepted = False
        try:
            self._engine.insert(sequence)
            accepted = True
        except RankLost as exc:
            raise self._break(exc) from exc
        finally:
            self._history.inserted(sequence.id, accepted)

    def embed(self, tokens: list[int]) -> bytes:
        raise UnsupportedValue("A model that several machines share makes no embeddings.", param="model")

    def remove(self, sequence: int) -> PromptUse | None:
        self._tell(Remove(sequence))
        with self._in_step():
            use = self._engine.remove(sequence)
        self._history.removed(sequence, use)
        return use

    def reading(self) -> dict[int, int]:
        return self._engine.reading()

    def step(self) -> list[Token]:
        self._tell(Step(self._history.checksum))
        with self._in_step():
            tokens = self._engine.step()
        self._history.stepped(tokens, self._engine.prompt_tokens_read)
        return tokens

    def reset(self) -> None:
        raise EngineLost(self._broken or self._lose("rank 0 could not go on"))

    def close(self) -> None:
        if not self._broken:
            self._ranks.end()
        self._engine.close()

    def _tell(self, call: Call) -> None:
        if self._broken:
            raise EngineLost(self._broken)
        try:
            self._ranks.tell(encode(call))
        except Exception as exc:
            if isinstance(exc, RankLost) or not isinstance(call, Insert):
                raise self._break(exc) from exc
            raise  # this sequence cannot be encoded, so nothing was sent

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        """Ends the group if the call fails here: the other ranks may have succeeded."""
        try:
            yield
        except Exception as exc:
            raise self._break(exc) from exc

    def _break(self, exc: Exception) -> EngineLost:
        return EngineLost(self._lose(str(exc) if isinstance(exc, RankLost) else f"rank 0 failed: {exc!r}"))

    def _lose(self, reason: str) -> str:
        if not self._broken:
            self._broken = self._ranks.fail(reason)
            log.error("The group of ranks ends: %s", self._broken)
        return self._broken


def seeded(sequence: Sequence) -> Sequence:
    # With one seed, all ranks draw the same tokens.
    if sequence.sampling.seed is not None:
        return sequence
    sampling = msgspec.structs.replace(sequence.sampling, seed=secrets.randbits(SEED_BITS))
    return msgspec.structs.replace(sequence, sampling=sampling)
