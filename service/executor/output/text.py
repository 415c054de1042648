"""From tokens to text: what a token says, and where a text must stop. Knows no MLX."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from service.generation import TokenLogprob

SPM_SPACE = "\u2581".encode()


class Detokenizer(Protocol):
    """mlx-lm's `StreamingDetokenizer`."""

    def add_token(self, token: int) -> None: ...
    def finalize(self) -> None: ...
    @property
    def last_segment(self) -> str: ...


class Scanner:
    """Looks for strings in a text that comes in pieces, and holds back only what may still become one of them.

    Of several, the one that ends first is found; of those that end together, the longest. The result does not depend
    on how the text is cut. Linear in the text (Knuth, Morris and Pratt 1977).
    """

    def __init__(self, strings: Iterable[str]) -> None:
        self._strings = [(string, _borders(string)) for string in sorted(strings, key=len, reverse=True) if string]
        self._matched = [0] * len(self._strings)
        self._held = ""
        self.found: str | None = None

    @property
    def held(self) -> str:
        return self._held

    def feed(self, text: str) -> tuple[str, str]:
        """What can be passed on, and, once a string was `found`, the text behind it."""
        pending = self._held + text
        for position in range(len(self._held), len(pending)):
            found = self._advance(pending[position])
            if found is not None:
                self.found = found
                self._held = ""
                self._matched = [0] * len(self._strings)
                return pending[: position + 1 - len(found)], pending[position + 1 :]
        keep = max(self._matched, default=0)
        released, self._held = pending[: len(pending) - keep], pending[len(pending) - keep :]
        return released, ""

    def finish(self) -> str:
        """What was held back and will not become a match any more."""
        held, self._held = self._held, ""
        self._matched = [0] * len(self._strings)
        return held

    def _advance(self, character: str) -> str | None:
        found = None
        for i, (string, borders) in enumerate(self._strings):
            matched = self._matched[i]
            while matched and string[matched] != character:
                matched = borders[matched - 1]
            if string[matched] == character:
                matched += 1
            if matched == len(string):
                found = found or string
                matched = borders[matched - 1]
            self._matched[i] = matched
        return found


def _borders(string: str) -> list[int]:
    """For each prefix, the length of its longest proper suffix that is also a prefix of the string."""
    borders = [0] * len(string)
    length = 0
    for i in range(1, len(string)):
        while length and string[i] != string[length]:
            length = borders[length - 1]
        if string[i] == string[length]:
            length += 1
        borders[i] = length
    return borders


class HeldLogprobs:
    """Logprobs wait while text does, and go where their text goes: those behind a stop string are never sent."""

    def __init__(self) -> None:
        self._held: list[tuple[TokenLogprob, int]] = []
        self._released = 0

    def add(self, logprob: TokenLogprob, length: int) -> None:
        """`length` is of the text that the token adds, in characters."""
        self._held.append((logprob, length))

    def drop(self) -> None:
        """What was held back belongs to no answer."""
        self._held.clear()

    def release(self, length: int, *, held: bool) -> tuple[TokenLogprob, ...]:
        """`length` more characters were released; `held`: others are still held back."""
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


class Vocabulary:
    """The exact bytes of single tokens, for logprobs. Each token is looked up once."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is mlx-lm's `TokenizerWrapper`."""
        self._tokenizer = tokenizer
        self._pieces = getattr(tokenizer.detokenizer, "tokenmap", None)
        self._known: dict[int, bytes] = {}

    def token_bytes(self, token: int) -> bytes:
        known = self._known.get(token)
        if known is None:
            known = self._known[token] = self._look_up(token)
        return known

    def _look_up(self, token: int) -> bytes:
        if self._pieces is None:
            return str(self._tokenizer.decode([token])).encode()
        piece = self._pieces[token] if token < len(self._pieces) else b""
        if isinstance(piece, bytes):
            return piece.replace(SPM_SPACE, b" ")
        return b"".join(_byte_of(character) for character in piece or "")


def _byte_of(character: str) -> bytes:
    """Byte-level BPE writes bytes as characters (OpenAI's GPT-2 encoder): those that print stand for themselves, the
    others follow from U+0100 on. Characters outside that alphabet, in added tokens, are themselves."""
    byte = _BYTE_ALPHABET.get(character)
    return character.encode() if byte is None else bytes((byte,))


def _byte_alphabet() -> dict[str, int]:
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printing)]
    alphabet = {chr(byte): byte for byte in printing}
    alphabet |= {chr(0x100 + i): byte for i, byte in enumerate(others)}
    return alphabet


_BYTE_ALPHABET = _byte_alphabet()
