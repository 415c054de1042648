"""Measures what a JSON Schema costs a token."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.case import Case, Measure, Run
from benchmarks.http_client import UnexpectedResponse, fetch, post_chat
from benchmarks.model_folders import dense_demo, tiny_model
from benchmarks.processes import NO_PREFIX_CACHE, service
from benchmarks.request_bodies import story

MODELS = ("demo", "tiny")
CONCURRENCIES = (1, 4)
# Guessing would speed up the free answers alone.
TOKEN_BY_TOKEN = NO_PREFIX_CACHE | {"promptLookup": False}

# The schema uses every kind of value, and its answers are too long to end early.
SHIP = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 24},
        "fate": {"enum": ["sunk", "lost", "moored"]},
        "crew": {"type": "integer", "minimum": 1, "maximum": 900},
        "ports": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "fate", "crew", "ports"],
    "additionalProperties": False,
}
SHIPS = {"type": "array", "items": SHIP, "minItems": 60}
DOCUMENT = {"type": "json_schema", "json_schema": {"name": "ships", "strict": True, "schema": SHIPS}}


async def run(run: Run) -> dict[str, float]:
    models = {"demo": await dense_demo(run), "tiny": await tiny_model(run)}
    tokens = run.pick(64, 8)
    values: dict[str, float] = {}
    for name, model in models.items():
        async with service(run.scratch, str(model), maxConcurrency=max(CONCURRENCIES), **TOKEN_BY_TOKEN) as port:
            numbers = itertools.count(1000)
            for constrained in (False, True):
                await _generate(port, numbers, 1, 2, constrained=constrained)
            for concurrency in CONCURRENCIES:
                rounds = run.pick(3, 1)
                pairs = [await _compare(port, numbers, concurrency, tokens) for _ in range(rounds)]
                free, held = (statistics.median(side) for side in zip(*pairs, strict=True))
                at = _name(name, concurrency)
                values |= {f"{at}, constrained over free": held / free, f"{at}, free": free * 1e3}
    return values


async def _compare(port: int, numbers: Iterator[int], concurrency: int, tokens: int) -> tuple[float, float]:
    """Returns the seconds a token, free and constrained. The difference between two lengths excludes the prompt."""
    sides = []
    for constrained in (False, True):
        first = await _generate(port, numbers, concurrency, 1, constrained=constrained)
        whole = await _generate(port, numbers, concurrency, 1 + tokens, constrained=constrained)
        sides.append((whole - first) / tokens)
    return sides[0], sides[1]


async def _generate(port: int, numbers: Iterator[int], concurrency: int, tokens: int, *, constrained: bool) -> float:
    """Raises `UnexpectedResponse` if an answer is too short."""
    form: dict[str, Any] = {"response_format": DOCUMENT} if constrained else {}
    bodies = [story(next(numbers), tokens) | form for _ in range(concurrency)]
    started = time.perf_counter()
    responses = await asyncio.gather(*(fetch(port, post_chat(body)) for body in bodies))
    seconds = time.perf_counter() - started
    for response in responses:
        if response.json()["usage"]["completion_tokens"] != tokens:
            raise UnexpectedResponse(f"Expected {tokens} tokens, found {response.body!r}")
    return seconds


def _name(model: str, concurrency: int) -> str:
    return f"{model}, {concurrency} at once"


NAMES = [_name(model, concurrency) for model in MODELS for concurrency in CONCURRENCIES]

CASE = Case(
    title="A token under a JSON Schema against a free one",
    measures=(
        *(
            Measure(name=f"{name}, constrained over free", at_most=1.3 if name.startswith("demo") else None)
            for name in NAMES
        ),
        *(Measure(name=f"{name}, free", unit="ms") for name in NAMES),
    ),
    run=run,
    timeout_seconds=600.0,
)
