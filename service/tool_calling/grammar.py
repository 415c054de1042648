"""The grammar that a request imposes on its answer, as text in llguidance's dialect of Lark (`%json` for schemas).

`tool_choice` required or named gives one block of calls and nothing else; a tool that is not `strict` is held to the
part of its schema that can be enforced. Strict tools with `tool_choice` auto leave text free and hold a call to its
form once its marker is written. `response_format` gives one JSON document, or calls if there are tools. Reasoning may
come first.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

from service.generation import GenerationRequest, ResponseFormat, Tool
from service.tool_calling.families import FAMILIES, fallbacks
from service.tool_calling.form import ArgumentForm, CallForm
from service.tool_calling.instructions import offered_tools
from service.tool_calling.schema import property_types
from service.tool_calling.text_values import ANYTHING, enforced_text, escape, likely_text

TEXT = f"/{ANYTHING}/"
Spell = Callable[[str], Sequence[str | int]]
"""Splits markup into text and the ids of special tokens, which no text can produce."""

_GAP = '("\\n" | "\\n\\n")?'
# An indentation may follow a line break. More white space would let a small model go on without end.
_JSON = {"whitespace_pattern": r"[ \t]?|\n[ \t]{0,40}"}
_OPEN = frozenset({"additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames"})
_COMBINED = frozenset({"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if"})
_JSON_ESCAPES = {"json_allow_general_unicode_escapes": True}


class Thought(msgspec.Struct, frozen=True):
    """How reasoning opens and closes; with `inside` the prompt has opened it."""

    opens: str
    closes: str
    inside: bool = False


def is_constrained(request: GenerationRequest) -> bool:
    tools = offered_tools(request)
    called = bool(tools) and request.tool_choice.mode == "required"
    return called or request.response_format is not None or any(tool.strict for tool in tools)


def answer_grammar(request: GenerationRequest, family: str | None, spell: Spell, thought: Thought | None) -> str:
    """The grammar of a request that `is_constrained`. Without a `family` calls are bare JSON objects, which every
    parser reads. Raises ValueError for a schema that the family's format cannot enforce."""
    return _AnswerGrammar(request, family, spell).text(thought)


def schema_grammar(schema: dict[str, Any]) -> str:
    return f"start: {_json(schema)}\n"


def required_schemas(request: GenerationRequest) -> dict[str, dict[str, Any]]:
    """The schemas that must be enforced exactly, by their field in the request."""
    schemas = {
        f"tools[{i}].function.parameters": tool.parameters for i, tool in enumerate(request.tools) if tool.strict
    }
    if request.response_format is not None and request.response_format.schema is not None:
        schemas["response_format.json_schema.schema"] = request.response_format.schema
    return schemas


def closed(schema: Any) -> Any:
    """`additionalProperties` becomes false in objects that name properties and do not mention others: a model that may
    invent properties does so until its tokens run out. Combined schemas stay as they are: two closed ones may exclude
    each other."""
    if not isinstance(schema, Mapping) or _COMBINED & schema.keys():
        return schema
    result = dict(schema)
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        result["properties"] = {name: closed(value) for name, value in properties.items()}
        if properties and not _OPEN & schema.keys():
            result["additionalProperties"] = False
    if "items" in schema:
        result["items"] = closed(schema["items"])
    return result


