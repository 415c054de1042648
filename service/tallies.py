"""Counts and choices of the engine (leaf), with the same names in `/stats` and the metrics."""

import msgspec


class CallTally(msgspec.Struct):
    """`calls` are whole, with `repaired` repairs. `cut`, `broken` and `unknown` ones (of tools that are not offered)
    became text. `mismatched` ones violate their schema, `unclosed` ones are in reasoning that never ended, `repeated`
    ones had the same result before. These are answers: `looping` repeat themselves, `over_budget` had their reasoning
    ended, `unanswered` were only reasoning."""

    calls: int = 0
    repaired: int = 0
    cut: int = 0
    broken: int = 0
    unknown: int = 0
    mismatched: int = 0
    unclosed: int = 0
    repeated: int = 0
    looping: int = 0
    over_budget: int = 0
    unanswered: int = 0

    def add(self, other: "CallTally") -> None:
        for field in self.__struct_fields__:
            setattr(self, field, getattr(self, field) + getattr(other, field))


class StateTally(msgspec.Struct):
    """Bytes of state that `turns` of conversations left in the prefix cache, before any was evicted."""

    turns: int = 0
    kept_bytes: int = 0

    @property
    def bytes_per_turn(self) -> int | None:
        return self.kept_bytes // self.turns if self.turns else None


class DraftTally(msgspec.Struct):
    """Tokens drafted by speculative decoding, and those accepted by the model."""

    drafted: int = 0
    accepted: int = 0


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """The engine has chosen these by measurement. `guesses`: tokens guessed at once while three of four are right, by
    drafter. Prefixes of `file_tokens` or more get a file (None: none does)."""

    chunk_tokens: int
    lanes: int = 1
    guesses: dict[str, int] = {}
    file_tokens: int | None = None
