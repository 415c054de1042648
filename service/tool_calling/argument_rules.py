from collections.abc import Callable, Collection, Mapping
from typing import Any

from service.generation import Tool
from service.tool_calling.form import ArgumentForm, quoted_key
from service.tool_calling.rules import Rules, json_rule, lark_rule
from service.tool_calling.schema import json_type, property_types, resolved, value_types
from service.tool_calling.text_values import enforced_text, likely_text, plain_text

_OPEN = frozenset({"additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames"})
_SCALARS = frozenset({"null", "boolean", "integer", "number"})
_UNQUOTED = frozenset({"uniqueItems", "prefixItems", "contains", "patternProperties", "minProperties", "maxProperties"})
_MAX_DEPTH = 16
_COMBINED = frozenset({"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if"})


def closed(schema: Any) -> Any:
    """Sets `additionalProperties` to false in objects that name properties and do not mention others."""
    # Two closed schemas may exclude each other, so combined ones stay open.
    if not isinstance(schema, Mapping) or _COMBINED & schema.keys():
        return schema
    result = dict(schema)
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        result["properties"] = {name: closed(value) for name, value in properties.items()}
        # A model that may invent properties does so until its tokens run out.
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


def of_types(schema: Any, types: Collection[str]) -> Any:
    if not isinstance(schema, Mapping) or _COMBINED & schema.keys():
        return schema
    if "enum" in schema:
        return {**schema, "enum": [value for value in schema["enum"] if json_type(value) in types]}
    return schema if "const" in schema else {**schema, "type": sorted(types)}


