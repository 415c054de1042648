"""Families that write the name, then keys and values as tags: one reader with a table.

GLM 4.5 to 4.7 (4.7 leaves out the line breaks), and others that write as GLM; LongCat Flash Lite; Hunyuan.
"""

import re
from collections.abc import Callable

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, Reader, block_of, template_has
from service.tool_calling.form import ArgumentForm, CallForm
from service.tool_calling.source import SPACE, Malformed, Reading, Source
from service.tool_calling.tagged import TaggedCall, Tags

_NAME = re.compile(r"[^<\s]*")
_KEY = re.compile(r"[^<\n]*")


def _tags(prefix: str = "", suffix: str = "", name_end: str = "") -> Tags:
    """`name_end` follows the name."""
    return Tags(
        call=f"<{prefix}tool_call{suffix}>",
        call_end=f"</{prefix}tool_call{suffix}>",
        argument=f"<{prefix}arg_key{suffix}>",
        argument_end=f"</{prefix}arg_value{suffix}>",
        header_end=name_end,
    )


def _reader(tags: Tags) -> Reader:
    key_end, value = _key_end_and_value(tags)

    def read(source: Source, attempt: CallAttempt) -> Reading[None]:
        yield from source.run(SPACE)
        name = yield from source.run(_NAME)
        if not (yield from source.peek()) and not any(tool.startswith(name) for tool in attempt.tools):
            raise Malformed  # a text that ends with talk about the tag
        yield from source.skip(tags.header_end)
        yield from source.run(SPACE)
        if not name or not (yield from source.which((tags.argument, tags.call_end))):
            yield from source.refuse()
        call = TaggedCall(source, attempt, tags, name)
        while (yield from source.skip(tags.argument)):
            key = (yield from source.run(_KEY)).strip()
            yield from source.expect(key_end)
            yield from source.run(SPACE)
            yield from source.expect(value)
            yield from call.argument(key)
        yield from call.end()

    return read


def _key_end_and_value(tags: Tags) -> tuple[str, str]:
    return tags.argument.replace("<", "</"), tags.argument_end.replace("</", "<")


def _family(name: str, tags: Tags, knows: Callable[[str], bool], *, block: tuple[str, str] = ("", "")) -> Family:
    """The two markers of `block` surround all calls."""
    key_end, value = _key_end_and_value(tags)
    begin, end = block
    read_call = _reader(tags)
    form = CallForm(
        begin=f"{begin}\n" if begin else "",
        before=f"{tags.call}{{name}}{tags.header_end}\n",
        argument=ArgumentForm(before=f"{tags.argument}{{name}}{key_end}\n{value}", after=f"{tags.argument_end}\n"),
        after=tags.call_end,
        end=f"\n{end}" if end else "",
        trigger=begin or tags.call,
    )
    blocks = (Opening((begin,), block_of(read_call, call=tags.call, end=end)),) if begin else ()
    return Family(name=name, openings=(*blocks, Opening((tags.call,), read_call)), knows=knows, forms=(form,))


GLM = _family("glm", _tags(), template_has("<arg_key>", "<arg_value>"))
LONGCAT = _family("longcat", _tags("longcat_"), template_has("longcat_arg_key"))
_HY = ":opensource"
HUNYUAN = _family(
    "hunyuan",
    _tags(suffix=_HY, name_end=f"<tool_sep{_HY}>"),
    template_has("hy_eos", "<arg_key"),
    block=(f"<tool_calls{_HY}>", f"</tool_calls{_HY}>"),
)
FAMILIES = (GLM, LONGCAT, HUNYUAN)
