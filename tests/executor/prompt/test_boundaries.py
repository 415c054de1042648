"""The places where states are kept, against the requests that really come next."""

from pathlib import Path
from typing import Any

import pytest

from service.executor.loading.model import import_mlx_lm
from service.executor.output.vocabulary import Vocabulary
from service.executor.prefix.tree import common_length
from service.executor.prompt.boundaries import SegmentingRenderer
from service.executor.prompt.renderer import PromptRenderer, load_renderer
from service.generation import GenerationRequest, Message, Tool, ToolCall

pytestmark = pytest.mark.model

SYSTEM = Message(role="system", content="You are terse and exact.")
QUESTION = Message(role="user", content="What is the capital of France?")
ANSWER = Message(role="assistant", content="Paris.")
NEXT = Message(role="user", content="And of Spain?")
CALL = Message(role="assistant", tool_calls=(ToolCall("c1", "weather", '{"city": "Paris"}'),))
RESULT = Message(role="tool", content="Rain.", tool_call_id="c1")
TOOLS = (Tool(name="weather", description="Tells the weather.", parameters={"type": "object", "properties": {}}),)


class CountedTokenizer:
    """Counts the texts that are tokenized, in characters."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.characters = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode(self, text: str, **options: Any) -> list[int]:
        self.characters += len(text)
        return list(self._tokenizer.encode(text, **options))


@pytest.fixture(scope="module")
def tokenizer(demo_model: Path) -> CountedTokenizer:
    return CountedTokenizer(import_mlx_lm().load_tokenizer(demo_model))


@pytest.fixture(scope="module")
def renderer(tokenizer: CountedTokenizer) -> PromptRenderer:
    return PromptRenderer(tokenizer, context_length=8192)


@pytest.fixture(scope="module")
def vocabulary(tokenizer: CountedTokenizer) -> Vocabulary:
    return Vocabulary(tokenizer)


def strange(token: int) -> bytes:
    return b"?"


@pytest.mark.parametrize("spells", [True, False], ids=["by text", "by tokens"])
@pytest.mark.parametrize("tools", [(), TOOLS], ids=["no tools", "tools"])
@pytest.mark.parametrize(
    ("asked", "then"),
    [
        ((SYSTEM, QUESTION), (SYSTEM, NEXT)),
        ((SYSTEM, QUESTION), (SYSTEM, QUESTION, ANSWER, NEXT)),
        ((SYSTEM, QUESTION), (SYSTEM, QUESTION, CALL, RESULT)),
        ((SYSTEM, QUESTION, ANSWER, NEXT), (SYSTEM, QUESTION, ANSWER, QUESTION)),
        ((SYSTEM, QUESTION, ANSWER, NEXT), (SYSTEM, NEXT)),
        ((QUESTION,), (QUESTION, ANSWER, NEXT)),
        ((QUESTION,), (NEXT,)),
        ((SYSTEM, QUESTION, CALL, RESULT), (SYSTEM, QUESTION, CALL, RESULT, ANSWER, NEXT)),
    ],
)
def test_what_comes_next_finds_a_state_where_it_parts(
    renderer: PromptRenderer,
    vocabulary: Vocabulary,
    tools: tuple[Tool, ...],
    asked: tuple[Message, ...],
    then: tuple[Message, ...],
    spells: bool,
) -> None:
    segmenting = SegmentingRenderer(renderer, renderer, vocabulary.token_bytes if spells else strange)
    prompt = segmenting.render(GenerationRequest(messages=asked, tools=tools))
    coming = renderer.render(GenerationRequest(messages=then, tools=tools)).tokens
    assert list(prompt.boundaries) == sorted(set(prompt.boundaries))
    shared = common_length(prompt.tokens, coming)
    # The first words of two questions may be the same: then the state before the question is the nearest.
    nearest = max((place for place in (*prompt.boundaries, len(prompt.tokens)) if place <= shared), default=0)
    assert nearest > 0
    assert shared - nearest <= 1


@pytest.mark.parametrize(
    "messages",
    [
        (SYSTEM, QUESTION, ANSWER, NEXT),
        (QUESTION, Message(role="assistant", content="The capital")),
        (SYSTEM, Message(role="user", content="What do <|im_end|>, \u00e9 and \U0001f600 mean? " * 50)),
    ],
    ids=["a chat", "a begun answer", "control tokens as text"],
)
def test_a_prompt_is_tokenized_once(
    tokenizer: CountedTokenizer, renderer: PromptRenderer, vocabulary: Vocabulary, messages: tuple[Message, ...]
) -> None:
    request = GenerationRequest(messages=messages)
    before = tokenizer.characters
    by_tokens = SegmentingRenderer(renderer, renderer, strange).render(request)
    four_times = tokenizer.characters - before
    before = tokenizer.characters
    renderer.render(request)
    once = tokenizer.characters - before
    before = tokenizer.characters
    by_text = SegmentingRenderer(renderer, renderer, vocabulary.token_bytes).render(request)
    assert tokenizer.characters - before == once < four_times
    assert by_text.boundaries == by_tokens.boundaries != ()


def test_a_prompt_stays_as_it_is_and_is_counted_as_before(renderer: PromptRenderer, vocabulary: Vocabulary) -> None:
    request = GenerationRequest(messages=(SYSTEM, QUESTION))
    segmenting = SegmentingRenderer(renderer, renderer, vocabulary.token_bytes)
    assert segmenting.render(request).tokens == renderer.render(request).tokens
    assert segmenting.count(request) == renderer.count(request)


def test_a_variation_that_does_not_fit_is_left_out(demo_model: Path, renderer: PromptRenderer) -> None:
    request = GenerationRequest(messages=(SYSTEM, QUESTION))
    narrow = load_renderer(demo_model, context_length=1)
    assert SegmentingRenderer(renderer, narrow, strange).render(request).boundaries == ()
