"""What the engine counts while it generates (leaf). One vocabulary for the engine, `/stats` and the metrics."""

import msgspec


class CallTally(msgspec.Struct):
    """Tool calls of all answers. `repaired` counts repairs; the others count calls: `cut` broke off, `broken` could not
    be read, `unknown` named no tool on offer, `mismatched` do not fit their tool's schema, `unclosed` were found in
    reasoning that never ended, `repeated` were made again with the same result. `looping` counts answers that repeat
    themselves."""

    repaired: int = 0
    cut: int = 0
    broken: int = 0
    unknown: int = 0
    mismatched: int = 0
    unclosed: int = 0
    repeated: int = 0
    looping: int = 0


class DraftTally(msgspec.Struct):
    """Tokens that speculative decoding drafted, and those of them that the model accepted, over all answers."""

    drafted: int = 0
    accepted: int = 0
