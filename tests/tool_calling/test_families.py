"""What holds in every format: random arguments come back as they were, and a family is known by its template."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.generation import Tool, ToolCall
from service.tool_calling import FAMILIES, detect_family, parse
from service.tool_calling.ending import EndFilter
from service.tool_calling.families import deepseek
from tests.examples import examples
from tests.tool_calling.outputs import choice_of, events, without_ids

TAGGED = (
    "qwen3_coder", "seed_oss", "glm", "longcat", "hunyuan", "minimax", "muse", "minicpm5", "minimax_m3",
)  # fmt: skip
"""Their values have neither quotes nor types."""
MARKUP = (
    "</tool_call>", "<tool_call>", "<function=", "</parameter>", "</arg_value>", "<arg_key>", "</invoke>", "```", "`",
    "[TOOL_CALLS]", "[ARGS]", "<|call|>", "<|tool_call_end|>", "[END_TOOL_REQUEST]", "<think>", "\n", '"', "\\", "'",
    ")]",
)  # fmt: skip

names = st.text("abcdefgh_12", min_size=1, max_size=8).map("x".__add__)
texts = st.lists(st.text(max_size=8) | st.sampled_from(MARKUP), max_size=6).map("".join)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**20, 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(names, values, max_size=4)
calls_made = st.lists(st.tuples(names, arguments), min_size=1, max_size=3)


def as_turns(calls: Sequence[ToolCall]) -> str:
    """As gpt-oss ends its calls: each begins a message of its own."""
    form = FAMILIES["harmony"].forms[0]
    return "<|start|>assistant".join(f"{form.render([call])}<|call|>" for call in calls)


def as_python(calls: Sequence[ToolCall]) -> str:
    """With the literals of Python, where the form has those of JSON."""
    written = (", ".join(f"{name}={value!r}" for name, value in json.loads(call.arguments).items()) for call in calls)
    return f"[{', '.join(f'{call.name}({text})' for call, text in zip(calls, written, strict=True))}]"


FORMS: list[tuple[str, Callable[[Sequence[ToolCall]], str]]] = [
    *((name, form.render) for name, family in sorted(FAMILIES.items()) for form in family.forms),
    ("harmony", as_turns),
    ("pythonic", as_python),
]
each_form = pytest.mark.parametrize(("family", "render"), FORMS)

TYPES = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def call_of(name: str, values: dict[str, Any]) -> ToolCall:
    return ToolCall("", name, json.dumps(values, ensure_ascii=len(name) % 2 == 0))


def tools_for(made: list[tuple[str, dict[str, Any]]]) -> list[Tool]:
    """Each tool's schema allows the types that its calls use."""
    schemas: dict[str, dict[str, Any]] = {}
    for name, values in made:
        properties = schemas.setdefault(name, {})
        for key, value in values.items():
            properties.setdefault(key, set()).add(TYPES[type(value)])
    return [
        Tool(name=name, parameters={"properties": {key: {"type": sorted(types)} for key, types in properties.items()}})
        for name, properties in schemas.items()
    ]


def unambiguous(made: list[tuple[str, dict[str, Any]]]) -> bool:
    """Whether values without types and quotes can be told apart: no tags in them, and an argument has one type in
    every call."""
    types: dict[tuple[str, str], set[type]] = {}
    for name, values in made:
        for key, value in values.items():
            types.setdefault((name, key), set()).add(type(value))
            if any(tag in json.dumps(value) for tag in MARKUP if tag[0] == "<"):
                return False
    return all(len(found) == 1 for found in types.values())


@each_form
@examples(20)
@given(made=calls_made, data=st.data())
def test_random_arguments_come_back(
    family: str,
    render: Callable[[Sequence[ToolCall]], str],
    made: list[tuple[str, dict[str, Any]]],
    data: st.DataObject,
) -> None:
    if family in TAGGED and not unambiguous(made):
        return
    calls = [call_of(name, values) for name, values in made]
    text = render(calls)
    tools = tools_for(made)
    output = parse(text, tools, family)
    assert [(call.name, json.loads(call.arguments)) for call in output.tool_calls] == made
    assert output.content == ""
    assert output.counts.repaired == 0
    if FAMILIES[family].forms[0].argument is None:
        assert [call.arguments for call in output.tool_calls] == [call.arguments for call in calls]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = without_ids(choice_of(events([text], family, tools)[0]))
    assert without_ids(choice_of(events(pieces, family, tools)[0])) == whole


@each_form
@examples(10)
@given(inner=calls_made)
def test_a_whole_other_call_as_an_argument_comes_back(
    family: str, render: Callable[[Sequence[ToolCall]], str], inner: list[tuple[str, dict[str, Any]]]
) -> None:
    if not unambiguous(inner):
        return
    text = render([call_of(name, values) for name, values in inner])
    written = FAMILIES[family].forms[0].argument
    if written is not None and written.quote and written.quote in text:
        return  # nothing escapes a quote in these formats
    outer = [("write_file", {"content": text, "path": "a"})]
    output = parse(render([call_of(*outer[0])]), tools_for([*outer, *inner]), family)
    assert [(call.name, json.loads(call.arguments)) for call in output.tool_calls] == outer


