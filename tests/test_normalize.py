import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.generation import GenerationRequest, Message, ResponseFormat, SamplingParams, Tool, ToolCall, ToolChoice
from service.normalize import canonical_arguments, canonical_tools, normalize

HEADER = "x-anthropic-billing-header: cc_version=2.1.197.1c0; cc_entrypoint=sdk-cli;"
USER = Message(role="user", content="hello")


def system(content: str) -> Message:
    return Message(role="system", content=content)


def called(*calls: tuple[str, str]) -> Message:
    return Message(role="assistant", tool_calls=tuple(ToolCall(i, name, "{}") for i, name in calls))


def result(call_id: str, content: str) -> Message:
    return Message(role="tool", tool_call_id=call_id, content=content)


def settled(*messages: Message) -> tuple[Message, ...]:
    return normalize(GenerationRequest(messages=messages)).messages


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        "x-anthropic-billing-header: cc_version=2.1.197.9fe; cc_entrypoint=cli; cch=00000;",
        "x-anthropic-billing-header: cc_version=2.1.197.9fe; cc_entrypoint=cli; cch=a1b2c; cc_workload=cron;"
        " cc_is_subagent=true;",
        "x-anthropic-billing-header:cc_version=2.0.1",
    ],
)
def test_the_attribution_line_goes(header: str) -> None:
    assert settled(system(f"{header}\nYou are terse.\nBe kind."), USER) == (system("You are terse.\nBe kind."), USER)
    assert settled(system(header), USER) == (USER,)
    assert settled(system(f"{header}\n"), USER) == (USER,)
    assert settled(system(header)) == (system(""),)


@pytest.mark.parametrize(
    "messages",
    [
        (USER, system(f"{HEADER}\nYou are terse.")),
        (Message(role="user", content=f"{HEADER}\nWhat is this line?"), USER),
        (Message(role="user", content=HEADER),),
        (system("You are terse."), system(HEADER), USER),
        (system(f"You are terse.\n{HEADER}\n"), USER),
        (system(f" {HEADER}\nYou are terse."), USER),
        (system(f"{HEADER} and then explain it\nYou are terse."), USER),
        (system("x-anthropic-billing-header: a header about which users ask; explain it\n"), USER),
        (system("x-anthropic-billing-header: cc_version"), USER),
        (system("  white space \n\n stays \n"), Message(role="user", content="\n as it is \n\n")),
        (Message(role="assistant", content=" also of a prefill "),),
    ],
)
def test_content_stays(messages: tuple[Message, ...]) -> None:
    request = GenerationRequest(messages=messages)
    assert normalize(request) is request


def test_calls_are_named_by_their_place() -> None:
    assert settled(
        USER, called(("toolu_9x", "f"), ("toolu_8y", "g")), result("toolu_9x", "1"), result("toolu_8y", "2"),
        called(("toolu_7z", "f")), result("toolu_7z", "3"),
    ) == (
        USER, called(("call00000", "f"), ("call00001", "g")), result("call00000", "1"), result("call00001", "2"),
        called(("call00002", "f")), result("call00002", "3"),
    )  # fmt: skip


