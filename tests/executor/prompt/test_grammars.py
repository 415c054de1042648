"""Grammars on the demo model's tokenizer: compiled, remembered, refused with reasons, begun by a prefill."""

from pathlib import Path
from typing import Any

import pytest
from llguidance import LLTokenizer
from tokenizers import AddedToken, Tokenizer

from service.errors import BadRequest
from service.executor.prompt.grammars import ConstrainingRenderer, GrammarCompiler, GrammarError, open_tokenizer
from service.executor.scheduling.messages import Grammar, Prompt
from service.generation import GenerationRequest, Message, ResponseFormat, Tool, ToolChoice
from service.tool_calling.grammar import Thought

OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
BAD = {"type": "array", "uniqueItems": True}
CIRCLE = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}


@pytest.fixture(scope="module")
def compiler(demo_model: Path) -> GrammarCompiler:
    tokenizer = Tokenizer.from_file(str(demo_model / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    return GrammarCompiler(LLTokenizer(tokenizer.to_str(), eos_token=2))


class Prompts:
    """A prompt without a template."""

    tool_family = "hermes"

    def __init__(self, *, prefill: str = "", knows_tools: bool = True) -> None:
        self.knows_tools = knows_tools
        self._prefill = prefill

    def render(self, request: GenerationRequest) -> Prompt:
        return Prompt([1], prefill=self._prefill)

    def count(self, request: GenerationRequest) -> int:
        return 1

    def thought(self, request: GenerationRequest, prompt: Prompt) -> Thought | None:
        return None


def ask(**fields: Any) -> GenerationRequest:
    return GenerationRequest(messages=(Message(role="user", content="Hi"),), **fields)


def schema(value: dict[str, Any]) -> GenerationRequest:
    return ask(response_format=ResponseFormat(kind="json_schema", schema=value))


def follows(compiler: GrammarCompiler, grammar: Grammar | None, text: str) -> bool:
    assert grammar is not None
    matcher = grammar.matcher.deep_copy()
    tokens = compiler.tokenizer.tokenize_str(text, parse_special=True)
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


def test_a_free_answer_has_no_grammar(compiler: GrammarCompiler) -> None:
    assert ConstrainingRenderer(Prompts(), compiler).render(ask()).grammar is None


def test_markup_that_is_a_token_is_named_as_one(compiler: GrammarCompiler) -> None:
    text, token, rest = compiler.spell("a <tool_call>\n")
    assert (text, rest) == ("a ", "\n")
    assert isinstance(token, int)
    tool = Tool(name="f", parameters={"type": "object", "properties": {}})
    grammar = (
        ConstrainingRenderer(Prompts(), compiler).render(ask(tools=(tool,), tool_choice=ToolChoice("required"))).grammar
    )
    assert follows(compiler, grammar, '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>')


@pytest.mark.parametrize(("knows_tools", "several"), [(True, True), (False, False)])
def test_only_models_that_were_trained_on_calls_must_know_when_to_stop(
    compiler: GrammarCompiler, knows_tools: bool, several: bool
) -> None:
    tool = Tool(name="f", parameters={"type": "object", "properties": {}})
    renderer = ConstrainingRenderer(Prompts(knows_tools=knows_tools), compiler)
    grammar = renderer.render(ask(tools=(tool,), tool_choice=ToolChoice("required"))).grammar
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    assert follows(compiler, grammar, call)
    assert follows(compiler, grammar, f"{call}\n{call}") is several


def test_a_grammar_is_compiled_once_and_used_from_its_beginning(compiler: GrammarCompiler) -> None:
    renderer = ConstrainingRenderer(Prompts(), compiler)
    first, second = renderer.render(schema(OBJECT)).grammar, renderer.render(schema(OBJECT)).grammar
    assert first is not None
    assert second is not None
    assert first.matcher is second.matcher
    assert follows(compiler, first, '{"a": 1}')
    assert follows(compiler, first, '{"a": 2}')


@pytest.mark.parametrize(
    ("request_", "param", "reason"),
    [
        (schema(BAD), "response_format.json_schema.schema", "uniqueItems"),
        (schema({"type": "string", "pattern": "(?=a)b"}), "response_format.json_schema.schema", "look-around"),
        (schema({"$ref": "https://example.org/x"}), "response_format.json_schema.schema", "example.org"),
        (schema({"$ref": "#"}), "response_format.json_schema.schema", "no answer"),
        (schema(CIRCLE), "response_format.json_schema.schema", "no answer"),
        (
            ask(tools=(Tool(name="f"), Tool(name="g", strict=True, parameters={"properties": {"x": BAD}}))),
            "tools[1].function.parameters",
            "uniqueItems",
        ),
        (
            ask(
                tools=(Tool(name="g", parameters={"properties": {"x": {"type": "string", "pattern": "["}}}),),
                tool_choice=ToolChoice("required"),
            ),
            "tools",
            "regex parse error",
        ),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_the_reason(
    compiler: GrammarCompiler, request_: GenerationRequest, param: str, reason: str
) -> None:
    with pytest.raises(BadRequest, match=reason) as refused:
        ConstrainingRenderer(Prompts(), compiler).render(request_)
    assert refused.value.param == param
    assert "x-guidance" not in refused.value.message
    assert "\n   1 |" not in refused.value.message


def test_tools_that_are_not_strict_are_held_to_what_can_be_enforced(compiler: GrammarCompiler) -> None:
    tool = Tool(name="f", parameters={"type": "object", "properties": {"x": BAD}, "required": ["x"]})
    renderer = ConstrainingRenderer(Prompts(), compiler)
    grammar = renderer.render(ask(tools=(tool,), tool_choice=ToolChoice("required"))).grammar
    assert follows(compiler, grammar, '<tool_call>\n{"name": "f", "arguments": {"x": [1, 1]}}\n</tool_call>')


def test_an_answer_that_was_begun_goes_on_from_there(compiler: GrammarCompiler) -> None:
    grammar = ConstrainingRenderer(Prompts(prefill='{"a": 1'), compiler).render(schema(OBJECT)).grammar
    assert follows(compiler, grammar, "2}")
    assert not follows(compiler, grammar, '{"a": 12}')
    with pytest.raises(BadRequest, match="begins an answer that cannot have the form"):
        ConstrainingRenderer(Prompts(prefill="Sure, "), compiler).render(schema(OBJECT))


def test_without_a_tokenizer_nothing_is_promised() -> None:
    with pytest.raises(BadRequest, match="tokenizer is not of a kind"):
        ConstrainingRenderer(Prompts(), GrammarCompiler(None)).render(schema(OBJECT))
    assert ConstrainingRenderer(Prompts(), GrammarCompiler(None)).render(ask()).grammar is None


def test_padding_of_the_vocabulary_is_known(demo_model: Path) -> None:
    class Wrapper:
        backend_tokenizer = Tokenizer.from_file(str(demo_model / "tokenizer.json"))
        eos_token_ids = frozenset({2, 0})

        def __len__(self) -> int:
            return self.backend_tokenizer.get_vocab_size()

    opened = open_tokenizer(Wrapper(), 50_000)
    assert opened is not None
    assert (opened.vocab_size, opened.eos_tokens) == (50_000, [0, 2])
    assert open_tokenizer(object(), 50_000) is None


def test_what_is_no_grammar_is_an_error(compiler: GrammarCompiler) -> None:
    with pytest.raises(GrammarError, match="unknown name"):
        compiler.compile("start: nothing_here")


GBNF = 'root ::= "yes, " day\nday ::= "mon" | "tue"'
LARK = 'start: "yes, " DAY\nDAY: "mon" | "tue"'


@pytest.mark.parametrize("text", [GBNF, LARK])
def test_an_answer_follows_the_grammar_of_the_client(compiler: GrammarCompiler, text: str) -> None:
    wanted = ResponseFormat(kind="grammar", grammar=text)
    tool = Tool(name="f", parameters={"type": "object", "properties": {}})
    for request in (ask(response_format=wanted), ask(response_format=wanted, tools=(tool,))):
        grammar = ConstrainingRenderer(Prompts(), compiler).render(request).grammar
        assert follows(compiler, grammar, "yes, tue")
        assert not follows(compiler, grammar, "no")


@pytest.mark.parametrize("text", ["root ::= (", "start: nothing", "}\nstart:", "((" * 20_000])
def test_a_grammar_that_cannot_be_read_is_refused(compiler: GrammarCompiler, text: str) -> None:
    wanted = ResponseFormat(kind="grammar", grammar=text)
    with pytest.raises(BadRequest, match="cannot be enforced") as caught:
        ConstrainingRenderer(Prompts(), compiler).render(ask(response_format=wanted))
    assert caught.value.param == "response_format"
