import msgspec


class Tokenize(msgspec.Struct, frozen=True, array_like=True, tag="tokenize"):
    """`special`: include the tokens that begin and end a text."""

    text: str
    special: bool = True


class Detokenize(msgspec.Struct, frozen=True, array_like=True, tag="detokenize"):
    tokens: tuple[int, ...]


class TokensFound(msgspec.Struct, frozen=True, array_like=True, tag="tokens"):
    """`pieces` are the bytes of each token."""

    tokens: tuple[int, ...]
    pieces: tuple[bytes, ...] = ()


class TextFound(msgspec.Struct, frozen=True, array_like=True, tag="text"):
    text: str


Query = Tokenize | Detokenize
Finding = TokensFound | TextFound
