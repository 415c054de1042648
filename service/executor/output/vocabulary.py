from typing import Any

SPM_SPACE = "\u2581".encode()


class Vocabulary:
    """The exact bytes of tokens. `tokenizer` is mlx-lm's `TokenizerWrapper`."""

    def __init__(self, tokenizer: Any) -> None:
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
    """Byte-level BPE writes bytes as characters (OpenAI's GPT-2 encoder): printing ones as themselves, others from
    U+0100 on. Other characters, in added tokens, are themselves."""
    byte = _BYTE_ALPHABET.get(character)
    return character.encode() if byte is None else bytes((byte,))


def _byte_alphabet() -> dict[str, int]:
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printing)]
    alphabet = {chr(byte): byte for byte in printing}
    alphabet |= {chr(0x100 + i): byte for i, byte in enumerate(others)}
    return alphabet


_BYTE_ALPHABET = _byte_alphabet()