NAMING = {
    "a result knows its call, not its place": (
        [called(("a", "f"), ("b", "g")), result("b", "of g"), result("a", "of f")],
        [called(("call00000", "f"), ("call00001", "g")), result("call00000", "of f"), result("call00001", "of g")],
    ),
    "an id used again belongs to the later call": (
        [called(("a", "f")), result("a", "1"), called(("a", "f")), result("a", "2")],
        [called(("call00000", "f")), result("call00000", "1"), called(("call00001", "f")), result("call00001", "2")],
    ),
    "an id never answered is not answered later": (
        [called(("a", "f")), USER, called(("a", "f")), result("a", "2")],
        [called(("call00000", "f")), USER, called(("call00001", "f")), result("call00001", "2")],
    ),
    "one id for two calls of a message": (
        [called(("a", "f"), ("a", "g")), result("a", "of f"), result("a", "of g")],
        [called(("call00000", "f"), ("call00001", "g")), result("call00000", "of f"), result("call00001", "of g")],
    ),
    "results without a call stay apart, after the others": (
        [called(("a", "f")), result("x", "1"), result("y", "2"), result("a", "3"), result("x", "4")],
        [called(("call00000", "f")), result("call00000", "3"), result("call00001", "1"), result("call00001", "4"),
         result("call00002", "2")],
    ),
    "a result may come after the calls of a later message": (
        [called(("a", "f")), called(("b", "g")), result("a", "of f"), result("b", "of g")],
        [called(("call00000", "f")), called(("call00001", "g")), result("call00000", "of f"),
         result("call00001", "of g")],
    ),
    "only neighbouring results change places": (
        [called(("a", "f"), ("b", "g")), result("b", "of g"), USER, result("a", "of f")],
        [called(("call00000", "f"), ("call00001", "g")), result("call00001", "of g"), USER,
         result("call00000", "of f")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "expected"), NAMING.values(), ids=NAMING)
def test_naming(sent: list[Message], expected: list[Message]) -> None:
    assert settled(*sent) == tuple(expected)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ('{"b": 1, "a": [true, null]}', '{"b":1,"a":[true,null]}'),
        ('{"city": "Z\\u00fcrich", "path": "a\\/b"}', '{"city":"Zürich","path":"a/b"}'),
        ('{"face": "\\ud83d\\ude00"}', '{"face":"😀"}'),
        ('{"code": "a  b\\n\\t{ \\"x\\": 1 }"}', '{"code":"a  b\\n\\t{ \\"x\\": 1 }"}'),
        ('{"n": 1.0, "m": 0.12345678901234567890123}', '{"n":1.0,"m":0.12345678901234567890123}'),
        ('{"n": 123456789012345678901234567890, "e": 1e400}', '{"n":123456789012345678901234567890,"e":1E+400}'),
        ("", "{}"),
        (" \n", "{}"),
        ("{}", "{}"),
        ('{"cut": "of', '{"cut": "of'),
        ("[1, 2]", "[1, 2]"),
        ('{"half": "\\ud800"}', '{"half": "\\ud800"}'),
        ('{"n": 1e99999999999999999999}', '{"n": 1e99999999999999999999}'),
        ('{"n": ' + "9" * 5000 + "}", '{"n": ' + "9" * 5000 + "}"),
        ('{"a":' * 5000 + "1" + "}" * 5000, '{"a":' * 5000 + "1" + "}" * 5000),
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_arguments_are_written_in_one_way(sent: str, expected: str) -> None:
    assert canonical_arguments(sent) == expected


@given(st.text(st.characters()) | st.text('{}[]",:\\ue019.-+ d8'))
@example("\ud800")
def test_any_text_may_be_given_as_arguments(text: str) -> None:
    canonical = canonical_arguments(text)
    assert canonical_arguments(canonical) == canonical


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES), st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_arguments_keep_their_values_and_their_order(value: dict[str, Any], ascii_only: bool, indent: Any) -> None:
    canonical = canonical_arguments(json.dumps(value, ensure_ascii=ascii_only, indent=indent))
    assert json.loads(canonical) == value
    assert list(json.loads(canonical)) == list(value)
    assert canonical == canonical_arguments(json.dumps(value, separators=(",", ":")))


def results(*contents: str) -> tuple[str, ...]:
    messages = tuple(Message(role="tool", tool_call_id="a", content=content) for content in contents)
    return tuple(message.content for message in normalize(GenerationRequest(messages=messages)).messages)


def test_the_id_of_a_commands_output_goes() -> None:
    rest = "Wall time: 0.0312 seconds\nProcess exited with code 0\nOutput:\nChunk ID: 33850b\n"
    assert results(f"Chunk ID: 33850b\n{rest}", f"Chunk ID: 00ff1a\n{rest}") == (rest, rest)
    kept = ("Chunk ID: 33850b\n", f"a\nChunk ID: 33850b\n{rest}", f"Chunk ID: 33850B\n{rest}")
    assert results(*kept) == kept


