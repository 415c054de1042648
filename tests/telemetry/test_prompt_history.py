"""Why a prompt is read again."""

from typing import Any

import msgspec
import pytest

from service.generation import GenerationRequest, Message, Tool, ToolCall, Usage
from service.telemetry.prompt_history import PROMPTS, PromptHistory

READ, BASH, SEARCH = (Tool(name=name) for name in ("Read", "Bash", "mcp__search"))
SYSTEM = Message(role="system", content="Be brief.")
TURNS = (
    Message(role="user", content="Look."),
    Message(role="assistant", tool_calls=(ToolCall("toolu_1", "Bash", "{}"),)),
    Message(role="tool", content="found", tool_call_id="toolu_1"),
)
MORE = Message(role="user", content="And?")


def request(*turns: Message, system: Message = SYSTEM, **fields: Any) -> GenerationRequest:
    return GenerationRequest(messages=(system, *(turns or TURNS)), **{"tools": (READ, BASH), **fields})


def usage(prompt: int, cached: int = 0) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=1, cached_tokens=cached)


def reason(first: GenerationRequest, second: GenerationRequest, *, cached: int = 1000) -> str:
    history = PromptHistory()
    history.add(first).outline.prompt_tokens = 1000
    return history.add(second).reason(usage(1200, cached))


OTHER_BASH = Tool(name="Bash", description="other")


@pytest.mark.parametrize(
    ("second", "difference"),
    [
        (request(*TURNS, MORE), ""),
        (request(tools=(READ, BASH, SEARCH)), "tools[2] `mcp__search` is new"),
        (request(tools=(READ, SEARCH, BASH)), "tools[1] `mcp__search` is new"),
        (request(tools=(READ,)), "tools[1] `Bash` is gone"),
        (request(tools=(BASH,)), "tools[0] `Read` is gone"),
        (request(tools=(BASH, READ)), "tools[0] `Read` is elsewhere"),
        (request(tools=(READ, OTHER_BASH)), "tools[1] `Bash` changed"),
        (request(tools=(READ, BASH, Tool(name="late", deferred=True))), ""),
        (request(system=Message(role="system", content="Be long.")), "system changed"),
        (request(Message(role="user", content="Go."), *TURNS[1:], MORE), "messages[0] changed"),
        (request(*TURNS[:2], Message(role="tool", content="lost", tool_call_id="toolu_1")), "messages[2] changed"),
        (request(template_arguments={"reasoning_effort": "low"}), "the effort, thinking or tool choice changed"),
        (request(MORE), ""),
    ],
)
def test_the_first_difference_is_named(second: GenerationRequest, difference: str) -> None:
    assert reason(request(), second) == (f"first difference: {difference}" if difference else "")


def test_what_the_prefix_cache_lost_is_no_difference() -> None:
    grown = request(*TURNS, MORE)
    assert reason(request(), grown, cached=700) == "begins as before, but the prefix cache no longer has it"
    assert reason(request(), grown, cached=900) == ""
    assert reason(request(), request(MORE), cached=0) == ""


def test_what_is_normalised_is_no_difference() -> None:
    line = "x-anthropic-billing-header: cc_version=2.1.197.{}; cc_entrypoint=cli;\nBe brief."
    systems = [Message(role="system", content=line.format(number)) for number in (1, 2)]
    assert reason(request(system=systems[0]), request(system=systems[1])) == ""


def test_each_conversation_and_each_caller_has_its_own() -> None:
    history = PromptHistory()
    history.add(request())
    history.add(request(MORE, tools=(SEARCH,)))
    assert history.add(request(*TURNS, MORE)).reason(usage(9)) == ""
    assert history.add(msgspec.structs.replace(request(tools=()), caller="c")).earlier is None


def test_memory_is_bounded() -> None:
    history = PromptHistory()
    for number in range(PROMPTS + 1):
        history.add(request(Message(role="user", content=str(number))))
    assert history.add(request(Message(role="user", content="0"))).earlier is None
    assert history.add(request(Message(role="user", content="9"))).earlier is not None
