"""The sampling fields of OpenAI's bodies, and those that local servers added."""

from typing import Annotated

import msgspec

from service.dialects.json_body import show
from service.dialects.sampling import Probability, StopString, temperature_and_top_p
from service.errors import BadRequest
from service.generation import SamplingParams

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
# It divides logits, which overflow near 0.
RepetitionPenalty = Annotated[float, msgspec.Meta(ge=0.01, le=100)]
Bias = Annotated[float, msgspec.Meta(ge=-100, le=100)]
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
TopK = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]
Stop = StopString | Annotated[list[StopString], msgspec.Meta(max_length=16)]

MAX_BIASES = 10_000


class SamplingFields(msgspec.Struct, kw_only=True):
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: TopK | None = None
    min_p: Probability | None = None
    repetition_penalty: RepetitionPenalty | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Bias], msgspec.Meta(max_length=MAX_BIASES)] | None = None
    seed: Seed | None = None


def read_sampling(asked: SamplingFields, defaults: SamplingParams) -> SamplingParams:
    temperature, top_p = temperature_and_top_p(asked.temperature, asked.top_p, defaults)
    return SamplingParams(
        temperature=temperature,
        top_p=top_p,
        top_k=defaults.top_k if asked.top_k is None else max(asked.top_k, 0),
        min_p=defaults.min_p if asked.min_p is None else asked.min_p,
        repetition_penalty=(
            defaults.repetition_penalty if asked.repetition_penalty is None else asked.repetition_penalty
        ),
        presence_penalty=defaults.presence_penalty if asked.presence_penalty is None else asked.presence_penalty,
        frequency_penalty=defaults.frequency_penalty if asked.frequency_penalty is None else asked.frequency_penalty,
        logit_bias=defaults.logit_bias if asked.logit_bias is None else _logit_bias(asked.logit_bias),
        seed=defaults.seed if asked.seed is None else asked.seed,
    )


def read_stop(stop: str | list[str] | None) -> tuple[str, ...]:
    if isinstance(stop, str):
        return (stop,)
    return tuple(dict.fromkeys(stop or ()))


def _logit_bias(biases: dict[str, float]) -> tuple[tuple[int, float], ...]:
    by_token: dict[int, float] = {}
    for key, bias in biases.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise BadRequest.at("logit_bias", f"expected token ids as keys, found {show(key)}.")
        by_token[int(key)] = bias
    return tuple(sorted(by_token.items()))
