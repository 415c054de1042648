"""Kimi K3: calls and typed arguments as tags of special tokens. The answer's text has tags too."""

import re

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, block_of, pass_thought, skip_marker, template_has
from service.tool_calling.form import ArgumentForm, CallForm
from service.tool_calling.json_calls import read_arguments
from service.tool_calling.schema import TYPES
from service.tool_calling.source import SPACE, Reading, Source
from service.tool_calling.tagged import TaggedCall, Tags

SEP = "<|sep|>"


def _open(tag: str) -> str:
    return f"<|open|>{tag}{SEP}"


def _close(tag: str) -> str:
    return f"<|close|>{tag}{SEP}"


BLOCK, BLOCK_END = _open("tools"), _close("tools")
JSON, JSON_END = "<|open|>json", _close("json")
TAGS = Tags(
    call="<|open|>call",
    call_end=_close("call"),
    argument="<|open|>argument",
    argument_end=_close("argument"),
    block_end=BLOCK_END,
    header_end=SEP,
)
# A plain number is any of JSON's other types, because models confuse the words.
_TYPES = {"string": frozenset({"string"})}
_HEADER = re.compile(r"[^<\n]*")
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')


def _read_call(source: Source, attempt: CallAttempt) -> Reading[None]:
    name = (yield from _attributes(source)).get("tool", "")
    yield from source.run(SPACE)
    if (yield from source.skip(JSON)):
        yield from _attributes(source)
        yield from source.run(SPACE)
        yield from read_arguments(source, attempt, name, JSON_END)
        yield from source.run(SPACE)
        yield from source.expect(JSON_END)
        yield from source.run(SPACE)
        if (yield from source.skip(TAGS.call_end)):
            attempt.absorb()
        return
    if not (yield from source.which(TAGS.after_argument)):
        yield from source.refuse()
    call = TaggedCall(source, attempt, TAGS, name)
    while (yield from source.skip(TAGS.argument)):
        attributes = yield from _attributes(source)
        types = _TYPES.get(attributes.get("type", "string"), TYPES - {"string"})
        yield from call.argument(attributes.get("key", ""), types)
    yield from call.end()


def _attributes(source: Source) -> Reading[dict[str, str]]:
    header = yield from source.run(_HEADER)
    yield from source.expect(SEP)
    found = _ATTRIBUTE.findall(header)
    return {name: value.replace("&quot;", '"').replace("&amp;", "&") for name, value in found}


FORM = CallForm(
    begin=BLOCK,
    before=f'{TAGS.call} tool="{{name}}" index="{{index}}"{SEP}',
    argument=ArgumentForm(
        before=f'{TAGS.argument} key="{{name}}" type="{{type}}"{SEP}',
        after=TAGS.argument_end,
        types={
            "string": "string",
            "integer": "number",
            "number": "number",
            "boolean": "boolean",
            "null": "null",
            "object": "object",
            "array": "array",
        },
    ),
    after=TAGS.call_end,
    separator="",
    end=BLOCK_END,
    trigger=BLOCK,
)
RESPONSE, THOUGHT, THOUGHT_END = _open("response"), _open("think"), _close("think")
read = block_of(_read_call, call=TAGS.call, end=BLOCK_END)
FAMILY = Family(
    name="kimi_k3",
    openings=(
        Opening((BLOCK,), read),
        Opening((TAGS.call,), read, consumed=False),
        Opening((THOUGHT,), pass_thought(THOUGHT_END, before=(RESPONSE, BLOCK))),
        Opening((RESPONSE, _close("response"), _close("message"), "<|end_of_msg|>", THOUGHT_END), skip_marker),
    ),
    knows=template_has("<|open|>", "<|close|>", SEP),
    forms=(FORM,),
    frames=True,
    answer=RESPONSE,
    thought=(THOUGHT, THOUGHT_END),
)
