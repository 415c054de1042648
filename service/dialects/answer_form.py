"""The form that an answer must have, in the fields of OpenAI, llama.cpp and vLLM."""

import json
import operator
import re
from typing import Annotated, Any, Literal

import msgspec

from service.dialects.body_fields import REFUSES_UNKNOWN, UNREAD, Unread
from service.dialects.json_body import check_free_form, choose
from service.dialects.openai_sampling import SamplingFields
from service.errors import BadRequest, MissingParameter
from service.generation import ResponseFormat

GrammarText = Annotated[str, msgspec.Meta(min_length=1, max_length=65_536)]
Choices = Annotated[list[str], msgspec.Meta(min_length=1, max_length=1000)]

_KINDS: dict[str, Literal["text", "json_object", "json_schema", "grammar"]] = {
    "text": "text",
    "json_object": "json_object",
    "json_schema": "json_schema",
    "grammar": "grammar",
}


class JsonSchema(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: Unread = UNREAD


class ResponseFormatObject(msgspec.Struct, forbid_unknown_fields=True):
    """llama.cpp has `schema` and `grammar` here."""

    type: str
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None
    grammar: GrammarText | None = None


class StructuredOutputs(msgspec.Struct, forbid_unknown_fields=True):
    """vLLM's newer field."""

    json: dict[str, Any] | str | None = None
    regex: GrammarText | None = None
    choice: Choices | None = None
    grammar: GrammarText | None = None
    json_object: bool | None = None


class FormFields(SamplingFields, kw_only=True):
    """`json_schema` and `grammar` are llama.cpp's, `guided_...` vLLM's."""

    response_format: ResponseFormatObject | None = None
    json_schema: dict[str, Any] | None = None
    grammar: GrammarText | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: GrammarText | None = None
    guided_choice: Choices | None = None
    guided_grammar: GrammarText | None = None
    structured_outputs: Annotated[StructuredOutputs, REFUSES_UNKNOWN] | None = None


_FORM_FIELDS = tuple(name for name in FormFields.__struct_fields__ if name not in SamplingFields.__struct_fields__)
_NO_FORM = (None,) * len(_FORM_FIELDS)
_form_fields = operator.attrgetter(*_FORM_FIELDS)


def read_form(asked: FormFields) -> ResponseFormat | None:
    """Raises `BadRequest` if two fields set a form."""
    if _form_fields(asked) == _NO_FORM:
        return None
    outputs = asked.structured_outputs or StructuredOutputs()
    forms = {
        "response_format": _response_format(asked.response_format),
        "json_schema": _schema(asked.json_schema, "json_schema"),
        "grammar": _grammar(asked.grammar),
        "guided_json": _schema(asked.guided_json, "guided_json"),
        "guided_regex": _regex(asked.guided_regex),
        "guided_choice": _choice(asked.guided_choice),
        "guided_grammar": _grammar(asked.guided_grammar),
        "structured_outputs.json": _schema(outputs.json, "structured_outputs.json"),
        "structured_outputs.regex": _regex(outputs.regex),
        "structured_outputs.choice": _choice(outputs.choice),
        "structured_outputs.grammar": _grammar(outputs.grammar),
        "structured_outputs.json_object": ResponseFormat(kind="json_object") if outputs.json_object else None,
    }
    named = [(param, form) for param, form in forms.items() if form is not None]
    if len(named) > 1:
        first, second = named[0][0], named[1][0]
        raise BadRequest.at(second, f"'{first}' gives the answer a form already.")
    return named[0][1] if named else None


def _response_format(wanted: ResponseFormatObject | None) -> ResponseFormat | None:
    if wanted is None:
        return None
    kind = choose(wanted.type, _KINDS, "response_format.type")
    match kind:
        case "text":
            return None
        case "json_object":
            return _schema(wanted.schema, "response_format.schema") or ResponseFormat(kind=kind)
        case "grammar":
            if wanted.grammar is None:
                raise MissingParameter("response_format.grammar")
            return _grammar(wanted.grammar)
        case "json_schema":
            given = wanted.json_schema
            if given is None and wanted.schema is not None:
                return _schema(wanted.schema, "response_format.schema")
            if given is None or given.schema is None:
                raise MissingParameter("response_format.json_schema" + (".schema" if given else ""))
            check_free_form(given.schema, "response_format.json_schema.schema")
            return ResponseFormat(kind=kind, schema=given.schema, name=given.name or "", strict=bool(given.strict))


def _schema(schema: dict[str, Any] | str | None, param: str) -> ResponseFormat | None:
    """vLLM also takes a schema as JSON text."""
    if schema is None:
        return None
    if isinstance(schema, str):
        try:
            schema = msgspec.json.decode(schema, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            raise BadRequest.at(param, "expected a JSON Schema, an object.") from None
    check_free_form(schema, param)
    return ResponseFormat(kind="json_schema", schema=schema, strict=True)


def _grammar(text: str | None) -> ResponseFormat | None:
    return None if text is None else ResponseFormat(kind="grammar", grammar=text)


def _regex(pattern: str | None) -> ResponseFormat | None:
    if pattern is None:
        return None
    escaped = re.sub(r"(\\.)|/", lambda match: match[1] or r"\/", pattern, flags=re.DOTALL).replace("\n", r"\n")
    return _grammar(f"start: /{escaped}/\n")


def _choice(choices: list[str] | None) -> ResponseFormat | None:
    if choices is None:
        return None
    return _grammar(f"start: {' | '.join(json.dumps(choice, ensure_ascii=False) for choice in choices)}\n")
