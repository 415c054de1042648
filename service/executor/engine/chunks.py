"""Chooses how many tokens of a prompt are read at once.

A larger chunk uses a GPU better; a smaller one lets other answers go on, and needs less memory for attention scores.
The fastest size depends on machine and model, so it is measured.
"""

from collections import deque
from collections.abc import Callable, Mapping

import msgspec
from msgspec.structs import replace

# Measured on a CPU: chunks of 32 tokens take 1.8 times the processor time of chunks of 64.
SMALLEST, LARGEST = 64, 2048

# A running answer waits about this long for a chunk of another prompt.
MOST_SECONDS_BESIDE = 0.5

# macOS ends work of a process that occupies the GPU for several seconds.
MOST_SECONDS_ALONE = 2.0

MOST_SCORE_BYTES = 1024**3
SCORE_SHARE_OF_ROOM = 0.25

# Every fourth chunk is of another size until neither a larger nor a smaller one is faster, then every 64th: speeds
# change with the length that is read, and with what else the machine does.
TRY_SOON = 4
TRY_LATE = 64

# Below this gain, two sizes count as equally fast.
FASTER = 0.97

# The fastest of this many last chunks is the speed of a size: other work of the machine can only slow a chunk down.
LAST_MEASURED = 8


class Attention(msgspec.Struct, frozen=True):
    """`score_bytes`: what one layer holds for each pair of a query and a key; 0 if scores are not kept."""

    score_bytes: int = 0


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """`read`: tokens before the chunk. `beside`: there are other sequences. `room`: free bytes."""

    read: int
    beside: bool = False
    room: int | None = None


def largest_chunk(around: Surroundings, attention: Attention, seconds_per_token: float | None) -> int:
    """A power of two from `SMALLEST` to `LARGEST`."""
    most_seconds = MOST_SECONDS_BESIDE if around.beside else MOST_SECONDS_ALONE
    most_bytes = MOST_SCORE_BYTES if around.room is None else min(MOST_SCORE_BYTES, SCORE_SHARE_OF_ROOM * around.room)
    size = LARGEST
    while size > SMALLEST and (
        size * (seconds_per_token or 0.0) > most_seconds
        or size * (around.read + size) * attention.score_bytes > most_bytes
    ):
        size //= 2
    return size


def fastest(speeds: Mapping[int, float], present: int) -> int:
    """`speeds` are seconds per token by size. Only neighbours are compared: others were measured long ago."""
    near = [size for size in (present // 2, 2 * present) if size in speeds]
    best = min(near, key=speeds.__getitem__, default=present)
    return best if best in speeds and present in speeds and speeds[best] < FASTER * speeds[present] else present


class ChunkSizes:
    """Begins with `first`. Without `attention`, every chunk has this size. `contended`: other processes have work."""

    def __init__(
        self, first: int, attention: Attention | None = None, contended: Callable[[], bool] = lambda: False
    ) -> None:
        self.first = self._size = first
        self._attention = attention
        self._contended = contended
        self._measured: dict[int, deque[float]] = {}  # seconds per token, by size
        self._until_trial = TRY_SOON
        self._tries_larger = True
        self._failed_trials = 0

    def __repr__(self) -> str:
        return f"<ChunkSizes {self._size} of {sorted(self._measured)}>"

    def choose(self, around: Surroundings) -> int:
        if self._attention is None:
            return self.first
        if self._contended():
            around = replace(around, beside=True)
        most = largest_chunk(around, self._attention, self._speeds().get(self._size))
        if around.beside:
            return min(self._size, self.first, most)
        return min(self._tried(), most)

    def learn(self, size: int, seconds: float) -> None:
        """Does nothing for the cut end of a prompt, which is slower by the token."""
        if size not in (self._size // 2, self._size, 2 * self._size):
            return
        self._measured.setdefault(size, deque(maxlen=LAST_MEASURED)).append(seconds / size)
        if size == self._size:
            return
        better = fastest(self._speeds(), self._size)
        if better != self._size:
            self._size, self._failed_trials, self._until_trial = better, 0, TRY_SOON
            return
        self._failed_trials += 1
        self._until_trial = TRY_SOON if self._failed_trials < 2 else TRY_LATE

    def _speeds(self) -> dict[int, float]:
        return {size: min(measured) for size, measured in self._measured.items()}

    def _tried(self) -> int:
        self._until_trial -= 1
        if self._until_trial > 0:
            return self._size
        self._until_trial = TRY_SOON
        larger, self._tries_larger = self._tries_larger, not self._tries_larger
        return min(LARGEST, 2 * self._size) if larger else max(SMALLEST, self._size // 2)
