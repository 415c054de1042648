"""Makes keys and values like those of the response cache, and an order of requests for them."""

import hashlib
import random

import msgspec

SMALLEST_VALUE, LARGEST_VALUE = 512, 64 * 1024


class Entries(msgspec.Struct, frozen=True):
    """`keys` are SHA-256 in hexadecimal. `values` have 0.5 to 64 KB; each doubling of the size is equally likely."""

    keys: list[str]
    values: dict[str, bytes]

    @property
    def total_bytes(self) -> int:
        return sum(len(key) + len(value) for key, value in self.values.items())


def make_entries(count: int, seed: int = 1) -> Entries:
    sizes = random.Random(seed)  # noqa: S311
    keys = [hashlib.sha256(f"{seed}/{number}".encode()).hexdigest() for number in range(count)]
    values = {key: sizes.randbytes(_log_uniform(sizes)) for key in keys}
    return Entries(keys, values)


def zipf(keys: list[str], count: int, seed: int = 2) -> list[str]:
    """The i-th key has a weight of 1/i."""
    weights = [1 / rank for rank in range(1, len(keys) + 1)]
    return random.Random(seed).choices(keys, weights, k=count)  # noqa: S311


def _log_uniform(numbers: random.Random) -> int:
    ratio = LARGEST_VALUE / SMALLEST_VALUE
    return int(SMALLEST_VALUE * ratio ** numbers.random())
