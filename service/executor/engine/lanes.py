"""Reads parts of a prompt at the same time."""

from typing import Any

import mlx.core as mx

from service.device.figures import DeviceKind
from service.models.blas import one_thread_a_product

# Larger numbers were not measured.
MOST_LANES = 4

# A product of fewer rows takes more time per row.
LEAST_TOKENS = 16


def most_lanes(kind: DeviceKind, blas_threads: int) -> int:
    return max(1, min(MOST_LANES, blas_threads)) if kind == "cpu" else 1


class Lanes:
    def __init__(self) -> None:
        self._streams: list[mx.Stream] = []

    def read(self, model: Any, tokens: list[int], caches: list[Any], lanes: int) -> None:
        """Evaluates `caches`."""
        lanes = max(1, min(lanes, len(tokens) // LEAST_TOKENS))
        if lanes == 1:
            model(mx.array([tokens]), cache=caches)
            mx.eval([layer.state for layer in caches])
            return
        # MLX computes on a CPU with one thread for each stream, and only its matrix products use more. A lane computes
        # a layer while the lane before it computes the next one.
        part = -(-len(tokens) // lanes)
        # Joining the parts of a kept state comes first. Within the same evaluation, it delays the second lane until the
        # first has ended.
        mx.eval([layer.state for layer in caches])
        for number in range(lanes):
            with mx.stream(self._stream(number)):
                model(mx.array([tokens[number * part : (number + 1) * part]]), cache=caches)
        with one_thread_a_product():
            mx.eval([layer.state for layer in caches])

    def _stream(self, number: int) -> mx.Stream:
        while len(self._streams) <= number:
            self._streams.append(mx.new_stream(mx.default_device()))
        return self._streams[number]