class Arguments:
    """If `lenient`, restrictions that cannot be enforced are left out."""

    def __init__(self, rules: "Rules", tool: Tool, *, lenient: bool) -> None:
        self._rules = rules
        self._tool = tool
        self._lenient = lenient

    def object(self) -> str:
        schema = {"type": "object", **self._tool.parameters}
        return self._rules.rule(json_rule(closed(schema), lenient=self._lenient))

    def one_by_one(self, form: ArgumentForm) -> str:
        properties: dict[str, Any] = self._tool.parameters.get("properties") or {}
        required = self._tool.parameters.get("required") or ()
        return self._members(form, properties, required, lambda name: self._argument(form, name))

    def _members(
        self,
        form: ArgumentForm,
        properties: dict[str, Any],
        required: Collection[str],
        member: Callable[[str], str],
    ) -> str:
        separator = self._rules.literal(form.separator)
        first, others = "", ""
        for name in reversed(properties):
            argument = self._rules.rule(member(name))
            if name in required:
                first, others = f"{argument} {others}", f"{separator} {argument} {others}"
            else:
                first = f"({argument} {others} | {first})" if first else f"({argument} {others})?"
                others = f"({separator} {argument})? {others}"
            first, others = self._rules.rule(first), self._rules.rule(others)
        return first

    def _argument(self, form: ArgumentForm, name: str) -> str:
        schema = closed(argument_schema(self._tool.parameters, name))
        if not form.types:
            return f"{self._rules.literal(form.before, name)} {self._value(form, name, schema)}"
        by_opening: dict[str, set[str]] = {}
        for kind in sorted(property_types(self._tool, name)):
            by_opening.setdefault(form.opening(name, kind), set()).add(kind)
        return " | ".join(
            f"{self._rules.literal(opening)} {self._value(form, name, of_types(schema, types), types)}"
            for opening, types in by_opening.items()
        )

    def _value(self, form: ArgumentForm, name: str, schema: Any, types: Collection[str] = ()) -> str:
        rules = self._rules
        types = types or property_types(self._tool, name)
        if self._tool.grammar and form.values == "text":  # in JSON, quotes and line breaks would have to be escaped
            return f"{rules.rule(lark_rule(self._tool.grammar))} {rules.literal(form.after, name)}"
        if form.values == "quoted":
            return f"{self._quoted(form, schema, 0)} {rules.literal(form.after, name)}"
        if form.values == "json":
            return f"{json_rule(schema, lenient=self._lenient, escapes=False)} {rules.literal(form.after, name)}"
        if "string" not in types:
            return f"{json_rule(schema, lenient=self._lenient)} {rules.literal(form.after, name)}"
        if self._lenient:
            return rules.until(form.after.replace("{name}", name), likely_text(self._tool, name, schema))
        try:
            return rules.until(form.after.replace("{name}", name), enforced_text(schema, self._tool.parameters))
        except ValueError as exc:
            raise ValueError(f"{self._tool.name}.{name}: this model's format of calls cannot enforce {exc}") from exc

    # Values with the family's own quotes

    def _quoted(self, form: ArgumentForm, schema: Any, depth: int) -> str:
        root = self._tool.parameters
        schema = closed(resolved(schema, root))
        if not isinstance(schema, Mapping) or not schema or depth > _MAX_DEPTH:
            return self._anything(form)
        branches = schema.get("anyOf") or schema.get("oneOf")
        if branches and not (_COMBINED - {"anyOf", "oneOf"}) & schema.keys():
            return self._rules.rule(" | ".join(self._quoted(form, branch, depth + 1) for branch in branches))
        unread = (_COMBINED | _UNQUOTED) & schema.keys()
        if unread and not self._lenient:
            raise ValueError(f"{self._tool.name}: this model's format of calls cannot enforce {min(unread)!r}")
        if _COMBINED & schema.keys():
            return self._anything(form)
        alternatives = []
        types = value_types(schema, root, 0)
        for kinds, alternative in (
            (_SCALARS, self._scalar),
            (frozenset({"string"}), self._string),
            (frozenset({"object"}), self._object),
            (frozenset({"array"}), self._array),
        ):
            narrowed = of_types(schema, types & kinds)
            if types & kinds and narrowed.get("enum") != []:
                alternatives.append(alternative(form, narrowed, depth))
        return self._rules.rule(" | ".join(alternatives))

    def _scalar(self, form: ArgumentForm, schema: dict[str, Any], depth: int) -> str:
        return json_rule(schema, lenient=self._lenient)

    def _string(self, form: ArgumentForm, schema: dict[str, Any], depth: int) -> str:
        text = plain_text(schema) if self._lenient else enforced_text(schema, self._tool.parameters)
        return f"{self._rules.literal(form.quote)} {self._rules.until(form.quote, text)}"

    def _object(self, form: ArgumentForm, schema: dict[str, Any], depth: int) -> str:
        properties = schema.get("properties")
        if not properties:
            return self._anything(form, "anything_object")

        def member(name: str) -> str:
            key = self._rules.literal(quoted_key(name, form.quote))
            return f'{key} ":" {self._quoted(form, properties[name], depth + 1)}'

        return f'"{{" {self._members(form, properties, schema.get("required") or (), member)} "}}"'

    def _array(self, form: ArgumentForm, schema: dict[str, Any], depth: int) -> str:
        item = self._quoted(form, schema.get("items"), depth + 1)
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0:
            return '"[" "]"'
        others = f'("," {item}){{{max(least - 1, 0)},{"" if most is None else most - 1}}}'
        return f'"[" {item} {others} "]"' if least else f'"[" ({item} {others})? "]"'

    def _anything(self, form: ArgumentForm, kind: str = "anything") -> str:
        rules = self._rules
        string = f"{rules.literal(form.quote)} {rules.until(form.quote)}"
        member = f'({string} | /[A-Za-z_][A-Za-z0-9_]*/) ":" anything'
        rules.define("anything_object", f'"{{" ({member} ("," {member})*)? "}}"')
        rules.define("anything_array", '"[" (anything ("," anything)*)? "]"')
        scalar = json_rule({"type": sorted(_SCALARS)})
        rules.define("anything", f"{string} | {scalar} | anything_object | anything_array")
        return kind


def free_arguments(tool: Tool) -> Tool:
    properties = {
        name: {"type": sorted(property_types(tool, name))} for name in tool.parameters.get("properties") or ()
    }
    return Tool(name=tool.name, parameters={"properties": properties, "additionalProperties": True})
