import json
from collections.abc import Callable, Iterator
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry

from service.generation import Tool, ToolCall

# A client's schema must not stop the engine: 20,000 keywords take about 0.2 s. A real call needs about ten.
MAX_KEYWORDS = 20_000
# Python refuses to convert more than 4300 digits. Only the type of a longer number counts.
_INT_DIGITS = 4000
# Python's regular expressions may never end, and the search for equal items takes quadratic time.
_UNCHECKED = ("format", "pattern", "patternProperties", "uniqueItems", "unevaluatedItems", "unevaluatedProperties")

Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


def mismatches(call: ToolCall, tool: Tool) -> list[str]:
    """Checks with JSON Schema 2020-12. Returns a JSON path and a keyword for each difference, such as `$.city: type`;
    empty if the schema cannot be evaluated."""
    try:
        arguments = json.loads(call.arguments, parse_int=lambda digits: int(digits[:_INT_DIGITS]))
    except (ValueError, RecursionError):
        return ["$: JSON"]
    # With an empty registry, a `$ref` cannot make it fetch anything.
    validator = _Validator(tool.parameters, registry=Registry(), format_checker=_Budget())
    try:
        return [f"{error.json_path}: {error.validator}" for error in validator.iter_errors(arguments)]
    except Exception:  # jsonschema raises any exception for ill-formed or endless schemas
        return []


class _Budget:
    """Limits the keywords of one check. A format checker is the only state that jsonschema passes to subschemas;
    `format` itself is not checked."""

    def __init__(self) -> None:
        self._left = MAX_KEYWORDS

    def spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise RecursionError("the schema takes too many steps")


def _limited(keyword: Keyword) -> Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError] | None:
        validator.format_checker.spend()
        return keyword(validator, value, instance, schema)

    return check


def _additional(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError] | None:
    # Skipped with `patternProperties`, whose patterns would have to be searched for.
    keyword: Keyword = Draft202012Validator.VALIDATORS["additionalProperties"]
    return None if "patternProperties" in schema else keyword(validator, value, instance, schema)


_KEYWORDS: dict[str, Keyword] = {
    **Draft202012Validator.VALIDATORS,
    **dict.fromkeys(_UNCHECKED, lambda *_: None),
    "additionalProperties": _additional,
}
_Validator = validators.extend(Draft202012Validator, {name: _limited(keyword) for name, keyword in _KEYWORDS.items()})
