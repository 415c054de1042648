"""Counts of the engine (leaf), with the same names in `/stats` and the metrics."""

import msgspec


class CallTally(msgspec.Struct):
    """`repaired` counts repairs. These count answers: `looping` repeat themselves, the budget ended the reasoning of
    `over_budget`, and `unanswered` were nothing but reasoning and were continued. The others count calls: `cut` broke
    off, `broken` was unreadable, `unknown` named no offered tool, `mismatched` violated the schema, `unclosed` was
    found in reasoning that never ended, `repeated` was made again with the same result."""

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
