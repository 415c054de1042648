"""Measures the time to first token behind a known prefix, and the tokens that a growing conversation reads."""

import itertools
import random
import statistics
from typing import Any

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import fetch, post_chat, stream
from benchmarks.model_folders import demo_model
from benchmarks.processes import NO_RESPONSE_CACHE, service, watched_service
from benchmarks.processor_time import processor_seconds
from benchmarks.request_bodies import prose, story

PREFIX_WORDS = 1_000
TURNS = 10
ANSWER_TOKENS = 8
# The response cache is off, so that every answer is generated.


async def run(run: Run) -> dict[str, float]:
    model = str(demo_model())
    systems = [prose(random.Random(seed), run.pick(PREFIX_WORDS, 200)) for seed in range(run.pick(3, 1))]  # noqa: S311
    async with watched_service(run.scratch, model, **NO_RESPONSE_CACHE) as (port, pid):
        await fetch(port, post_chat(story(0, tokens=4)))
        used = [processor_seconds(pid)]
        cold = [await _first_token_seconds(port, system, "What is the capital of France?") for system in systems]
        used.append(processor_seconds(pid))
        warm = [await _first_token_seconds(port, system, "How many days has a week?") for system in systems]
        used.append(processor_seconds(pid))
        read_again, read, grown = await _converse(port, run.pick(TURNS, 3))
    async with service(run.scratch, model, **NO_RESPONSE_CACHE) as port:
        await fetch(port, post_chat(story(0, tokens=4)))
        restarted = [await _first_token_seconds(port, system, "Which colour has the sky?") for system in systems]
    cold_ms = statistics.median(cold) * 1e3
    cold_used, warm_used = ((after - before) * 1e3 / len(systems) for before, after in itertools.pairwise(used))
    return {
        "first token, warm over cold": statistics.median(warm) * 1e3 / cold_ms,
        "first token, after a restart over cold": statistics.median(restarted) * 1e3 / cold_ms,
        "conversation: tokens read again, worst turn": read_again,
        "first token, cold": cold_ms,
        "first token, warm": statistics.median(warm) * 1e3,
        "answer, cold, processor time": cold_used,
        "answer, warm, processor time": warm_used,
        "first token, after a restart": statistics.median(restarted) * 1e3,
        "conversation: prompt tokens read": read,
        "conversation: prompt tokens": grown,
    }


async def _first_token_seconds(port: int, system: str, question: str) -> float:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return (await stream(port, post_chat(_request(messages, 4) | {"stream": True}))).first_text_seconds


async def _converse(port: int, turns: int) -> tuple[float, float, float]:
    """Returns the most tokens that a turn read again, the tokens read in all, and the prompt tokens in all."""
    messages = [{"role": "system", "content": "You answer in one short sentence."}]
    prompts, reads = [0], []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"Tell me something about the number {turn}."})
        answer = (await fetch(port, post_chat(_request(messages, ANSWER_TOKENS)))).json()
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
        usage = answer["usage"]
        prompts.append(usage["prompt_tokens"])
        reads.append(usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"])
    new = [after - before for before, after in itertools.pairwise(prompts)]
    read_again = max(read - grown for read, grown in zip(reads, new, strict=True))
    return float(max(0, read_again)), float(sum(reads)), float(sum(prompts))


def _request(messages: list[dict[str, str]], tokens: int) -> dict[str, Any]:
    return {"model": "default_model", "messages": messages, "temperature": 0, "max_tokens": tokens}


CASE = Case(
    title="Prefixes that are read once, demo model",
    measures=(
        Measure(name="first token, warm over cold", at_most=0.06),
        Measure(name="first token, after a restart over cold", at_most=0.08),
        Measure(name="conversation: tokens read again, worst turn", unit="tokens", at_most=0),
        *(Measure(name=f"first token, {when}", unit="ms") for when in ("cold", "warm", "after a restart")),
        *(Measure(name=f"answer, {when}, processor time", unit="ms") for when in ("cold", "warm")),
        Measure(name="conversation: prompt tokens read", unit="tokens"),
        Measure(name="conversation: prompt tokens", unit="tokens"),
    ),
    run=run,
    timeout_seconds=300.0,
)