@examples(100)
@given(
    text=st.lists(st.text(max_size=5) | st.sampled_from((*MARKUP, "{", '"name": "f"', "f(", "[f(a=")), max_size=12).map(
        "".join
    )
)
def test_any_text_is_cut_anywhere_and_comes_out_whole(text: str) -> None:
    tools = [Tool(name="f")]
    whole = choice_of(events([text], None, tools)[0])
    assert without_ids(choice_of(events(text, None, tools)[0])) == without_ids(whole)
    if not whole.tool_calls and not whole.reasoning and "<|channel|>" not in text:
        ending = EndFilter()
        assert whole.text == ending.feed(text) + ending.finish()


TEMPLATES = [
    ("hermes", '{{- \'<tool_call>\\n{"name": "\' }}{{- tool_call.name }}'),
    ("qwen3_coder", "{{- '<tool_call>\\n<function=' + tool_call.name + '>\\n' }}{{- '<parameter=' + name + '>\\n' }}"),
    ("glm", "{{ '<tool_call>' + tc.name }}<arg_key>{{ k }}</arg_key><arg_value>{{ v }}</arg_value>"),
    ("llama3", "<|start_header_id|>ipython {{- '<|python_tag|>' }}"),
    ("llama3", "<|start_header_id|>assistant {{- '{\"name\": \"' + n + '\", ' }}{{- '\"parameters\": ' }}"),
    ("mistral", '{{- "[TOOL_CALLS] [" }}'),
    ("deepseek", f"{{'{deepseek.BLOCK}{deepseek.CALL}' + tool['type'] + '{deepseek.SEPARATOR}'}}"),
    ("kimi_k2", "<|tool_calls_section_begin|>"),
    ("minimax", "{%- set toolcall_begin_token = '<minimax:tool_call>' -%}"),
    ("pythonic", "[func_name1(params_name1=params_value1)]"),
    ("lfm2", "{{- '<|tool_list_start|>' }}"),
    ("olmo3", "{{- '<function_calls>' -}}{{ name }}({{ arguments }})"),
    ("harmony", '{{- "<|start|>assistant<|channel|>final<|message|>" }}'),
    ("lmstudio", "[TOOL_REQUEST]"),
    ("nemotron", "{{- '<TOOLCALL>[' -}}"),
    ("granite", "respond only with <|tool_call|> followed by a JSON list of tools used."),
    ("phi4", "{{ '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}"),
    ("cohere", "<|START_RESPONSE|>{{ m }}<|END_RESPONSE|><|START_ACTION|>["),
    ("apriel", "{{- '\\n<tool_calls>[' -}}"),
    ("minimax_m1", "{{- '<tool_calls>\\n' -}}"),
    ("gigachat", "add_tokens.function_call <|role_sep|> <|function_call|>"),
    ("gigachat3", "{{- 'function call' }}<|role_sep|>"),
    ("apertus", "{{ '<|tools_prefix|>[' }}"),
    ("solar", "<|tool_call:begin|>{{ id }}<|tool_call:name|>"),
    ("deepseek_v32", "{%- set dsml_token = '\uff5cDSML\uff5c' -%}{{- '<' + dsml_token + 'function_calls>' }}"),
    ("deepseek_v4", "{%- set dsml_token = '\uff5cDSML\uff5c' -%}{{- '<' + dsml_token + 'tool_calls>' }}"),
    ("muse", "{{- '<atem:function_calls>\\n<atem:invoke name=\"' }}"),
    ("longcat", "<longcat_tool_call>{{ name }}<longcat_arg_key>"),
    ("longcat_flash", "<longcat_tool_call>\n{{ call | tojson }}\n</longcat_tool_call>"),
    (
        "hunyuan",
        "{%- set eos_token = '<\uff5chy_eos{}\uff5c>' %}{%- set a = '<arg_key{}>' %}{%- set t = '<tool_call{}>' %}",
    ),
    ("seed_oss", "<seed:tool_call>\n<function=f>\n<parameter=a>"),
    ("gemma4", "{{- '<|tool_call>call:' + name }}"),
    ("function_gemma", "<start_function_call>call:{{ name }}"),
    ("kimi_k3", "{{- '<|open|>' + tag }}{{- '<|sep|>' }}{{- '<|close|>' + tag }}"),
    ("minicpm5", '<function name="f"><param name="p">'),
    ("minimax_m3", "{%- set ns_token = ']<]minimax[>[' -%}{{ ns_token ~ '<tool_call>' }}"),
    ("functionary", "Respond in this format:\n>>>${recipient}\n${content}"),
    (None, "{{ '<|im_start|>' + message.role + message.content }}"),
    (None, ""),
]


@pytest.mark.parametrize(("family", "template"), TEMPLATES)
def test_a_family_is_known_by_its_template_and_by_no_other(family: str | None, template: str) -> None:
    assert detect_family(template) == family
    assert [f.name for f in FAMILIES.values() if f.knows(template)] == ([family] if family else [])
