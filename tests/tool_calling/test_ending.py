"""Special tokens at the end of an answer are no content; elsewhere they are text."""

import pytest

from service.events import TextDelta
from service.tool_calling import FAMILIES, StreamParser
from service.tool_calling.ending import MARKERS
from tests.tool_calling.outputs import TOOLS, choice_of, events

CALL = '<tool_call>{"name": "ping", "arguments": {}}</tool_call>'


@pytest.mark.parametrize("tools", [TOOLS, ()])
@pytest.mark.parametrize("marker", MARKERS)
def test_a_marker_at_the_end_never_shows(marker: str, tools: tuple[object, ...]) -> None:
    for text in (f"Hi.{marker}", f"Hi.{marker}\n{marker} ", f"Hi.\n{marker}"):
        for pieces in ([text], list(text)):
            shown = choice_of(events(pieces, "hermes", tools)[0]).text  # type: ignore[arg-type]
            assert shown.strip() == "Hi."


@pytest.mark.parametrize("text", ["a </s> b", "</s>x", "1 < 2", "end <|im_", "<|im_end", "</s></", "a\n", "<"])
def test_everything_else_is_text(text: str) -> None:
    for pieces in ([text], list(text)):
        assert choice_of(events(pieces, "hermes", ())[0]).text == text


@pytest.mark.parametrize("family", [None, *FAMILIES])
def test_a_call_before_a_marker_is_read(family: str | None) -> None:
    form = FAMILIES[family].forms[0] if family else FAMILIES["hermes"].forms[0]
    call = choice_of(events([CALL], "hermes")[0]).tool_calls
    text = form.render(call) + "<|im_end|>"
    choice = choice_of(events(list(text), family)[0])
    assert [call.name for call in choice.tool_calls] == ["ping"]
    assert choice.text == ""


def test_text_waits_only_for_what_may_be_a_marker() -> None:
    parser = StreamParser((), None)
    assert parser.feed("a <") == [TextDelta(0, "a ")]
    assert parser.feed("b") == [TextDelta(0, "<b")]
    assert parser.feed("</s>") == []
    assert parser.feed("</s>c") == [TextDelta(0, "</s></s>c")]
    assert parser.finish() == []
