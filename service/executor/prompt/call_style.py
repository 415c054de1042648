import json
from collections.abc import Callable, Iterable, Sequence

import msgspec

from service.executor.prompt.hf_messages import CallStyle, HfMessage, with_tools
from service.generation import Message, ToolCall
from service.tool_calling.form import CallForm

# No template contains this text.
PROBE = "zq7 probe"

# Templates read earlier reasoning from one of these: most of them, gpt-oss, some new ones.
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")

# The role of results: most templates, OLMo 3, some others. A result of the user is text that says so.
RESULT_ROLES = ("tool", "environment", "observation", "user")

# True if the template's output contains the probe. False if not, or if the template refuses.
Shows = Callable[[list[HfMessage]], bool]


def find_call_style(shows: Shows, *, form: CallForm | None, indexed_ids: bool) -> CallStyle:
    """Renders a probe in each style and looks for it. If no style shows it, the style stays as it is. `form` is for
    templates that show no calls."""
    style = CallStyle(indexed_ids=indexed_ids)
    arguments = _styles(style, text_arguments=(False, True))
    texts = _styles(style, text_form=(form,)) if form is not None else []
    style = _first(shows, _calls(PROBE), [*arguments, *texts])
    style = _first(shows, _calls("b", result=PROBE), _styles(style, result_role=RESULT_ROLES))
    if style.text_form is not None:
        return style
    style = _first(shows, _calls("b", PROBE), _styles(style, single_calls=(False, True)))
    style = _first(shows, _calls("b", reasoning=PROBE), _styles(style, reasoning_field=REASONING_FIELDS))
    both = _calls("b", reasoning=PROBE, content="c")
    style = _first(shows, both, _styles(style, text_in_reasoning=(False, True)))
    # The text beside a call, and the call beside a text.
    said = _calls("b", content=PROBE), _calls(PROBE, content="c")
    apart = msgspec.structs.replace(style, text_apart=True)
    # A template may enforce alternating turns only if later turns follow.
    later = [Message(role="assistant", content="d"), Message(role="user", content="e")]
    if not _shows_all(shows, said, style) and _shows_all(shows, [[*turn, *later] for turn in said], apart):
        return apart
    return _first(shows, said[0], _styles(style, text_in_result=(False, True)))


def _shows_all(shows: Shows, conversations: Iterable[Sequence[Message]], style: CallStyle) -> bool:
    return all(shows(with_tools(messages, style)) for messages in conversations)


def _first(shows: Shows, messages: Sequence[Message], styles: Sequence[CallStyle]) -> CallStyle:
    return next((style for style in styles if shows(with_tools(messages, style))), styles[0])


def _styles(style: CallStyle, **choices: Sequence[bool | str | CallForm]) -> list[CallStyle]:
    return [msgspec.structs.replace(style, **{field: value}) for field, values in choices.items() for value in values]


def _calls(*arguments: str, content: str = "", reasoning: str = "", result: str = "r") -> list[Message]:
    calls = tuple(ToolCall(f"call{i:05d}", "f", json.dumps({"b": argument})) for i, argument in enumerate(arguments))
    turn = Message(role="assistant", content=content, reasoning=reasoning, tool_calls=calls)
    results = (Message(role="tool", content=result, tool_call_id=call.id) for call in calls)
    return [Message(role="user", content="a"), turn, *results]
