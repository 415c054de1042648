"""Decides which states are worth a file: those that take longer to read again as tokens than to write and load."""

import msgspec

# Assumed share of files that are loaded again. Each is written, and most are followed by the next turn's.
LOADED_SHARE = 0.125

# Opening, renaming and the header. Measured on an SSD: 0.3 to 1 ms.
FILE_SECONDS = 0.001

SECONDS_OF_A_FILE = FILE_SECONDS * (1 + LOADED_SHARE)

# Assumed until the first file is written and loaded, for a slow SSD.
FIRST_BYTE_SECONDS = 1 / 500e6

# The share of the last measurement in an average.
NEWEST = 0.25


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that were measured: to read a token with the model (None: not yet), and for each byte of a file."""

    token: float | None = None
    written_byte: float = FIRST_BYTE_SECONDS
    loaded_byte: float = FIRST_BYTE_SECONDS

    @property
    def byte(self) -> float:
        return self.written_byte + LOADED_SHARE * self.loaded_byte


def is_worth_a_file(tokens: int, nbytes: int, prices: Prices) -> bool:
    return prices.token is None or LOADED_SHARE * tokens * prices.token > SECONDS_OF_A_FILE + nbytes * prices.byte


def least_tokens(fixed: int, per_token: int, prices: Prices) -> int | None:
    """A state has `fixed` bytes and `per_token` for each token. Returns None if no length is worth a file."""
    if prices.token is None:
        return 1
    gain = LOADED_SHARE * prices.token - per_token * prices.byte
    return int((SECONDS_OF_A_FILE + fixed * prices.byte) / gain) + 1 if gain > 0 else None


class MeasuredPrices:
    """Takes in measurements. The MLX thread owns it."""

    def __init__(self) -> None:
        self.prices = Prices()

    def learn_token(self, tokens: int, seconds: float) -> None:
        self._learn(token=_mixed(self.prices.token, seconds / tokens))

    def learn_write(self, nbytes: int, seconds: float) -> None:
        self._learn(written_byte=_mixed(self.prices.written_byte, max(0.0, seconds - FILE_SECONDS) / nbytes))

    def learn_load(self, nbytes: int, seconds: float) -> None:
        self._learn(loaded_byte=_mixed(self.prices.loaded_byte, max(0.0, seconds - FILE_SECONDS) / nbytes))

    def _learn(self, **prices: float) -> None:
        self.prices = msgspec.structs.replace(self.prices, **prices)


def _mixed(known: float | None, new: float) -> float:
    return new if known is None else known + NEWEST * (new - known)
