from collections import deque

import msgspec

SPEED_SECONDS = 5.0


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per second over the last seconds, for all running requests together."""

    generated: float
    read: float


class _Sample(msgspec.Struct, frozen=True):
    time: float
    generated: int
    read: int


class SpeedMeter:
    def __init__(self, started: float) -> None:
        self._counted = (0, 0)
        self._samples = deque([_Sample(started, 0, 0)])

    @property
    def sampled_at(self) -> float:
        return self._samples[-1].time

    def sample(self, now: float, generated_tokens: int, read_tokens: int) -> int:
        """Takes counts since the engine's start. Returns the tokens generated since the last sample."""
        last, (old_generated, old_read) = self._samples[-1], self._counted
        generated, read = _growth(old_generated, generated_tokens), _growth(old_read, read_tokens)
        self._counted = (generated_tokens, read_tokens)
        self._samples.append(_Sample(now, last.generated + generated, last.read + read))
        while len(self._samples) > 2 and self._samples[1].time <= now - SPEED_SECONDS:
            self._samples.popleft()
        return generated

    def speed(self) -> Speed:
        first, last = self._samples[0], self._samples[-1]
        seconds = last.time - first.time
        if seconds <= 0:
            return Speed(generated=0.0, read=0.0)
        return Speed(
            generated=round((last.generated - first.generated) / seconds, 2),
            read=round((last.read - first.read) / seconds, 2),
        )


def _growth(before: int, after: int) -> int:
    return after - before if after >= before else after
