from collections.abc import Callable
from functools import partial

import pytest

from service.events import ChoiceFinished, Event, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStarted
from service.executor.output.choice_writer import ChoiceWriter, Watches
from service.executor.output.reasoning import ReasoningSplitter
from service.executor.output.vocabulary import Vocabulary
from service.executor.runtime import writer_opener
from service.executor.scheduling.messages import ReasoningMarkers
from service.executor.scheduling.protocols import EndReason, Token, TokenChances, Writer
from service.generation import Message, Tool, ToolCall
from service.tallies import CallTally
from service.tool_calling import StreamParser, whole_calls
from service.tool_calling.loops import LoopGuard
from service.tool_calling.watch import CallWatch
from tests.executor.engines import sequence
from tests.response_cache.prompts import byte_renderer

THINK = ReasoningMarkers("<think>", "</think>")


class Letters:
    """A tokenizer whose token ids are bytes: characters of several bytes come in pieces, as from a model."""

    def __init__(self) -> None:
        self.detokenizer = self
        self._bytes = b""
        self._shown = 0

    def add_token(self, token: int) -> None:
        self._bytes += bytes([token])

    def finalize(self) -> None:
        self._bytes = self._bytes.decode(errors="replace").encode()

    @property
    def last_segment(self) -> str:
        text = self._bytes.decode(errors="ignore")
        segment, self._shown = text[self._shown :], len(text)
        return segment

    def decode(self, tokens: list[int]) -> str:
        return chr(tokens[0])


def writer(
    stop: tuple[str, ...] = (),
    *,
    reasoning: ReasoningSplitter | None = None,
    parser: StreamParser | None = None,
    watch: CallWatch | None = None,
    logprobs: bool = False,
    find_calls: Callable[[str], list[Event]] | None = None,
    loops: LoopGuard | None = None,
) -> ChoiceWriter:
    letters = Letters()
    parser = parser or StreamParser(())
    vocabulary = Vocabulary(letters) if logprobs else None
    watches = Watches(watch, find_calls, loops)
    return ChoiceWriter(0, letters, vocabulary, parser, stop=stop, reasoning=reasoning, watches=watches)


def write(writer: Writer, text: str | bytes, end: EndReason = "stop", *, logprobs: bool = False) -> list[Event]:
    """Feeds a text byte by byte, as the scheduler does."""
    events: list[Event] = []
    for byte in text.encode() if isinstance(text, str) else text:
        chances = TokenChances(-0.5, ((byte, -0.5), (byte + 1, -1.5))) if logprobs else None
        events += writer.feed(Token(0, byte, None, chances))
        if writer.stopped:
            return events + writer.finish("stop")
    return events + writer.finish(end)


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def reasoning_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, ReasoningDelta))


def test_characters_in_pieces_come_out_whole() -> None:
    events = write(writer(), "né 😀!")
    assert [e.text for e in events if isinstance(e, TextDelta)] == ["n", "é", " ", "😀", "!"]
    assert events[-1] == ChoiceFinished(0, "stop")


def test_an_unfinished_character_at_the_end_is_marked() -> None:
    assert text_of(write(writer(), b"a\xf0\x9f", "length")) == "a\ufffd"


@pytest.mark.parametrize(
    ("stop", "text", "expected", "found"),
    [
        (("ONE", "TWO"), "a TWO b", "a ", "TWO"),
        (("é!",), "café! ole", "caf", "é!"),
        (("😀",), "so 😀 then", "so ", "😀"),
        (("never",), "neve", "neve", None),
    ],
)
def test_stop_strings(stop: tuple[str, ...], text: str, expected: str, found: str | None) -> None:
    events = write(writer(stop), text, "length")
    assert text_of(events) == expected
    assert events[-1] == ChoiceFinished(0, "stop" if found else "length", found)


def test_logprobs_belong_to_the_text_that_is_sent() -> None:
    events = write(writer(("cd",), logprobs=True), "abcxcd!", logprobs=True)
    tokens = [logprob for event in events if isinstance(event, TextDelta) for logprob in event.logprobs or ()]
    assert "".join(t.token for t in tokens) == text_of(events) == "abcx"
    assert [(t.token, t.token_bytes, t.logprob) for t in tokens[0].top] == [("a", b"a", -0.5), ("b", b"b", -1.5)]


