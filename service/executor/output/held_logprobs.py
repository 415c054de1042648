from collections.abc import Iterator

from service.generation import TokenLogprob


class HeldLogprobs:
    """Those after a stop string are never released."""

    def __init__(self) -> None:
        self._held: list[tuple[TokenLogprob, int]] = []
        self._released = 0

    def add(self, logprob: TokenLogprob, length: int) -> None:
        """`length`: characters that the token adds."""
        self._held.append((logprob, length))

    def drop(self) -> None:
        self._held.clear()

    def release(self, length: int, *, held: bool) -> tuple[TokenLogprob, ...]:
        """`length` more characters were released; `held`: others still wait."""
        if not self._held:
            return ()
        self._released += length
        if held:
            return ()
        released = tuple(self._starting_before(self._released))
        self._held.clear()
        self._released = 0
        return released

    def _starting_before(self, end: int) -> Iterator[TokenLogprob]:
        start = 0
        for logprob, length in self._held:
            if start < end or length == 0:
                yield logprob
            start += length
