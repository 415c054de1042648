"""Measures what both caches save on conversations. It depends on the kind of traffic."""

import time

import msgspec

from benchmarks.case import Case, Measure, Result, Run
from benchmarks.conversations import KINDS, QUICK, Body, Sizes
from benchmarks.http_client import fetch, post_chat
from benchmarks.model_folders import dense_demo, tiny_model
from benchmarks.processes import NO_CACHES, service
from benchmarks.report import number, table_of

HITS = (b"anyclaude; hit", b"; collapsed")


class Tally(msgspec.Struct):
    """Prompt tokens count only for misses: a hit reads none, and repeats the counts of the original."""

    requests: int = 0
    hits: int = 0
    prompt_tokens: int = 0
    prefix_tokens: int = 0
    seconds: float = 0.0


async def run(run: Run) -> dict[str, float]:
    sizes = QUICK if run.quick else Sizes()
    model = str(await (tiny_model(run) if run.quick else dense_demo(run)))
    async with service(run.scratch, model) as port:
        cached = {kind: await _replay(kind, port, sizes) for kind in KINDS}
    async with service(run.scratch, model, **NO_CACHES) as port:
        plain = {kind: await _replay(kind, port, sizes) for kind in KINDS}
    values: dict[str, float] = {}
    for kind in KINDS:
        values |= _figures(kind, cached[kind], plain[kind])
    return values


async def _replay(kind: str, port: int, sizes: Sizes) -> Tally:
    tally = Tally()

    async def ask(body: Body) -> str:
        response = await fetch(port, post_chat(body))
        answer = response.json()
        tally.requests += 1
        if any(outcome in response.head for outcome in HITS):
            tally.hits += 1
        else:
            usage = answer["usage"]
            tally.prompt_tokens += usage["prompt_tokens"]
            tally.prefix_tokens += usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        return str(answer["choices"][0]["message"]["content"])

    started = time.perf_counter()
    await KINDS[kind](ask, sizes)
    tally.seconds = time.perf_counter() - started
    return tally


def _figures(kind: str, cached: Tally, plain: Tally) -> dict[str, float]:
    return {
        f"{kind}: requests": cached.requests,
        f"{kind}: response-cache hit rate": 100 * cached.hits / cached.requests,
        f"{kind}: prompt tokens read without caches": plain.prompt_tokens,
        f"{kind}: prompt tokens of misses": cached.prompt_tokens,
        f"{kind}: of these, from the prefix cache": cached.prefix_tokens,
        f"{kind}: without caches": plain.seconds,
        f"{kind}: with caches": cached.seconds,
        f"{kind}: time saved": 100 * (1 - cached.seconds / plain.seconds),
    }


def tables(result: Result) -> str:
    rows = [
        "| kind of traffic | requests | response-cache hits | prompt tokens | hits read none of | prefix cache held "
        "| without caches | with both | time saved |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        median = {measure: result.median(f"{kind}: {measure}") for measure in _UNITS}
        tokens = median["prompt tokens read without caches"]
        rows.append(
            f"| {kind} | {median['requests']:.0f} | {median['response-cache hit rate']:.0f}% | {tokens:,.0f} "
            f"| {tokens - median['prompt tokens of misses']:,.0f} | {median['of these, from the prefix cache']:,.0f} "
            f"| {number(median['without caches'])} s | {number(median['with caches'])} s "
            f"| {median['time saved']:.0f}% |"
        )
    judged = table_of(tuple(figure for figure in result.figures if figure.target))
    return "\n".join(rows) + "\n\n" + judged


_UNITS = {
    "requests": "",
    "response-cache hit rate": "%",
    "prompt tokens read without caches": "tokens",
    "prompt tokens of misses": "tokens",
    "of these, from the prefix cache": "tokens",
    "without caches": "s",
    "with caches": "s",
    "time saved": "%",
}
# The traffic alone decides this: every try but the first is a hit, and every user but the first.
_AT_LEAST = {
    "retries: response-cache hit rate": 66.0,
    "the same from several users: response-cache hit rate": 79.0,
    "growing agent turns: time saved": 20.0,
    "retries: time saved": 50.0,
    "the same from several users: time saved": 50.0,
}

CASE = Case(
    title="What both caches save on conversations",
    measures=tuple(
        Measure(name=f"{kind}: {measure}", unit=unit, at_least=_AT_LEAST.get(f"{kind}: {measure}"))
        for kind in KINDS
        for measure, unit in _UNITS.items()
    ),
    run=run,
    runs=1,
    timeout_seconds=600.0,
    tables=tables,
)
