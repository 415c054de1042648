"""Compares greedy answers with and without everything that makes the service fast."""

import asyncio
import itertools

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import Connection, fetch, post_chat
from benchmarks.model_folders import demo_model
from benchmarks.processes import NO_CACHES, NO_RESPONSE_CACHE, service
from benchmarks.request_bodies import story

TOKENS = 16
MAX_CONCURRENCY = 4
SUBJECTS = ("France", "snow", "the number 7", "cats", "Hamlet", "rivers", "the Moon", "bread", "music", "a clock")
QUESTIONS = (
    *("What is {}?", "Tell me one fact about {}.", "Why do people like {}?", "Write a line of a poem about {}."),
    *("List three words for {}.", "Explain {} to a child.", "Is {} old?", 'Translate "{}" into French.'),
    *('Count the letters of "{}".', "Describe {} in one sentence."),
)
# Many prompts share these beginnings of several lengths, so the prefix cache serves them.
SYSTEMS = tuple("You answer in one short sentence. " * times for times in (3, 10, 25))

# The reference generates every answer, reads whole prompts, and draws one token at a time.
PLAIN = NO_CACHES | {"maxConcurrency": MAX_CONCURRENCY, "promptLookup": False}
FAST = NO_RESPONSE_CACHE | {"maxConcurrency": MAX_CONCURRENCY, "promptLookup": True}

BATCHED = "four at once"
FIRST = "prefix cache and prompt lookup"
AGAIN = "the same, asked again"
RESTARTED = "the same after a restart, four at once"


async def run(run: Run) -> dict[str, float]:
    model = str(demo_model())
    requests = _requests(run.pick(100, 6))
    async with service(run.scratch, model, **PLAIN) as port:
        await fetch(port, post_chat(story(0, tokens=4)))
        plain = await _ask(port, requests, at_once=1)
        batched = await _ask(port, requests, at_once=MAX_CONCURRENCY)
    async with service(run.scratch, model, **FAST) as port:
        first = await _ask(port, requests, at_once=1)
        again = await _ask(port, requests, at_once=1)
    async with service(run.scratch, model, **FAST) as port:
        restarted = await _ask(port, requests, at_once=MAX_CONCURRENCY)
    asked = {BATCHED: batched, FIRST: first, AGAIN: again, RESTARTED: restarted}
    return {
        **{name: _differences(plain, answers) for name, answers in asked.items()},
        "prompts": float(len(requests)),
        "prompt tokens from the prefix cache": sum(cached for _, cached in again) / len(again),
    }


def _requests(count: int) -> list[bytes]:
    pairs = itertools.islice(itertools.product(SUBJECTS, QUESTIONS), count)
    return [
        post_chat(
            {
                "messages": [
                    {"role": "system", "content": SYSTEMS[number % len(SYSTEMS)]},
                    {"role": "user", "content": question.format(subject)},
                ],
                "temperature": 0,
                "max_tokens": TOKENS,
            }
        )
        for number, (subject, question) in enumerate(pairs)
    ]


async def _ask(port: int, requests: list[bytes], *, at_once: int) -> list[tuple[str, int]]:
    """Returns the texts, and the prompt tokens that came from the prefix cache."""
    answers: list[tuple[str, int]] = [("", 0)] * len(requests)
    waiting = iter(enumerate(requests))

    async def ask_in_turn() -> None:
        async with Connection(port) as connection:
            for number, request in waiting:
                answer = (await connection.send(request)).json()
                cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
                answers[number] = answer["choices"][0]["message"]["content"], cached

    await asyncio.gather(*(ask_in_turn() for _ in range(at_once)))
    return answers


def _differences(plain: list[tuple[str, int]], answers: list[tuple[str, int]]) -> float:
    return float(sum(one != other for (one, _), (other, _) in zip(plain, answers, strict=True)))


CASE = Case(
    title="Greedy answers that differ from plain decoding, demo model",
    measures=(
        *(Measure(name=name, unit="answers", at_most=0) for name in (BATCHED, FIRST, AGAIN, RESTARTED)),
        Measure(name="prompts", unit="prompts"),
        Measure(name="prompt tokens from the prefix cache", unit="tokens"),
    ),
    run=run,
    runs=1,
    timeout_seconds=1200.0,
)
