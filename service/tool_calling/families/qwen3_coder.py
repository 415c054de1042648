"""Qwen3-Coder, Nemotron 3, Step and Seed-OSS: functions and parameters as tags, usually in a wrapper."""

import re
from collections.abc import Callable

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, Reader, block_of, template_has
from service.tool_calling.form import ArgumentForm, CallForm
from service.tool_calling.source import SPACE, Reading, Source
from service.tool_calling.tagged import TaggedCall, Tags

FUNCTION, PARAMETER = "<function=", "<parameter="
_NAME = re.compile(r"[^<>\n]*")


def _tags(block_end: str, *, own_line: bool) -> Tags:
    return Tags(
        call=FUNCTION,
        call_end="</function>",
        argument=PARAMETER,
        argument_end="</parameter>",
        own_line=own_line,
        block_end=block_end,
    )


def _reader(tags: Tags) -> Reader:
    def read_function(source: Source, attempt: CallAttempt) -> Reading[None]:
        name = (yield from source.run(_NAME)).strip()
        yield from source.expect(">")
        yield from source.run(SPACE)
        if not (yield from source.which(tags.after_argument)):
            yield from source.refuse()
        call = TaggedCall(source, attempt, tags, name)
        while (yield from source.skip(tags.argument)):
            parameter = (yield from source.run(_NAME)).strip()
            yield from source.expect(">")
            yield from call.argument(parameter)
        yield from call.end()

    return block_of(read_function, call=tags.call, end=tags.block_end)


def _family(name: str, wrapper: str, knows: Callable[[str], bool], *, own_line: bool) -> Family:
    tags = _tags(f"</{wrapper}>", own_line=own_line)
    line = "\n" if own_line else ""
    form = CallForm(
        before=f"<{wrapper}>\n{tags.call}{{name}}>\n",
        argument=ArgumentForm(before=f"{tags.argument}{{name}}>{line}", after=f"{line}{tags.argument_end}\n"),
        after=f"{tags.call_end}\n{tags.block_end}",
        trigger=f"<{wrapper}>",
    )
    read = _reader(tags)
    return Family(
        name=name,
        openings=(Opening((f"<{wrapper}>",), read), Opening((tags.call,), read, consumed=False)),
        knows=knows,
        forms=(form,),
    )


QWEN3_CODER = _family(
    "qwen3_coder",
    "tool_call",
    template_has(FUNCTION, PARAMETER, but=("<seed:tool_call>",)),
    own_line=True,
)
SEED_OSS = _family("seed_oss", "seed:tool_call", template_has("<seed:tool_call>"), own_line=False)
FAMILIES = (QWEN3_CODER, SEED_OSS)