def test_an_answer_without_tokens_has_logprobs_that_are_empty() -> None:
    assert writer(logprobs=True).finish("stop") == [TextDelta(0, "", ()), ChoiceFinished(0, "stop")]


def test_logprobs_of_pieces_are_all_there() -> None:
    events = write(writer(logprobs=True), "é", logprobs=True)
    assert sum(len(event.logprobs or ()) for event in events if isinstance(event, TextDelta)) == 2


@pytest.mark.parametrize(
    ("inside", "text", "reasoning", "answer"),
    [
        (False, "<think>\nhm</think>\n\nYes", "hm", "Yes"),
        (False, " <think>hm</think>Yes", "hm", "Yes"),
        (True, "hm</think>\n\nYes", "hm", "Yes"),
        (True, "\nnever done", "never done", ""),
        (False, "Yes, <think> is a marker</think>", "", "Yes, <think> is a marker</think>"),
        (False, "<thin", "", "<thin"),
        (False, "  <thin ice", "", "  <thin ice"),
        (True, "a</think>\n<think>b</think> c", "ab", "c"),
        (True, "a < b </thi", "a < b </thi", ""),
        (True, "a</think>\n\n", "a", ""),
        (True, "a</think>\n</think>\n\nYes</think>", "a", "Yes</think>"),
        (False, "</think>\n\nYes", "", "Yes"),
        (False, "</thin", "", "</thin"),
    ],
)
def test_reasoning_is_parted_from_the_answer(inside: bool, text: str, reasoning: str, answer: str) -> None:
    events = write(writer(reasoning=ReasoningSplitter(THINK, inside=inside)), text)
    assert (reasoning_of(events), text_of(events)) == (reasoning, answer)
    for cut in range(len(text) + 1):
        splitter = ReasoningSplitter(THINK, inside=inside)
        parts = [splitter.feed(text[:cut]), splitter.feed(text[cut:]), splitter.finish()]
        assert ("".join(p[0] for p in parts), "".join(p[1] for p in parts)) == (reasoning, answer)


def test_reasoning_tokens_are_counted_and_have_no_logprobs() -> None:
    reasoner = writer(reasoning=ReasoningSplitter(THINK, inside=True), logprobs=True)
    events = write(reasoner, "abc</think>ok", logprobs=True)
    assert reasoner.reasoning_tokens == len("abc</think>")
    assert [e.logprobs[0].token for e in events if isinstance(e, TextDelta) and e.logprobs] == ["o", "k"]


def test_stop_strings_are_not_looked_for_in_reasoning() -> None:
    events = write(writer((".",), reasoning=ReasoningSplitter(THINK, inside=True)), "a. b.</think>yes. no.")
    assert (reasoning_of(events), text_of(events)) == ("a. b.", "yes")


CALL = '<tool_call>\n{"name": "go", "arguments": {"to": "x"}}\n</tool_call>'


@pytest.mark.parametrize(("end", "reason"), [("stop", "tool_calls"), ("length", "length")])
def test_the_parser_sees_the_visible_text_and_its_calls_decide_the_reason(end: EndReason, reason: str) -> None:
    parser = StreamParser([Tool(name="go")], "hermes")
    reasoning = ReasoningSplitter(THINK, inside=False)
    text = f"<think>{CALL}</think>I{CALL}"
    events = write(writer(parser=parser, reasoning=reasoning, logprobs=True), text, end, logprobs=True)
    assert reasoning_of(events) == CALL
    assert text_of(events) == "I"
    assert [event.name for event in events if isinstance(event, ToolCallStarted)] == ["go"]
    arguments = [event.arguments for event in events if isinstance(event, ToolCallDelta)]
    assert "".join(arguments) == '{"to": "x"}'
    assert events[-1] == ChoiceFinished(0, reason)
    assert sum(len(event.logprobs or ()) for event in events if isinstance(event, TextDelta)) == len(f"I{CALL}")


def test_a_call_that_is_none_after_all_is_no_reason() -> None:
    broken = '<tool_call>\n{"name": "go", "arguments": {"to": !}}\n</tool_call>'
    events = write(writer(parser=StreamParser([Tool(name="go")], "hermes")), broken)
    assert text_of(events) == broken
    assert events[-1] == ChoiceFinished(0, "stop")


