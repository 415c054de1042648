"""The executor without a model, which is also served: it may not grow with what it is asked."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from service.events import ChoiceFinished, Event, ToolCallDelta, ToolCallStarted
from service.executor.base import collect
from service.executor.scripted import REMEMBERED_REQUESTS, ScriptedExecutor
from service.generation import GenerationRequest, Message, Text, ToolCall


def saying(text: str) -> GenerationRequest:
    return GenerationRequest(messages=(Message(role="user", content=text),))


async def test_it_repeats_what_it_is_told_as_far_as_it_may() -> None:
    executor = ScriptedExecutor()
    answer = await executor.submit(GenerationRequest(messages=saying("one two three").messages, max_tokens=2))
    completion = await collect(answer.events())
    assert completion.choices[0].text == "one two "
    assert completion.choices[0].finish_reason == "length"


async def test_only_the_last_requests_are_remembered() -> None:
    executor = ScriptedExecutor()
    for number in range(REMEMBERED_REQUESTS + 5):
        await (await executor.submit(saying(str(number)))).aclose()
    assert [request.messages[0].content for request in executor.submitted] == [
        str(number) for number in range(5, REMEMBERED_REQUESTS + 5)
    ]


WORDS_THAT_STOP = {
    "inside of a word": ("hello world", ["orl"], "hello w", "orl", ["hello ", "world"]),
    "at the front of a word": ("hello world", ["wor"], "hello ", "wor", ["hello "]),
    "across words": ("alpha beta gamma", ["beta ga"], "alpha ", "beta ga", ["alpha "]),
    "across words, from inside of one": ("alpha beta gamma", ["ta ga"], "alpha be", "ta ga", ["alpha ", "beta "]),
    "the one that ends first, not the first": ("xaybz q", ["b", "a"], "x", "a", ["xaybz "]),
    "the longest of those that end together": ("one two", ["wo", "two"], "one ", "two", ["one "]),
    "only begun when the text ends": ("one two", ["two three"], "one two", None, ["one ", "two"]),
    "begun in vain": ("one two three", ["two four"], "one two three", None, ["one ", "two ", "three"]),
}


@pytest.mark.parametrize(("text", "stop", "said", "found", "tokens"), WORDS_THAT_STOP.values(), ids=WORDS_THAT_STOP)
async def test_a_stop_string_ends_it_where_it_would_end_a_model(
    text: str, stop: list[str], said: str, found: str | None, tokens: list[str]
) -> None:
    """What it says, and the tokens with logprobs: one that is cut keeps its own, and one that is gone does not."""
    request = msgspec.structs.replace(saying(text), stop=tuple(stop), logprobs=0)
    choice = (await collect((await ScriptedExecutor().submit(request)).events())).choices[0]
    assert (choice.text, choice.stop_sequence) == (said, found)
    assert [logprob.token for logprob in choice.logprobs or ()] == tokens


@pytest.mark.parametrize(("stop", "count"), [((), 3), (("beta ga",), 3), (("beta",), 2)])
async def test_words_count_that_a_stop_string_holds_back_or_cuts(stop: tuple[str, ...], count: int) -> None:
    request = msgspec.structs.replace(saying("alpha beta gamma"), stop=stop)
    completion = await collect((await ScriptedExecutor().submit(request)).events())
    assert completion.usage.completion_tokens == count


async def test_a_script_may_end_every_choice_itself() -> None:
    async def script(request: GenerationRequest) -> AsyncIterator[str | Event]:
        yield "cut"
        yield ChoiceFinished(0, "length")

    completion = await collect(
        (await ScriptedExecutor(script).submit(msgspec.structs.replace(saying("x"), n=2))).events()
    )
    assert [(choice.text, choice.finish_reason) for choice in completion.choices] == [("cut", "length")] * 2


async def test_what_a_stop_string_held_back_comes_before_a_call() -> None:
    async def script(request: GenerationRequest) -> AsyncIterator[str | Event]:
        yield "I look: ST"
        yield ToolCallStarted(0, "call_0", "look")
        yield ToolCallDelta(0, "{}")
        yield "OP"

    request = msgspec.structs.replace(saying("Look."), stop=("STOP",))
    choice = (await collect((await ScriptedExecutor(script).submit(request)).events())).choices[0]
    assert choice.parts == (Text("I look: ST"), ToolCall("call_0", "look", "{}"), Text("OP"))
    assert choice.finish_reason == "tool_calls"
