"""Answers and requests that several tests need."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from service.events import Event
from service.generation import Choice, Completion, GenerationRequest, Message, Text, Usage
from service.settings import Settings
from tests.no_home import NO_HOME


class Numbered:
    """A script whose answers say which one they are; none is given until `gate` is open."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def script(self, request: GenerationRequest) -> AsyncIterator[str | Event]:
        self.count += 1
        text = f"answer {self.count}"
        await self.gate.wait()
        yield text


def ask(content: str = "one two three", **fields: Any) -> GenerationRequest:
    return GenerationRequest(messages=(Message(role="user", content=content),), **fields)


def answer(*parts: Any, finish_reason: Any = "stop", choices: int = 1) -> Completion:
    choice = Choice(parts=parts, finish_reason=finish_reason)
    return Completion(choices=(choice,) * choices, usage=Usage(prompt_tokens=3, completion_tokens=len(parts)))


def text(content: str = "an answer") -> Completion:
    return answer(Text(content))


def settings(**changes: Any) -> Settings:
    return Settings(home=NO_HOME, **changes)
