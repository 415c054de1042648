"""Makes conversations of made-up words in the shapes that clients send."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from benchmarks.request_bodies import prose

Body = dict[str, Any]
# Sends a request and returns the answer's text.
Ask = Callable[[Body], Awaitable[str]]


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """A word is about one token."""

    agents: int = 2
    turns: int = 4
    instruction_words: int = 200
    result_words: int = 60
    retried: int = 3
    tries: int = 3
    users: int = 4
    shared: int = 2
    fresh: int = 3
    answer_tokens: int = 8


QUICK = Sizes(agents=2, turns=2, instruction_words=30, result_words=10, retried=1, tries=2, shared=1, fresh=1)


async def agent_turns(ask: Ask, sizes: Sizes) -> None:
    """Agents share their instructions, and each sends its whole conversation with every turn."""

    async def agent(number: int) -> None:
        words = random.Random(number)  # noqa: S311
        messages = [
            {"role": "system", "content": prose(random.Random(0), sizes.instruction_words)},  # noqa: S311
            {"role": "user", "content": f"This is task {number}: {prose(words, 20)}"},
        ]
        for turn in range(sizes.turns):
            messages.append({"role": "assistant", "content": await ask(_body(messages, sizes))})
            messages.append({"role": "user", "content": f"Output of step {turn}: {prose(words, sizes.result_words)}"})

    await asyncio.gather(*(agent(number) for number in range(sizes.agents)))


async def retries(ask: Ask, sizes: Sizes) -> None:
    """Repeats each request after its answer, like a client that lost it."""
    for number in range(sizes.retried):
        body = _question(1000 + number, sizes)
        for _ in range(sizes.tries):
            await ask(body)


async def same_from_several(ask: Ask, sizes: Sizes) -> None:
    """Several users ask the same question at once, and one more asks it later."""
    for number in range(sizes.shared):
        body = _question(2000 + number, sizes)
        await asyncio.gather(*(ask(body) for _ in range(sizes.users)))
        await ask(body)


async def never_asked_before(ask: Ask, sizes: Sizes) -> None:
    for number in range(sizes.fresh):
        await ask(_question(3000 + number, sizes))


KINDS: dict[str, Callable[[Ask, Sizes], Awaitable[None]]] = {
    "growing agent turns": agent_turns,
    "retries": retries,
    "the same from several users": same_from_several,
    "never asked before": never_asked_before,
}


def _question(number: int, sizes: Sizes) -> Body:
    words = random.Random(number)  # noqa: S311
    return _body([{"role": "user", "content": f"{number}: {prose(words, sizes.result_words)}"}], sizes)


def _body(messages: list[dict[str, str]], sizes: Sizes) -> Body:
    return {
        "model": "default",
        "messages": list(messages),
        "temperature": 0,
        "max_tokens": sizes.answer_tokens,
    }
