"""A measurement of a running server in about two minutes, for `anyclaude bench` and `anyclaude doctor --report`."""

import random
import secrets
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from service.cli.client import ChatChunk, ServerClient
from service.tallies import Tuning

PROMPT_TOKENS = 4000
ANSWER_TOKENS = 128
AT_ONCE = 4
HITS = 20
SAMPLE_WORDS = 400
COUNT_PATH = "/v1/messages/count_tokens"
COUNT_SECONDS = 60.0

# The same words in each measurement. What comes before them differs, or the caches would know them.
WORDS = ("amber", "basket", "candle", "delta", "ember", "forest", "garden", "harbor", "lantern", "meadow")
SEED = 4000

STORY = "Write a story of two hundred words about a lighthouse and the people who live there."


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """Rates are in tokens a second. `peak_memory_bytes` is of MLX's arrays, since the load. `places` answers run at a
    time."""

    prompt_tokens: int
    cold_seconds: float
    read_rate: float
    warm_seconds: float
    warm_cached_tokens: int
    write_rate_alone: float
    write_rate_four_at_once: float
    hit_seconds: float
    context_length: int
    peak_memory_bytes: int | None
    places: int
    tuning: Tuning | None


class _Count(msgspec.Struct, frozen=True):
    input_tokens: int


class _TimedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`writing_seconds` are from the first token to the last."""

    seconds: float
    writing_seconds: float
    prompt_tokens: int
    cached_tokens: int
    tokens: int


def measure(client: ServerClient, progress: Callable[[str], None]) -> Measurement:
    """Fills a few entries of the response cache. Raises like `ServerClient.chat`."""
    context_length = client.model().context_length
    progress("writing a prompt")
    text = _prompt(client, min(PROMPT_TOKENS, context_length // 2))
    progress("reading it cold")
    cold = _ask(client, f"{text}\nName one word of these.", max_tokens=1)
    progress("reading it warm")
    warm = _ask(client, f"{text}\nName another word of these.", max_tokens=1)
    progress("writing alone")
    alone = _ask(client, f"{secrets.token_hex(8)}. {STORY}", max_tokens=ANSWER_TOKENS)
    progress("writing four answers at once")
    questions = [f"{secrets.token_hex(8)}. {STORY}" for _ in range(AT_ONCE)]
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda question: _ask(client, question, max_tokens=ANSWER_TOKENS), questions))
    at_once = sum(answer.tokens for answer in answers) / (time.perf_counter() - began)
    progress("answering from the response cache")
    hits = [_ask(client, questions[0], max_tokens=ANSWER_TOKENS).seconds for _ in range(HITS)]
    stats = client.stats()
    return Measurement(
        prompt_tokens=cold.prompt_tokens,
        cold_seconds=round(cold.seconds, 3),
        read_rate=round(cold.prompt_tokens / cold.seconds, 1),
        warm_seconds=round(warm.seconds, 3),
        warm_cached_tokens=warm.cached_tokens,
        write_rate_alone=round(max(0, alone.tokens - 1) / alone.writing_seconds, 1) if alone.writing_seconds else 0.0,
        write_rate_four_at_once=round(at_once, 1),
        hit_seconds=round(statistics.median(hits), 5),
        context_length=context_length,
        peak_memory_bytes=stats.memory.engine_peak_bytes,
        places=stats.engine.max_concurrency,
        tuning=stats.engine.tuning,
    )


def _prompt(client: ServerClient, tokens: int) -> str:
    drawn = random.Random(SEED)  # noqa: S311 - not a secret
    sample = " ".join(drawn.choices(WORDS, k=SAMPLE_WORDS))
    body = msgspec.json.encode({"model": "default", "messages": [{"role": "user", "content": sample}]})
    counted = msgspec.json.decode(client.post(COUNT_PATH, body, COUNT_SECONDS), type=_Count).input_tokens
    words = drawn.choices(WORDS, k=round(tokens * SAMPLE_WORDS / max(1, counted)))
    return f"{secrets.token_hex(8)} {' '.join(words)}"


def _ask(client: ServerClient, question: str, *, max_tokens: int) -> _TimedAnswer:
    began = time.perf_counter()
    written: list[float] = []
    last = ChatChunk()
    for chunk in client.chat([{"role": "user", "content": question}], max_tokens=max_tokens, temperature=0):
        if any(choice.delta.content or choice.delta.reasoning_content for choice in chunk.choices):
            written.append(time.perf_counter())
        last = chunk if chunk.usage is not None else last
    usage = last.usage
    details = usage.prompt_tokens_details if usage is not None else None
    return _TimedAnswer(
        seconds=time.perf_counter() - began,
        writing_seconds=written[-1] - written[0] if written else 0.0,
        prompt_tokens=usage.prompt_tokens if usage is not None else 0,
        cached_tokens=details.cached_tokens if details is not None else 0,
        tokens=usage.completion_tokens if usage is not None else 0,
    )
