"""Families that write `<invoke name="f">` with `<parameter name="k">` tags in a block: one reader with a table.

MiniMax M2; DeepSeek V3.2 and V4 (DSML, which marks strings); Muse.
"""

import re
from collections.abc import Callable

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, block_of, template_has
from service.tool_calling.form import ArgumentForm, CallForm
from service.tool_calling.schema import TYPES
from service.tool_calling.source import SPACE, Reading, Source
from service.tool_calling.tagged import TaggedCall, Tags

DSML = "\uff5cDSML\uff5c"
_HEADER = re.compile(r"[^<>\n]*")
_ATTRIBUTE = re.compile(r'(\w+)\s*=\s*"([^"]*)"')
_STRINGS = {"true": frozenset({"string"}), "false": TYPES - {"string"}}


def _tags(prefix: str, block: str) -> Tags:
    return Tags(
        call=f"<{prefix}invoke",
        call_end=f"</{prefix}invoke>",
        argument=f"<{prefix}parameter",
        argument_end=f"</{prefix}parameter>",
        block_end=f"</{block}>",
    )


def _family(
    name: str,
    prefix: str,
    block: str,
    knows: Callable[[str], bool],
    *,
    types: dict[str, str] | None = None,
) -> Family:
    tags = _tags(prefix, block)

    def read_invoke(source: Source, attempt: CallAttempt) -> Reading[None]:
        attributes = yield from _attributes(source)
        yield from source.run(SPACE)
        call = TaggedCall(source, attempt, tags, attributes.get("name", ""))
        while (yield from source.skip(tags.argument)):
            attributes = yield from _attributes(source)
            yield from call.argument(attributes.get("name", ""), _STRINGS.get(attributes.get("string", "")))
        yield from call.end()

    read = block_of(read_invoke, call=tags.call, end=tags.block_end)
    marked = ' string="{type}"' if types else ""
    form = CallForm(
        begin=f"<{block}>\n",
        before=f'{tags.call} name="{{name}}">\n',
        argument=ArgumentForm(
            before=f'{tags.argument} name="{{name}}"{marked}>', after=f"{tags.argument_end}\n", types=types or {}
        ),
        after=f"{tags.call_end}\n",
        separator="",
        end=tags.block_end,
        trigger=f"<{block}>",
    )
    return Family(
        name=name,
        openings=(Opening((f"<{block}>",), read), Opening((tags.call,), read, consumed=False)),
        knows=knows,
        forms=(form,),
    )


def _attributes(source: Source) -> Reading[dict[str, str]]:
    header = yield from source.run(_HEADER)
    yield from source.expect(">")
    found = dict(_ATTRIBUTE.findall(header))
    if "name" not in found:
        found["name"] = header.rpartition("=")[2].strip().strip("\"'")
    return found


MINIMAX = _family("minimax", "", "minimax:tool_call", template_has("<minimax:tool_call>"))
MUSE = _family("muse", "atem:", "atem:function_calls", template_has("<atem:function_calls>"))
_DSML_TYPES = {"string": "true", "": "false"}
DEEPSEEK_V32 = _family(
    "deepseek_v32",
    DSML,
    f"{DSML}function_calls",
    template_has(DSML, "function_calls"),
    types=_DSML_TYPES,
)
DEEPSEEK_V4 = _family(
    "deepseek_v4",
    DSML,
    f"{DSML}tool_calls",
    template_has(DSML, but=("function_calls",)),
    types=_DSML_TYPES,
)
FAMILIES = (MINIMAX, DEEPSEEK_V32, DEEPSEEK_V4)
