"""The order for one token: repetition penalty, presence and frequency penalty, logit bias, log-softmax (which
`logprobs` reports), then top_p, min_p and top_k at temperature 1 as in mlx-lm, temperature, draw."""

import hashlib
import math
import secrets
from collections.abc import Callable

import mlx.core as mx

from service.generation import SamplingParams

# Log-probabilities `[batch, vocabulary]` to token ids `[batch]`.
Sampler = Callable[[mx.array], mx.array]

# All tokens so far `[length]`, prompt first, and logits `[1, vocabulary]`, to logits.
LogitsProcessor = Callable[[mx.array, mx.array], mx.array]

# Below it, the likeliest token is drawn: dividing by the temperature would overflow f32.
GREEDY_BELOW = 1e-5


def greedy(logprobs: mx.array) -> mx.array:
    # One function for all greedy sequences: mlx-lm draws a batch that shares a sampler in one call.
    return mx.argmax(logprobs, axis=-1)


def make_sampler(params: SamplingParams) -> Sampler:
    if params.temperature < GREEDY_BELOW or params.top_k == 1:
        return greedy
    return Draw(params)


def make_logits_processors(params: SamplingParams, prompt_tokens: int) -> list[LogitsProcessor]:
    processors: list[LogitsProcessor] = []
    if params.repetition_penalty != 1.0:
        processors.append(_repetition_penalty(params.repetition_penalty))
    if params.presence_penalty or params.frequency_penalty:
        processors.append(_count_penalties(params.presence_penalty, params.frequency_penalty, prompt_tokens))
    if params.logit_bias:
        processors.append(_logit_bias(params.logit_bias))
    return processors


class Draw:
    """Draws by the Gumbel-max trick. A token's random numbers depend only on the seed and on its `position` in the
    answer, so any batch and any guess give the same tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self.position = 0
        self._seed = secrets.randbits(64) if params.seed is None else params.seed
        self._params = params

    def __call__(self, logprobs: mx.array) -> mx.array:
        candidates = keep_likely(logprobs, self._params) * (1.0 / self._params.temperature)
        rows, vocabulary = candidates.shape
        # `mx.random.categorical` compares one number with sums over the vocabulary. A batch rounds them differently,
        # which changed four draws in a thousand.
        noise = [self._noise(self.position + row, vocabulary) for row in range(rows)]
        self.position += rows
        return mx.argmax(candidates + (mx.concatenate(noise) if rows > 1 else noise[0]), axis=-1)

    def _noise(self, position: int, vocabulary: int) -> mx.array:
        digest = hashlib.blake2b(f"{self._seed} {position}".encode(), digest_size=8).digest()
        return mx.random.gumbel((1, vocabulary), key=mx.random.key(int.from_bytes(digest, "big")))


def keep_likely(logprobs: mx.array, params: SamplingParams) -> mx.array:
    """Sets the other tokens to minus infinity. All tokens at a threshold stay."""
    thresholds = []
    if params.top_p < 1.0:
        thresholds.append(_top_p_threshold(logprobs, params.top_p))
    if params.min_p > 0.0:
        thresholds.append(mx.max(logprobs, axis=-1, keepdims=True) + math.log(min(params.min_p, 1.0)))
    if 0 < params.top_k < logprobs.shape[-1]:
        thresholds.append(mx.min(mx.topk(logprobs, params.top_k, axis=-1), axis=-1, keepdims=True))
    for threshold in thresholds:
        logprobs = mx.where(logprobs < threshold, -math.inf, logprobs)
    return logprobs


def _top_p_threshold(logprobs: mx.array, top_p: float) -> mx.array:
    """Returns the log-probability of the nucleus's least likely token, `[batch, 1]` (Holtzman et al. 2019,
    arXiv:1904.09751)."""
    ascending = mx.sort(logprobs, axis=-1)
    probabilities = mx.exp(ascending.astype(mx.float32))
    mass_above = mx.cumsum(probabilities, axis=-1, reverse=True, inclusive=False)
    dropped = mx.sum(mass_above >= top_p, axis=-1, keepdims=True)
    last = logprobs.shape[-1] - 1
    return mx.take_along_axis(ascending, mx.minimum(dropped, last), axis=-1)


def _repetition_penalty(penalty: float) -> LogitsProcessor:
    """Covers the whole context (Keskar et al. 2019, arXiv:1909.05858); mlx-lm covers only the last 20 tokens."""

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        seen = logits[:, tokens]
        logits[:, tokens] = mx.where(seen < 0, seen * penalty, seen / penalty)
        return logits

    return process


def _count_penalties(presence: float, frequency: float, prompt_tokens: int) -> LogitsProcessor:
    """OpenAI's formula: `logit - frequency * count - presence * (count > 0)`."""

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        generated = tokens[prompt_tokens:]
        if generated.size == 0:
            return logits
        if presence:
            logits[:, generated] = logits[:, generated] - presence
        if frequency:
            logits = logits.at[:, generated].subtract(frequency)
        return logits

    return process


def _logit_bias(bias: tuple[tuple[int, float], ...]) -> LogitsProcessor:
    tokens = mx.array([token for token, _ in bias])
    values = mx.array([value for _, value in bias])

    def process(_: mx.array, logits: mx.array) -> mx.array:
        return logits.at[:, tokens].add(values)

    return process
