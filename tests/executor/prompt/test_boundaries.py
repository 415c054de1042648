"""The places where states are kept, against the requests that really come next."""

from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def renderer(demo_model: Path) -> PromptRenderer:
    return load_renderer(demo_model, context_length=8192)


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
    renderer: PromptRenderer, tools: tuple[Tool, ...], asked: tuple[Message, ...], then: tuple[Message, ...]
) -> None:
    prompt = SegmentingRenderer(renderer, renderer).render(GenerationRequest(messages=asked, tools=tools))
    coming = renderer.render(GenerationRequest(messages=then, tools=tools)).tokens
    assert list(prompt.boundaries) == sorted(set(prompt.boundaries))
    shared = common_length(prompt.tokens, coming)
    # The first words of two questions may be the same: then the state before the question is the nearest.
    nearest = max((place for place in (*prompt.boundaries, len(prompt.tokens)) if place <= shared), default=0)
    assert nearest > 0
    assert shared - nearest <= 1


def test_a_prompt_stays_as_it_is_and_is_counted_as_before(renderer: PromptRenderer) -> None:
    request, segmenting = GenerationRequest(messages=(SYSTEM, QUESTION)), SegmentingRenderer(renderer, renderer)
    assert segmenting.render(request).tokens == renderer.render(request).tokens
    assert segmenting.count(request) == renderer.count(request)


def test_a_variation_that_does_not_fit_is_left_out(demo_model: Path, renderer: PromptRenderer) -> None:
    request = GenerationRequest(messages=(SYSTEM, QUESTION))
    narrow = load_renderer(demo_model, context_length=1)
    assert SegmentingRenderer(renderer, narrow).render(request).boundaries == ()
