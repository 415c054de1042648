"""Constrained answers with drafters, on a random model whose tokens are bytes: the same answers, in fewer steps."""

import itertools
import re
from typing import Any

import pytest
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from service.executor.scheduling.messages import Grammar
from service.executor.speculation.draft_model import DraftModel
from service.executor.speculation.drafters import Drafters
from tests.executor.prefix.test_engine import make_model
from tests.executor.speculation.bench import CHUNK, NO_DRAFTS, Bench

TOKENIZER = LLTokenizer("byte")
GRAMMARS = {
    "a call": (
        'start: "call(" /[a-z]{3,9}/ ", " ("left" | "right") ", mode=" ("fast" | "fine") ")"',
        r"call\([a-z]{3,9}, (left|right), mode=(fast|fine)\)",
    ),
    "no choice at all": ('start: "nothing but this"', "nothing but this"),
    "an end that is chosen": (r"start: /[ab]{4,30}/", "[ab]{4,30}"),
    "blocks": (r'start: ("<item>" /[a-d]{1,3}/ "</item>"){2,4}', "(<item>[a-d]{1,3}</item>){2,4}"),
}
PROMPT = list(b"call(abc, left, mode=fast) call(def, right, mode=fine) <item>abc</item>")
OTHER_PROMPT = list(b"Something else.")


class GrammarBench(Bench):
    def __init__(self, model: Any, drafters: Drafters = NO_DRAFTS) -> None:
        super().__init__(model, drafters, end=TOKENIZER.eos_token)

    def begin(self, name: str, prompt: list[int] = PROMPT, **fields: Any) -> int:
        return self.start(prompt, grammar=grammar(GRAMMARS[name][0]), **{"max_tokens": 80, **fields})

    def answer(self, name: str, **fields: Any) -> str:
        (tokens,) = self.finish(self.begin(name, **fields))
        return text(tokens)


def grammar(source: str, limits: LLParserLimits | None = None) -> Grammar:
    return Grammar(LLMatcher(TOKENIZER, source, limits=limits, log_level=0), TOKENIZER.vocab_size)


def text(tokens: list[int]) -> str:
    return bytes(token for token in tokens if token != TOKENIZER.eos_token).decode()


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model("llama", vocab_size=TOKENIZER.vocab_size)


@pytest.fixture(params=["lookup", "draft model"])
def drafters(request: pytest.FixtureRequest, model: Any) -> Drafters:
    """Besides the grammar. The draft model is always right, as far as no grammar is in its way."""
    if request.param == "lookup":
        return Drafters(lookup=True)
    return Drafters(lookup=False, draft=DraftModel(model, logits=TOKENIZER.vocab_size, chunk_tokens=CHUNK))


@pytest.fixture(scope="module")
def plain(model: Any) -> dict[str, str]:
    bench = GrammarBench(model)
    return {name: bench.answer(name) for name in GRAMMARS}


def test_the_same_answers_as_without(model: Any, drafters: Drafters, plain: dict[str, str]) -> None:
    bench = GrammarBench(model, drafters)
    for _ in range(2):
        assert {name: bench.answer(name) for name in GRAMMARS} == plain
    for name, (_, pattern) in GRAMMARS.items():
        assert re.fullmatch(pattern, plain[name])
    assert {end.end for end in bench.ends.values()} == {"stop"}


def test_what_must_come_is_read_at_once(model: Any) -> None:
    drafters = Drafters(lookup=True)
    bench = GrammarBench(model, drafters)
    bench.answer("no choice at all")
    assert drafters.experience.tally.accepted == drafters.experience.tally.drafted >= len("nothing but this") - 3
    assert bench.steps <= 6


@pytest.mark.parametrize("max_tokens", range(1, 20))
def test_max_tokens_hold_inside_of_what_must_come(model: Any, drafters: Drafters, max_tokens: int) -> None:
    bench = GrammarBench(model, drafters)
    number = bench.begin("no choice at all", max_tokens=max_tokens)
    assert text(bench.finish(number)[0]) == "nothing but this"[:max_tokens]
    assert bench.ends[number].end == ("stop" if max_tokens > len("nothing but this") else "length")


@pytest.mark.parametrize("after", [1, 2, 3, 6, 11, 16])
def test_joined_and_left_alone_again_it_goes_on(
    model: Any, drafters: Drafters, plain: dict[str, str], after: int
) -> None:
    """Into the batch and out of it, at any token: the grammar keeps its place."""
    other = GrammarBench(model).run(OTHER_PROMPT, max_tokens=9)
    for name in ("a call", "blocks"):
        bench = GrammarBench(model, drafters)
        first = bench.begin(name)
        bench.step_until(first, after)
        second = bench.start(OTHER_PROMPT, max_tokens=9)
        answer, others = bench.finish(first, second)
        assert (text(answer), others) == (plain[name], other)


def test_two_grammars_side_by_side(model: Any, drafters: Drafters, plain: dict[str, str]) -> None:
    for one, other in itertools.permutations(GRAMMARS, 2):
        bench = GrammarBench(model, drafters)
        numbers = [bench.begin(one), bench.begin(other)]
        assert [text(tokens) for tokens in bench.finish(*numbers)] == [plain[one], plain[other]]


def test_aborted_it_leaves_the_next_one_its_grammar(model: Any, drafters: Drafters, plain: dict[str, str]) -> None:
    bench = GrammarBench(model, drafters)
    for after in (0, 1, 4, 9):
        number = bench.begin("a call")
        bench.step_until(number, after)
        bench.engine.remove(number)
        assert bench.answer("a call") == plain["a call"]


def test_a_grammar_that_cannot_be_followed_says_so(model: Any, drafters: Drafters) -> None:
    limits = LLParserLimits(step_max_items=1, step_lexer_fuel=1)
    bench = GrammarBench(model, drafters)
    bench.start(PROMPT, grammar=grammar("start: (a | b)*\na: /[a-z]{3,9}/ b\nb: /[a-f]+[0-9]*/ a?", limits))
    tokens = [token for _ in range(12) for token in bench.engine.step()]
    assert any(token.error for token in tokens)


@pytest.mark.parametrize("drafts", [False, True])
@pytest.mark.parametrize("begun", [1, 7, 12])
def test_an_answer_that_was_begun_keeps_its_grammar(
    model: Any, plain: dict[str, str], drafts: bool, begun: int
) -> None:
    tokens = list(plain["a call"].encode())
    bench = GrammarBench(model, Drafters(lookup=drafts))
    number = bench.start(
        [*PROMPT, *tokens[:begun]], grammar=grammar(GRAMMARS["a call"][0]), max_tokens=80, answered=begun
    )
    (rest,) = bench.finish(number)
    assert plain["a call"] == text([*tokens[:begun], *rest])