def argument_schema(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Includes the definitions that the argument's schema may refer to."""
    properties = parameters.get("properties")
    schema = properties.get(name) if isinstance(properties, Mapping) else None
    definitions = {key: parameters[key] for key in ("$defs", "definitions") if key in parameters}
    return {**definitions, **schema} if isinstance(schema, Mapping) else {}


class _AnswerGrammar:
    def __init__(self, request: GenerationRequest, family: str | None, spell: Spell) -> None:
        self._request = request
        self._family = FAMILIES.get(family or "")
        self._forms = self._family.forms if self._family else (fallbacks.FORM,)
        self._tools = offered_tools(request)
        self._rules = _Rules(spell)

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
        """`opened` is the part of the block that is written already."""
        rules = self._rules
        begin = form.begin.removeprefix(opened)
        before = form.before.removeprefix(opened) if not form.begin else form.before
        call = rules.rule(" | ".join(self._call(form, before, tool) for tool in tools))
        repeated = "" if single or form.separator is None else f"({rules.literal(form.separator)} {call})*"
        return f"{rules.literal(begin)} {call} {repeated} {rules.literal(form.end)}"

    def _call(self, form: CallForm, before: str, tool: Tool) -> str:
        rules = self._rules
        arguments = _Arguments(rules, tool, lenient=not tool.strict)
        if self._request.tool_choice.mode == "auto" and not tool.strict:
            arguments = _Arguments(rules, _free_arguments(tool), lenient=True)
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
        if not trigger:  # calls stand alone, and begin with a bracket, which text may not
            text = rules.terminal(r"/[ \t\n]*([^ \t\n{\[](?s:.*))?/")
            return rules.rule(f"{self._calls(self._tools, single=False)} | {text}")
        blocks = (self._block(form, self._tools, single=not form.begin, opened=trigger) for form in self._forms)
        return f"({rules.until(trigger)} {rules.rule(' | '.join(blocks))})* {rules.without(trigger)}"


class _Arguments:
    """The arguments of one tool. If `lenient`, restrictions that cannot be enforced are left out."""

    def __init__(self, rules: "_Rules", tool: Tool, *, lenient: bool) -> None:
        self._rules = rules
        self._tool = tool
        self._lenient = lenient

    def object(self) -> str:
        schema = {"type": "object", **self._tool.parameters}
        return self._rules.rule(_json(closed(schema), lenient=self._lenient))

    def one_by_one(self, form: ArgumentForm) -> str:
        properties: dict[str, Any] = self._tool.parameters.get("properties") or {}
        required = self._tool.parameters.get("required") or ()
        separator = self._rules.literal(form.separator)
        first, others = "", ""
        for name in reversed(properties):
            argument = self._rules.rule(self._argument(form, name))
            if name in required:
                first, others = f"{argument} {others}", f"{separator} {argument} {others}"
            else:
                first = f"({argument} {others} | {first})" if first else f"({argument} {others})?"
                others = f"({separator} {argument})? {others}"
            first, others = self._rules.rule(first), self._rules.rule(others)
        return first

    def _argument(self, form: ArgumentForm, name: str) -> str:
        return f"{self._rules.literal(form.before, name)} {self._value(form, name)}"

    def _value(self, form: ArgumentForm, name: str) -> str:
        rules = self._rules
        schema = closed(argument_schema(self._tool.parameters, name))
        if form.values == "json":
            return f"{_json(schema, lenient=self._lenient, escapes=False)} {rules.literal(form.after)}"
        if "string" not in property_types(self._tool, name):
            return f"{_json(schema, lenient=self._lenient)} {rules.literal(form.after)}"
        if self._lenient:
            return rules.until(form.after, likely_text(self._tool, name, schema))
        try:
            return rules.until(form.after, enforced_text(schema, self._tool.parameters))
        except ValueError as exc:
            raise ValueError(f"{self._tool.name}.{name}: this model's format of calls cannot enforce {exc}") from exc


class _Rules:
    """The rules of a grammar, each under a name of its own; equal rules are one."""

    def __init__(self, spell: Spell) -> None:
        self._spell = spell
        self._names: dict[str, str] = {}

    def __str__(self) -> str:
        return "".join(f"{name}{body}\n" for body, name in self._names.items())

    def rule(self, body: str, attribute: str = "") -> str:
        return self._add("r", f"{attribute}: {body}")

    def terminal(self, body: str) -> str:
        return self._add("T", f": {body}")

    def literal(self, text: str, name: str = "") -> str:
        """`text` with `name` for `{name}` and any number for `{index}`."""
        pieces = text.replace("{name}", name).split("{index}")
        return " /[0-9]{1,3}/ ".join(" ".join(map(_written, self._spell(piece))) for piece in pieces)

    def until(self, end: str, text: str = TEXT) -> str:
        """The terminal `text` up to the first `end`, which is included."""
        first, *rest = self._spell(end)
        written = " ".join(map(_written, rest))
        if isinstance(first, int):
            return f"{self.terminal(text)} {_written(first)} {written}"
        ended = f"{text} /{escape(first)}/"
        if text != TEXT:
            ended += f" & ~/{ANYTHING}{escape(first)}(?s:.+)/"  # the first end, even if `text` matches beyond it
        return f"{self.rule(self.terminal(ended), '[lazy]')} {written}"

    def without(self, marker: str) -> str:
        first = self._spell(marker)[0]
        if isinstance(first, int):
            return self.terminal(TEXT)
        return self.terminal(f"/{ANYTHING}/ & ~/{ANYTHING}{escape(first)}{ANYTHING}/")

    def _add(self, prefix: str, body: str) -> str:
        return self._names.setdefault(body, f"{prefix}{len(self._names)}")


def _written(piece: str | int) -> str:
    return f"<[{piece}]>" if isinstance(piece, int) else json.dumps(piece, ensure_ascii=False)


def _document(wanted: ResponseFormat) -> str:
    if wanted.kind != "grammar":
        return _json(closed(wanted.schema or {"type": "object"}))
    try:
        lark = any_to_lark(wanted.grammar)
    except (GbnfToLarkError, RecursionError) as exc:
        raise ValueError(f"the grammar is neither Lark nor GBNF: {exc}") from exc
    return f"%lark {{\n{lark}\n}}"


def _json(schema: Any, *, lenient: bool = False, escapes: bool = True) -> str:
    options = {**_JSON, **(_JSON_ESCAPES if escapes else {}), "lenient": lenient}
    return "%json " + json.dumps({**schema, "x-guidance": options})


def _free_arguments(tool: Tool) -> Tool:
    properties = {
        name: {"type": sorted(property_types(tool, name))} for name in tool.parameters.get("properties") or ()
    }
    return Tool(name=tool.name, parameters={"properties": properties, "additionalProperties": True})
