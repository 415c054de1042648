"""Chooses how many tokens of a prompt are read at once, and in how many lanes.

A larger chunk uses a GPU better; a smaller one lets other answers go on, and needs less memory for attention scores.
What reads fastest depends on machine and model, so it is measured.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate

import msgspec
from msgspec.structs import replace

from service.device.figures import DeviceKind
from service.device.kv_estimate import SMALLEST_CHUNK

LARGEST_CHUNK = 2048

# Measured on a CPU: chunks of 64 to 128 tokens read a prompt 1.4 times faster than chunks of 2048.
FIRST_ON_CPU = 64

# Large enough to fill a GPU, small enough that running sequences continue in between.
FIRST_ON_GPU = 512

# The last two chunks of a prompt are read together, in one batch with other prompts that end.
LAST_CHUNKS = 2

# A running answer waits about this long for a chunk of another prompt.
MOST_SECONDS_BESIDE = 0.5

# macOS ends work of a process that occupies the GPU for several seconds.
MOST_SECONDS_ALONE = 2.0

MOST_SCORE_BYTES = 1024**3
SCORE_SHARE_OF_ROOM = 0.25

# Every fourth chunk is a trial until no other size or number of lanes is faster, then every 64th: speeds change with
# the length that is read, and with what else the machine does.
TRY_SOON = 4
TRY_LATE = 64

# Below this gain, two chunks count as equally fast.
FASTER = 0.97

# The fastest of this many last chunks of a kind is its speed: other work of the machine can only slow a chunk down.
LAST_MEASURED = 8


class ChunkShape(msgspec.Struct, frozen=True):
    tokens: int
    lanes: int = 1


class Attention(msgspec.Struct, frozen=True):
    """`score_bytes`: what one layer holds for each pair of a query and a key; 0 if scores are not kept."""

    score_bytes: int = 0


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """`read`: tokens before the chunk. `beside`: other sequences answer or are read. `room`: free bytes."""

    read: int
    beside: bool = False
    room: int | None = None


def first_chunk(kind: DeviceKind) -> int:
    return FIRST_ON_CPU if kind == "cpu" else FIRST_ON_GPU


def largest_chunk(around: Surroundings, attention: Attention, seconds_per_token: float | None) -> int:
    """A power of two from `SMALLEST_CHUNK` to `LARGEST_CHUNK`."""
    most_seconds = MOST_SECONDS_BESIDE if around.beside else MOST_SECONDS_ALONE
    most_bytes = MOST_SCORE_BYTES if around.room is None else min(MOST_SCORE_BYTES, SCORE_SHARE_OF_ROOM * around.room)
    size = LARGEST_CHUNK
    while size > SMALLEST_CHUNK and (
        size * (seconds_per_token or 0.0) > most_seconds
        or size * (around.read + size) * attention.score_bytes > most_bytes
    ):
        size //= 2
    return size


def fastest(speeds: Mapping[ChunkShape, float], present: ChunkShape, near: Iterable[ChunkShape]) -> ChunkShape:
    """`speeds` are seconds per token. Only those `near` are compared: others were measured long ago."""
    best = min((chunk for chunk in near if chunk in speeds), key=speeds.__getitem__, default=present)
    return best if present in speeds and speeds[best] < FASTER * speeds[present] else present


class ChunkSizes:
    """Begins with `first` tokens in `lanes`; those that read fastest are `chosen`. Without `attention`, every chunk has
    `first` tokens. `contended`: other processes have work."""

    def __init__(
        self,
        first: int,
        attention: Attention | None = None,
        contended: Callable[[], bool] = lambda: False,
        *,
        lanes: int = 1,
    ) -> None:
        self.first = first
        self.chosen = ChunkShape(first, lanes)
        self._most_lanes = lanes
        self._attention = attention
        self._contended = contended
        self._measured: dict[ChunkShape, deque[float]] = {}  # seconds per token
        self._until_trial = TRY_SOON
        self._trials = 0
        self._failed_trials = 0

    def __repr__(self) -> str:
        return f"<ChunkSizes {self.chosen} of {list(self._measured)}>"

    def choose(self, around: Surroundings) -> ChunkShape:
        if self._contended():
            around = replace(around, beside=True)
        chunk = self.chosen if around.beside else self._tried()
        if self._attention is None:
            return chunk
        most = largest_chunk(around, self._attention, self._speeds().get(self.chosen))
        return replace(chunk, tokens=min(chunk.tokens, most, self.first if around.beside else most))

    def most_at_end(self, beside: bool) -> int:
        """Returns how many tokens are read at once where a prompt ends, if `scores_fit`."""
        if self._attention is None:
            return LAST_CHUNKS * self.first
        around = Surroundings(read=0, beside=beside or self._contended())
        return LAST_CHUNKS * min(self.first, largest_chunk(around, Attention(), self._speeds().get(self.chosen)))

    def ends_together(self, unread: list[int], around: Surroundings) -> int:
        """Returns how many of the ends, which have these lengths, are read in one batch: one at least."""
        # A CPU's chunks are never smaller than its first. Its batches were measured with all ends.
        if self._attention is None or self.first <= SMALLEST_CHUNK:
            return len(unread)
        most = min(self.most_at_end(around.beside), largest_chunk(around, self._attention, None))
        # The batch pads all to the longest.
        padded = (rows * longest for rows, longest in enumerate(accumulate(unread, max), start=1))
        return max(1, sum(tokens <= most for tokens in padded))

    def scores_fit(self, tokens: int, read: int, room: Callable[[], int | None]) -> bool:
        if self._attention is None or self._attention.score_bytes == 0:
            return True
        return tokens <= largest_chunk(Surroundings(read=read, room=room()), self._attention, None)

    def learn(self, chunk: ChunkShape, seconds: float) -> None:
        """Does nothing for the cut end of a prompt, which is slower by the token."""
        near = self._near()
        if chunk not in (self.chosen, *near):
            return
        self._measured.setdefault(chunk, deque(maxlen=LAST_MEASURED)).append(seconds / chunk.tokens)
        if chunk == self.chosen:
            return
        better = fastest(self._speeds(), self.chosen, near)
        if better != self.chosen:
            self.chosen, self._failed_trials, self._until_trial = better, 0, TRY_SOON
            self._trials -= 1  # what has paid may pay again
            return
        self._failed_trials += 1
        self._until_trial = TRY_SOON if self._failed_trials < len(near) else TRY_LATE

    def _speeds(self) -> dict[ChunkShape, float]:
        return {chunk: min(measured) for chunk, measured in self._measured.items()}

    def _near(self) -> list[ChunkShape]:
        chunk = self.chosen
        larger = replace(chunk, tokens=min(LARGEST_CHUNK, 2 * chunk.tokens))
        smaller = replace(chunk, tokens=max(SMALLEST_CHUNK, chunk.tokens // 2))
        other_lanes = replace(chunk, lanes=1 if chunk.lanes > 1 else self._most_lanes)
        near = [other_lanes] if self._attention is None else [larger, smaller, other_lanes]
        return [other for other in near if other != chunk]

    def _tried(self) -> ChunkShape:
        self._until_trial -= 1
        near = self._near()
        if self._until_trial > 0 or not near:
            return self.chosen
        self._until_trial = TRY_SOON
        chosen = near[self._trials % len(near)]
        self._trials += 1
        return chosen
