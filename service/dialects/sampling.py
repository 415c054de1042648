"""Sampling fields of both vendors' bodies."""

from typing import Annotated

import msgspec

from service.generation import SamplingParams

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
# The vendors require at least 1. 0 only reads the prompt into the prefix cache.
TokenCount = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
StopString = Annotated[str, msgspec.Meta(min_length=1)]


def temperature_and_top_p(
    temperature: float | None, top_p: float | None, defaults: SamplingParams
) -> tuple[float, float]:
    """Returns the client's values, or the defaults. A `top_p` of 0 keeps only the likeliest token, which is greedy
    decoding."""
    if temperature is None:
        temperature = defaults.temperature
    if top_p is None:
        top_p = defaults.top_p
    return (0.0, 1.0) if top_p == 0 else (temperature, top_p)
