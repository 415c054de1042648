"""`tool_choice` required or named gives one block of calls and nothing else; a tool that is not `strict` is held to the
enforceable part of its schema. Strict tools with `tool_choice` auto leave text free and constrain a call once its
marker is written. `response_format` gives one JSON document, or calls if there are tools. Reasoning may come first."""

from collections.abc import Sequence
from typing import Any

import msgspec

from service.generation import GenerationRequest, ResponseFormat, Tool
from service.tool_calling.argument_rules import Arguments, closed, free_arguments
from service.tool_calling.families import FAMILIES, fallbacks
from service.tool_calling.form import CallForm
from service.tool_calling.instructions import offered_tools
from service.tool_calling.rules import TEXT, Rules, Spell, json_rule, lark_rule

_GAP = '("\\n" | "\\n\\n")?'


class Thought(msgspec.Struct, frozen=True):
    """With `inside` the prompt has opened the reasoning."""

    opens: str
    closes: str
    inside: bool = False


def is_constrained(request: GenerationRequest) -> bool:
    tools = offered_tools(request)
    called = bool(tools) and request.tool_choice.mode == "required"
    return called or request.response_format is not None or any(tool.strict for tool in tools)


def answer_grammar(request: GenerationRequest, family: str | None, spell: Spell, thought: Thought | None) -> str:
    """Returns llguidance's dialect of Lark, for a request that `is_constrained`. Without a `family` calls are bare JSON
    objects. Raises ValueError for a schema that the family's format cannot enforce."""
    return _AnswerGrammar(request, family, spell).text(thought)


def schema_grammar(schema: dict[str, Any]) -> str:
    return f"start: {json_rule(schema)}\n"


def required_schemas(request: GenerationRequest) -> dict[str, dict[str, Any]]:
    """Returns the schemas that must be enforced exactly, by their field in the request."""
    schemas = {
        f"tools[{i}].function.parameters": tool.parameters for i, tool in enumerate(request.tools) if tool.strict
    }
    if request.response_format is not None and request.response_format.schema is not None:
        schemas["response_format.json_schema.schema"] = request.response_format.schema
    return schemas


class _AnswerGrammar:
    def __init__(self, request: GenerationRequest, family: str | None, spell: Spell) -> None:
        self._request = request
        self._family = FAMILIES.get(family or "")
        self._forms = self._family.forms if self._family else (fallbacks.FORM,)
        self._tools = offered_tools(request)
        self._rules = Rules(spell)

    def text(self, thought: Thought | None) -> str:
        rules = self._rules
        start = self._answer()
        if thought is not None:
            thinking = f"{rules.until(thought.closes)} {_GAP}"
            start = f"{thinking} {start}" if thought.inside else f"({rules.literal(thought.opens)} {thinking})? {start}"
        return f"start: {start}\n{rules}"

    def _answer(self) -> str:
        choice, wanted = self._request.tool_choice, self._request.response_format
        if self._tools and choice.mode == "required":
            named = tuple(tool for tool in self._tools if choice.name in ("", tool.name))
            single = bool(choice.name) or not self._request.parallel_tool_calls
            return self._calls(named, single=single)
        if wanted is not None:
            opening = self._family.answer if self._family else ""
            document = f"{self._rules.literal(opening)} {_document(wanted)}"
            calls = self._calls(self._tools, single=not self._request.parallel_tool_calls) if self._tools else ""
            return self._rules.rule(f"{document} | {calls}" if calls else document)
        return self._free()

    def _calls(self, tools: Sequence[Tool], *, single: bool) -> str:
        return self._rules.rule(" | ".join(self._block(form, tools, single=single) for form in self._forms))

    def _block(self, form: CallForm, tools: Sequence[Tool], *, single: bool, opened: str = "") -> str:
        """`opened` is already written."""
        rules = self._rules
        begin = form.begin.removeprefix(opened)
        before = form.before.removeprefix(opened) if not form.begin else form.before
        call = rules.rule(" | ".join(self._call(form, before, tool) for tool in tools))
        repeated = "" if single or form.separator is None else f"({rules.literal(form.separator)} {call})*"
        return f"{rules.literal(begin)} {call} {repeated} {rules.literal(form.end)}"

    def _call(self, form: CallForm, before: str, tool: Tool) -> str:
        rules = self._rules
        arguments = Arguments(rules, tool, lenient=not tool.strict)
        if self._request.tool_choice.mode == "auto" and not tool.strict:
            arguments = Arguments(rules, free_arguments(tool), lenient=True)
        written = arguments.one_by_one(form.argument) if form.argument else arguments.object()
        return f"{rules.literal(before, tool.name)} {written} {rules.literal(form.after, tool.name)}"

    def _free(self) -> str:
        rules = self._rules
        if self._family is not None and self._family.answer:
            return rules.rule(
                f"{self._calls(self._tools, single=True)} | {rules.literal(self._family.answer)} "
                + rules.terminal(TEXT)
            )
        trigger = self._forms[0].trigger
        if not trigger:  # calls stand alone and begin with a bracket, so text may not
            text = rules.terminal(r"/[ \t\n]*([^ \t\n{\[](?s:.*))?/")
            return rules.rule(f"{self._calls(self._tools, single=False)} | {text}")
        blocks = (self._block(form, self._tools, single=not form.begin, opened=trigger) for form in self._forms)
        return f"({rules.until(trigger)} {rules.rule(' | '.join(blocks))})* {rules.without(trigger)}"


def _document(wanted: ResponseFormat) -> str:
    if wanted.kind != "grammar":
        return json_rule(closed(wanted.schema or {"type": "object"}))
    return lark_rule(wanted.grammar)