def test_the_one_call_that_was_wanted_ends_the_answer() -> None:
    parser = StreamParser([Tool(name="go")], "hermes", single=True)
    one = writer(parser=parser)
    text = f"{CALL}\n{CALL}"
    events = [event for letter in text if not one.stopped for event in one.feed(Token(0, ord(letter)))]
    assert one.stopped
    events += one.finish("stop")
    assert [event.name for event in events if isinstance(event, ToolCallStarted)] == ["go"]
    assert events[-1] == ChoiceFinished(0, "tool_calls")


def test_calls_are_watched_to_the_end() -> None:
    tally = CallTally()
    tool = Tool(name="go", parameters={"type": "object", "properties": {"to": {"type": "integer"}}})
    watched = writer(parser=StreamParser([tool], "hermes"), watch=CallWatch([tool], tally))
    write(watched, CALL)
    assert tally == CallTally(calls=1, mismatched=1)
    cut = writer(parser=StreamParser([tool], "hermes"), watch=CallWatch([tool], tally))
    write(cut, CALL[:-20], "length")
    assert tally == CallTally(calls=1, mismatched=1, cut=1)


def test_reasoning_on_a_channel_is_counted_too() -> None:
    channels = writer(parser=StreamParser((), "harmony"))
    events = write(channels, "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>yes")
    assert (reasoning_of(events), text_of(events)) == ("hm", "yes")
    assert channels.reasoning_tokens == 2


SEEN = Tool(name="look")
SEEING = '<tool_call>{"name": "look", "arguments": {"at": 1}}</tool_call>'
find_look = partial(whole_calls, tools=[SEEN], family="hermes", choice=0, single=False)


@pytest.mark.parametrize(
    ("text", "end", "called"),
    [
        (f"<think>I look. {SEEING}", "stop", True),
        (f"<think>I look. {SEEING}{SEEING}", "stop", True),
        (f"<think>I look. {SEEING}", "length", False),  # it was still thinking
        (f"<think>Perhaps `{SEEING}`?", "stop", False),
        (f"<think>I look. {SEEING}</think>No.", "stop", False),
        (f"<think>I look. {SEEING.removesuffix('}</tool_call>')[:-9]}", "stop", False),
        ("<think>Nothing", "stop", False),
    ],
)
def test_a_call_in_reasoning_that_never_ended_is_a_call(text: str, end: EndReason, called: bool) -> None:
    tally = CallTally()
    events = write(
        writer(
            reasoning=ReasoningSplitter(THINK, inside=False),
            parser=StreamParser([SEEN], "hermes"),
            watch=CallWatch([SEEN], tally),
            find_calls=find_look,
        ),
        text,
        end,
    )
    calls = [event for event in events if isinstance(event, ToolCallStarted)]
    assert len(calls) == tally.unclosed == (text.count(SEEING) if called else 0)
    assert reasoning_of(events) == text.removeprefix("<think>").partition("</think>")[0]
    assert events[-1] == ChoiceFinished(0, "tool_calls" if called else end)


@pytest.mark.parametrize("ends", [True, False])
def test_an_answer_in_a_loop_is_ended_if_that_is_set(ends: bool) -> None:
    tally = CallTally()
    events = write(writer(loops=LoopGuard((), tally, ends=ends)), "ab" * 300)
    assert tally.looping == 1
    assert len(text_of(events)) == (400 if ends else 600)
    assert events[-1] == ChoiceFinished(0, "length" if ends else "stop")


@pytest.mark.parametrize("ends", [True, False])
def test_the_request_decides_whether_loops_end(ends: bool) -> None:
    letters = Letters()
    open_writer = writer_opener(letters, byte_renderer(), Vocabulary(letters), CallTally())
    events = write(open_writer(sequence(1, end_loops=ends)), "ab" * 300)
    assert len(text_of(events)) == (400 if ends else 600)


def test_behind_a_loop_of_calls_the_answer_is_the_refusal() -> None:
    turn = (
        Message(role="assistant", tool_calls=(ToolCall("call_0", "look", "{}"),)),
        Message(role="tool", content="no", tool_call_id="call_0"),
    )
    loops = LoopGuard(turn * 5, CallTally(), ends=True)
    events = write(writer(loops=loops), SEEING)
    assert text_of(events) == loops.refusal
    assert events[-1] == ChoiceFinished(0, "length")  # as for a loop of tokens: it is not stored
