"""A model whose state is the tokens that it has read: whatever the prefix cache gives can be checked to the token."""

from array import array
from typing import Any

import msgspec

from service.executor.prefix.file import Buffer

BYTES_PER_TOKEN = 4


class TokenState(msgspec.Struct, frozen=True):
    tokens: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return BYTES_PER_TOKEN * len(self.tokens)


class TokenStates:
    """A prompt cache is the list of its tokens. Without `cuts_anywhere` a state holds all of them, as a recurrent
    model's does."""

    def __init__(self, *, cuts_anywhere: bool = True) -> None:
        self.cuts_anywhere = cuts_anywhere

    def capture(self, caches: list[Any], start: int, end: int) -> TokenState:
        assert start < end <= len(caches)
        assert self.cuts_anywhere or end == len(caches)
        return TokenState(tuple(caches[start if self.cuts_anywhere else 0 : end]))

    def restore(self, parts: list[tuple[TokenState, int]]) -> list[Any]:
        assert all(tokens > 0 for _, tokens in parts)
        if self.cuts_anywhere:
            return [token for state, tokens in parts for token in state.tokens[:tokens]]
        return list(parts[-1][0].tokens)

    def to_buffers(self, state: TokenState) -> tuple[tuple[Any, ...], list[Buffer]]:
        data = memoryview(array("I", state.tokens).tobytes())
        return ("tokens",), [Buffer(data, "uint32", (len(state.tokens),))]

    def from_buffers(self, layouts: tuple[Any, ...], buffers: list[Buffer]) -> TokenState:
        (layout,), (buffer,) = layouts, buffers
        assert layout == "tokens"
        return TokenState(tuple(array("I", buffer.data.tobytes())))