def test_the_number_of_an_ended_process_goes() -> None:
    begun = "Command: ls\nDirectory: (root)\nOutput: a\nProcess Group PGID: 1\nError: (none)\nExit Code: 0\nSignal: 0"
    assert results(f"{begun}\nProcess Group PGID: 16833") == (begun,)
    kept = (f"a {begun}\nProcess Group PGID: 5", "Command: ls\nBackground PIDs: 7\nProcess Group PGID: 16833")
    assert results(*kept) == kept


@pytest.mark.parametrize(("mode", "parallel"), [("none", False), ("none", True), ("auto", False)])
def test_choices_about_absent_tools_go(mode: Any, parallel: bool) -> None:
    idle = GenerationRequest(messages=(USER,), tool_choice=ToolChoice(mode), parallel_tool_calls=parallel)
    assert normalize(idle) == GenerationRequest(messages=(USER,))
    with_tools = msgspec.structs.replace(idle, tools=(Tool(name="f"),))
    assert normalize(with_tools) is with_tools


def test_nothing_else_is_touched() -> None:
    request = GenerationRequest(
        messages=(system(HEADER), called(("a", "f")), result("a", "x")),
        tools=(Tool(name="f", parameters={"type": "object", "properties": {}}),),
        tool_choice=ToolChoice("required", "f"),
        parallel_tool_calls=False,
        response_format=ResponseFormat(kind="json_object"),
        sampling=SamplingParams(temperature=0.5, seed=7),
        max_tokens=5,
        stop=(" \n",),
        n=2,
        logprobs=3,
        thinking="on",
        template_arguments={"b": 1, "a": 2},
        caller="me",
    )
    normal = normalize(request)
    assert normal != request
    assert msgspec.structs.replace(normal, messages=request.messages) == request


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(item, chance)) for key, item in value.items()]
        return dict(chance.sample(items, len(items)))
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4), st.randoms(use_true_random=False))
def test_canonical_tools_know_no_key_order(schema: dict[str, Any], chance: random.Random) -> None:
    tools = (Tool(name="f", description=" as it is \n", parameters=schema), Tool(name="g", strict=True))
    same = (msgspec.structs.replace(tools[0], parameters=shuffled(schema, chance)), tools[1])
    canonical = canonical_tools(tools)
    assert canonical == tools
    assert msgspec.json.encode(canonical) == msgspec.json.encode(canonical_tools(same))


MESSAGES = st.lists(
    st.builds(system, st.sampled_from([HEADER, f"{HEADER}\nx", "x"]))
    | st.builds(lambda ids: called(*((i, "f") for i in ids)), st.lists(st.sampled_from("abcd"), max_size=3))
    | st.builds(result, st.sampled_from("abcde"), st.text(max_size=3))
    | st.just(USER),
    min_size=1,
    max_size=10,
)


@given(MESSAGES)
def test_once_is_enough(messages: list[Message]) -> None:
    once = settled(*messages)
    if not (once[0].role == "system" and once[0].content.startswith("x-anthropic")):
        assert settled(*once) == once
    assert sorted(m.content for m in once if m.role != "system") == sorted(
        m.content for m in messages if m.role != "system"
    )


@given(MESSAGES, st.permutations("abcde"))
def test_the_text_of_ids_does_not_count(messages: list[Message], letters: list[str]) -> None:
    other = str.maketrans("abcde", "".join(letters))
    renamed = [
        msgspec.structs.replace(
            message,
            tool_call_id=message.tool_call_id.translate(other),
            tool_calls=tuple(ToolCall(c.id.translate(other), c.name, c.arguments) for c in message.tool_calls),
        )
        for message in messages
    ]
    assert settled(*renamed) == settled(*messages)


def test_template_arguments_are_sorted_at_any_depth() -> None:
    request = GenerationRequest(messages=(), template_arguments={"b": [{"d": 1, "c": 2}], "a": 0})
    assert str(normalize(request).template_arguments) == "{'a': 0, 'b': [{'c': 2, 'd': 1}]}"
