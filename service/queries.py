import msgspec


class Tokenize(msgspec.Struct, frozen=True, array_like=True, tag="tokenize"):
    """`special`: include the tokens that begin and end a text."""

    text: str
    special: bool = True


class Detokenize(msgspec.Struct, frozen=True, array_like=True, tag="detokenize"):
    tokens: tuple[int, ...]


class ListPrefixes(msgspec.Struct, frozen=True, array_like=True, tag="prefixes"): ...


class TokensFound(msgspec.Struct, frozen=True, array_like=True, tag="tokens"):
    """`pieces` are the bytes of each token."""

    tokens: tuple[int, ...]
    pieces: tuple[bytes, ...] = ()


class TextFound(msgspec.Struct, frozen=True, array_like=True, tag="text"):
    text: str


class PrefixBranch(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens `[start, end)` that `prompts` prompts share, behind those of the last branch before with a smaller
    `depth`."""

    depth: int
    start: int
    end: int
    prompts: int = 1
    memory_tokens: int
    memory_bytes: int
    disk_tokens: int
    disk_bytes: int


class PrefixesFound(msgspec.Struct, frozen=True, array_like=True, tag="branches"):
    branches: list[PrefixBranch]


TextQuery = Tokenize | Detokenize
Query = TextQuery | ListPrefixes
Finding = TokensFound | TextFound | PrefixesFound
