"""Blocks in which one call follows another, each behind its own marker."""

from collections.abc import Callable

from service.tool_calling.calls import Calls
from service.tool_calling.source import SPACE, Reading, Source


def read_block(
    source: Source, calls: Calls, read_call: Callable[[Source, Calls], Reading[None]], *, call: str, end: str
) -> Reading[None]:
    """From the first `call` marker to the block's `end`, which may be missing. `read_call` begins behind its marker.

    Answers now and then leave out where the block begins, though not its calls.
    """
    yield from source.run(SPACE)
    while True:
        calls.begin()
        yield from source.expect(call)
        yield from read_call(source, calls)
        yield from source.run(SPACE)
        if not (yield from source.which((call,))):
            break
    if (yield from source.skip(end)):
        calls.absorb()
