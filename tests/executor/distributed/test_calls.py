"""What rank 0 tells arrives as it was told."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.executor.distributed.calls import (
    Call,
    History,
    Insert,
    Measure,
    Remove,
    Reserve,
    Step,
    Terms,
    Weigh,
    decode,
    encode,
    insert,
)
from service.executor.scheduling.messages import Grammar, Prompt, PromptUse, Sequence
from service.executor.scheduling.protocols import Token, TokenChances
from service.generation import GenerationRequest, Message, SamplingParams, Tool, ToolCall
from tests.executor.engines import sequence

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=texts,
    tool_calls=st.lists(st.builds(ToolCall, texts, texts, texts), max_size=2).map(tuple),
)
tools = st.builds(Tool, name=texts, parameters=st.dictionaries(texts, json_values, max_size=3))
sampling = st.builds(
    SamplingParams,
    temperature=st.floats(0, 2),
    logit_bias=st.lists(st.tuples(st.integers(0, 99), st.floats(-100, 100)), max_size=3).map(tuple),
    seed=st.none() | st.integers(),
)
sequences = st.builds(
    Sequence,
    id=st.integers(0, 2**40),
    choice=st.integers(0, 9),
    request=st.builds(
        GenerationRequest,
        messages=st.lists(messages, max_size=3).map(tuple),
        tools=st.lists(tools, max_size=2).map(tuple),
        stop=st.lists(texts, max_size=2).map(tuple),
        template_arguments=st.dictionaries(texts, json_values, max_size=2),
        caller=texts,
    ),
    prompt=st.builds(
        Prompt,
        st.lists(st.integers(0, 200_000), max_size=20),
        prefill=texts,
        boundaries=st.lists(st.integers(0, 20), max_size=3).map(tuple),
    ),
    sampling=sampling,
    max_tokens=st.integers(1, 10**6),
    start_before=st.floats(0, 1e9),
)
calls: st.SearchStrategy[Call] = st.one_of(
    st.builds(Insert, sequences, st.booleans()),
    st.builds(Remove, st.integers(0, 2**40)),
    st.builds(Step, st.integers(0, 2**32 - 1)),
    st.builds(Weigh, st.lists(st.integers(0, 10**6), max_size=5)),
    st.builds(Measure),
    st.builds(Reserve, st.dictionaries(st.integers(0, 10**6), st.integers(0, 10**6), max_size=5)),
    st.builds(
        Terms,
        versions=st.dictionaries(texts, texts, max_size=3),
        fingerprint=texts,
        settings=st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts, max_size=3),
    ),
)


@settings(deadline=None)
@given(calls)
def test_a_call_arrives_as_it_was_told(call: Call) -> None:
    assert decode(encode(call)) == call


def test_a_grammar_does_not_travel_but_that_there_is_one_does() -> None:
    constrained = msgspec.structs.replace(sequence(1), prompt=Prompt([1, 2], grammar=Grammar(object(), 100)))
    arrived = decode(encode(insert(constrained)))
    assert arrived == Insert(msgspec.structs.replace(constrained, prompt=Prompt([1, 2])), constrained=True)
    assert decode(encode(insert(sequence(2)))) == Insert(sequence(2))


@pytest.mark.parametrize("message", [b"", b"{}", b'{"type":"other"}', b'{"type":"remove"}'])
def test_what_is_no_call_is_refused(message: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(message)


TOKENS = [Token(1, 5), Token(2, 6, "stop", prompt_use=PromptUse(3, 4))]


@pytest.mark.parametrize(
    "other",
    [
        ([Token(1, 5)], 10),
        ([Token(2, 6, "stop", prompt_use=PromptUse(3, 4)), Token(1, 5)], 10),
        ([Token(1, 7), TOKENS[1]], 10),
        ([TOKENS[0], Token(2, 6, "length", prompt_use=PromptUse(3, 4))], 10),
        ([TOKENS[0], Token(2, 6, "stop", prompt_use=PromptUse(0, 4))], 10),
        (TOKENS, 11),
    ],
)
def test_histories_differ_where_answers_do(other: tuple[list[Token], int]) -> None:
    histories = [History(), History(), History()]
    for history in histories[:2]:
        history.stepped(TOKENS, 10)
    histories[2].stepped(*other)
    assert histories[0].checksum == histories[1].checksum != histories[2].checksum


def test_a_history_knows_the_order() -> None:
    one, two = History(), History()
    one.inserted(1, True)
    one.removed(2, None)
    two.removed(2, None)
    two.inserted(1, True)
    assert one.checksum != two.checksum


def test_logprobs_have_no_part_in_a_history() -> None:
    """Their last bits may differ between machines, where the tokens are the same."""
    one, two = History(), History()
    one.stepped([Token(1, 5, chances=TokenChances(-0.5, ()))], 1)
    two.stepped([Token(1, 5, chances=TokenChances(math.nextafter(-0.5, 0), ()))], 1)
    assert one.checksum == two.checksum
