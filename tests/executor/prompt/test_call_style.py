"""How calls, results and reasoning reach templates that ask for them in their own ways. The templates here are ours:
each asks for what a family of real ones asks for."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from service.generation import GenerationRequest, Message, Tool, ToolCall
from tests.executor.templates import rendered

TOOL = Tool(name="look", parameters={"type": "object", "properties": {"at": {"type": "string"}}})

DEFINED = "{{ '.' if tools }}{% for t in tools or [] %}{{ t.function.description }}{% endfor %}"
EVERY_CALL = (
    "{% for m in messages %}<{{ m.role }}>{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]"
    "{% endfor %};{% endfor %}" + DEFINED
)
# gpt-oss: the first call of a turn, its name for the result, and thoughts only since the last answer.
FIRST_CALL = (
    "{% set last = namespace(name=none) %}{% for m in messages %}{% if m.tool_calls %}"
    "{% if m.content and m.thinking %}{{ raise_exception('content and thinking') }}{% endif %}"
    "{% set later = messages[loop.index:] | selectattr('role', 'eq', 'assistant') "
    "| rejectattr('tool_calls', 'defined') | list %}"
    "{% if not later %}{{ '(' + (m.thinking or m.content) + ')' if m.thinking or m.content }}{% endif %}"
    "{% set call = m.tool_calls[0].function %}<to {{ call.name }}>{{ call.arguments | tojson }};"
    "{% set last.name = call.name %}{% elif m.role == 'tool' %}"
    "{% if last.name is none %}{{ raise_exception('a result without a call') }}{% endif %}"
    "<from {{ last.name }}>{{ m.content }};"
    "{% else %}<{{ m.role }}>{{ m.content }};{% if m.role == 'assistant' %}{% set last.name = none %}{% endif %}"
    "{% endif %}{% endfor %}" + DEFINED
)
# Llama 3: refuses several calls, and shows no text beside one.
ONE_CALL = (
    "{% for m in messages %}{% if m.tool_calls %}"
    "{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at once') }}{% endif %}"
    "<assistant>[{{ m.tool_calls[0].function.name }} {{ m.tool_calls[0].function.arguments | tojson }}];"
    "{% else %}<{{ m.role }}>{{ m.content }};{% endif %}{% endfor %}" + DEFINED
)
# Mistral: shows no text beside calls, and wants turns without calls to alternate.
ALTERNATING = (
    "{% set ns = namespace(i=0) %}{% for m in messages if not m.tool_calls and m.role != 'tool' %}"
    "{% if (m.role == 'user') != (ns.i % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% set ns.i = ns.i + 1 %}{% endfor %}"
    "{% for m in messages %}{% if m.tool_calls %}<assistant>{% for c in m.tool_calls %}"
    "[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %};"
    "{% else %}<{{ m.role }}>{{ m.content }};{% endif %}{% endfor %}" + DEFINED
)


@pytest.fixture(scope="module")
def tokenizer(demo_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(demo_model, local_files_only=True)


def result(call_id: str, content: str) -> Message:
    return Message(role="tool", content=content, tool_call_id=call_id)


A, B = ToolCall("call00000", "look", '{"at": "x"}'), ToolCall("call00001", "go", "{}")
START = Message(role="user", content="Go.")
BOTH = Message(role="assistant", content="So.", reasoning="Hm.", tool_calls=(A, B))
DONE = (Message(role="assistant", content="Done."), Message(role="user", content="Again."))
TURNED = (START, BOTH, result(B.id, "went"), result(A.id, "saw"))


@pytest.mark.parametrize(
    ("template", "messages", "expected"),
    [
        (
            EVERY_CALL,
            TURNED,
            '<user>Go.;<assistant>(Hm.)So.[look {"at": "x"}][go {}];<tool>went;<tool>saw;',
        ),
        (
            FIRST_CALL,
            TURNED,
            '<user>Go.;(Hm.\n\nSo.)<to look>{"at": "x"};<from look>saw;<to go>{};<from go>went;',
        ),
        (
            FIRST_CALL,
            (*TURNED, *DONE),
            '<user>Go.;<to look>{"at": "x"};<from look>saw;<to go>{};<from go>went;<assistant>Done.;<user>Again.;',
        ),
        (
            FIRST_CALL,  # a call that nobody answered, and a result for none of them
            (START, BOTH, result(B.id, "went"), result("other", "what?"), DONE[1]),
            '<user>Go.;(Hm.\n\nSo.)<to look>{"at": "x"};<to go>{};<from go>went;<from go>what?;<user>Again.;',
        ),
        (
            ONE_CALL,
            TURNED,
            '<user>Go.;<assistant>So.;<assistant>[look {"at": "x"}];<tool>saw;<assistant>[go {}];<tool>went;',
        ),
        (
            ALTERNATING,
            (*TURNED, *DONE),
            '<user>Go.;<assistant>[look {"at": "x"}][go {}];<tool>(Said before the call: So.)\n\nwent;<tool>saw;'
            "<assistant>Done.;<user>Again.;",
        ),
    ],
    ids=["every call", "first call", "first call, answered", "first call, half answered", "one call", "alternating"],
)
def test_every_call_reaches_the_template_as_it_shows_calls(
    tokenizer: Any, template: str, messages: tuple[Message, ...], expected: str
) -> None:
    text = rendered(tokenizer, template, GenerationRequest(messages=messages, tools=(TOOL,)))
    assert text == f"{expected}."


@pytest.mark.parametrize("field", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_stands_where_the_template_looks_for_it(tokenizer: Any, field: str) -> None:
    template = EVERY_CALL.replace("reasoning_content", field)
    assert "<assistant>(Hm.)So.[look" in rendered(tokenizer, template, GenerationRequest(messages=TURNED))


# Mistral again: text of the user may not follow a result.
NO_USER_AFTER_RESULT = (
    "{% for m in messages %}{% if m.role == 'user' and loop.index0 and messages[loop.index0 - 1].role == 'tool' %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + EVERY_CALL
)
# LFM2, Granite 3: calls are shown in no way.
NO_CALLS = "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}{{ '<|tool_call|>' if tools }}" + DEFINED
# Ministral: refuses an empty turn of the assistant, and turns that do not alternate.
NO_EMPTY_TURN = (
    "{% for m in messages %}{% if m.role == 'assistant' and not m.content and not m.tool_calls %}"
    "{{ raise_exception('empty') }}{% endif %}"
    "{% if m.role == 'user' and loop.index0 and messages[loop.index0 - 1].role == 'user' %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + EVERY_CALL
)


@pytest.mark.parametrize(
    ("template", "messages", "expected"),
    [
        (
            NO_USER_AFTER_RESULT,
            (START, Message(role="assistant", tool_calls=(B,)), result(B.id, "went"), DONE[1]),
            "<user>Go.;<assistant>[go {}];<tool>went\n\nAgain.;",
        ),
        (
            NO_USER_AFTER_RESULT,
            (START, Message(role="assistant", tool_calls=(B,)), result(B.id, "went"), *DONE),
            "<user>Go.;<assistant>[go {}];<tool>went;<assistant>Done.;<user>Again.;",
        ),
        (
            NO_CALLS,
            (START, BOTH, result(A.id, "saw"), result(B.id, "went")),
            '<user>Go.;<assistant>So.\n<|tool_call|>[{"name": "look", "arguments": {"at": "x"}}, '
            '{"name": "go", "arguments": {}}];<tool>saw;<tool>went;',
        ),
        (NO_EMPTY_TURN, (START, Message(role="assistant"), DONE[1]), "<user>Go.\n\nAgain.;"),
    ],
    ids=["user after result", "answer after result", "no calls", "empty turn"],
)
def test_what_a_template_would_lose_or_refuse_reaches_it_in_another_way(
    tokenizer: Any, template: str, messages: tuple[Message, ...], expected: str
) -> None:
    text = rendered(tokenizer, template, GenerationRequest(messages=messages, tools=(TOOL,)))
    assert text.removesuffix(".").removesuffix("<|tool_call|>") == expected
