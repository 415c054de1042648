import msgspec
import pytest

from service.explain import Difference, differences, first_token_difference
from service.generation import GenerationRequest, Message, ResponseFormat, SamplingParams, Tool, ToolCall

LONG = "The quick brown fox jumps over the lazy dog, and then it sleeps until the morning comes. "
BASE = GenerationRequest(
    messages=(
        Message(role="system", content=LONG * 3),
        Message(role="user", content="hello"),
        Message(role="assistant", tool_calls=(ToolCall("call00000", "f", '{"a":1}'),)),
    ),
    tools=(Tool(name="f", parameters={"type": "object", "properties": {"a": {"type": "integer"}}}),),
)


def with_message(index: int, **changes: object) -> GenerationRequest:
    messages = list(BASE.messages)
    messages[index] = msgspec.structs.replace(messages[index], **changes)
    return msgspec.structs.replace(BASE, messages=tuple(messages))


def with_parameters(parameters: dict[str, object]) -> GenerationRequest:
    return msgspec.structs.replace(BASE, tools=(msgspec.structs.replace(BASE.tools[0], parameters=parameters),))


CASES = [
    (
        with_message(0, content=LONG + "A cat" + LONG),
        Difference(
            path="messages[0].content",
            character=len(LONG),
            left='..."eeps until the morning comes. The quick brown fox jumps over the lazy dog, and t"...',
            right='..."eeps until the morning comes. A catThe quick brown fox jumps over the lazy dog, "...',
        ),
    ),
    (
        with_message(1, content="hello\nthere"),
        Difference(path="messages[1].content", character=5, left='"hello"', right='"hello\\nthere"'),
    ),
    (
        with_message(2, tool_calls=()),
        Difference(
            path="messages[2].tool_calls[0]",
            left='{"type":"tool_call","id":"call00000","name":"f","arguments":"{\\"a\\":1}"}',
            right="(absent)",
        ),
    ),
    (
        msgspec.structs.replace(BASE, messages=(*BASE.messages, Message(role="user", content="(absent)"))),
        Difference(
            path="messages[3]",
            left="(absent)",
            right='{"role":"user","content":"(absent)","reasoning":"","tool_calls":[],"tool_call_id...',
        ),
    ),
    (
        with_parameters({"type": "object", "properties": {"a": {"type": "string"}}}),
        Difference(path="tools[0].parameters.properties.a.type", character=0, left='"integer"', right='"string"'),
    ),
    (
        with_parameters({"type": "object"}),
        Difference(path="tools[0].parameters.properties", left='{"a":{"type":"integer"}}', right="(absent)"),
    ),
    (
        msgspec.structs.replace(BASE, sampling=SamplingParams(temperature=0.5)),
        Difference(path="sampling.temperature", left="0.0", right="0.5"),
    ),
    (
        msgspec.structs.replace(BASE, template_arguments={"x": True}),
        Difference(path="template_arguments.x", left="(absent)", right="true"),
    ),
    (
        msgspec.structs.replace(BASE, response_format=ResponseFormat(kind="json_object")),
        Difference(
            path="response_format",
            left="null",
            right='{"kind":"json_object","schema":null,"grammar":"","name":"","strict":false}',
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("other", "expected"), CASES, ids=[expected.path for _, expected in CASES])
def test_the_first_difference_is_found(other: GenerationRequest, expected: Difference) -> None:
    assert next(differences(BASE, other)) == expected
    mirrored = msgspec.structs.replace(expected, left=expected.right, right=expected.left)
    assert next(differences(other, BASE)) == mirrored


def test_equal_requests_have_no_difference() -> None:
    assert list(differences(BASE, BASE)) == []
    reordered = {"properties": {"a": {"type": "integer"}}, "type": "object"}
    assert list(differences(BASE, with_parameters(reordered))) == []


def test_a_number_differs_from_its_like_in_another_type() -> None:
    """The response-cache key tells them apart, so this must, too."""
    one, other = (msgspec.structs.replace(BASE, template_arguments={"x": x}) for x in (1, 1.0))
    assert next(differences(one, other)) == Difference(path="template_arguments.x", left="1", right="1.0")


def test_all_differences_come_in_the_order_of_the_fields() -> None:
    other = msgspec.structs.replace(with_message(1, content="bye"), max_tokens=5, n=2)
    assert [d.path for d in differences(BASE, other)] == ["messages[1].content", "max_tokens", "n"]


def test_a_difference_reads_well() -> None:
    assert str(CASES[1][1]) == 'messages[1].content at character 5\n  A: "hello"\n  B: "hello\\nthere"'
    assert str(CASES[6][1]) == "sampling.temperature\n  A: 0.0\n  B: 0.5"


@pytest.mark.parametrize(
    ("left", "right", "index"),
    [([], [], None), ([1, 2], [1, 2], None), ([1, 2], [1, 3], 1), ([1], [1, 2], 1), ([2], [1], 0), ([], [1], 0)],
)
def test_first_token(left: list[int], right: list[int], index: int | None) -> None:
    assert first_token_difference(left, right) == index
