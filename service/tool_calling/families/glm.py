"""GLM 4.5 to 4.7: the name, then keys and values as tags, in `<tool_call>`. 4.7 leaves out the line breaks."""

import re

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening
from service.tool_calling.form import ArgumentForm, CallForm
from service.tool_calling.source import SPACE, Malformed, Reading, Source
from service.tool_calling.tagged import TaggedCall, Tags

KEY_END, VALUE = "</arg_key>", "<arg_value>"
TAGS = Tags(call="<tool_call>", call_end="</tool_call>", argument="<arg_key>", argument_end="</arg_value>")
_NAME = re.compile(r"[^<\s]*")
_KEY = re.compile(r"[^<\n]*")


def read(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from source.run(SPACE)
    name = yield from source.run(_NAME)
    if not (yield from source.peek()) and not any(tool.startswith(name) for tool in attempt.tools):
        raise Malformed  # a text that ends with talk about the tag
    yield from source.run(SPACE)
    if not name or not (yield from source.which((TAGS.argument, TAGS.call_end))):
        yield from source.refuse()
    call = TaggedCall(source, attempt, TAGS, name)
    while (yield from source.skip(TAGS.argument)):
        key = (yield from source.run(_KEY)).strip()
        yield from source.expect(KEY_END)
        yield from source.run(SPACE)
        yield from source.expect(VALUE)
        yield from call.argument(key)
    yield from call.end()


def knows(template: str) -> bool:
    return TAGS.argument in template and VALUE in template


FORM = CallForm(
    before=f"{TAGS.call}{{name}}\n",
    argument=ArgumentForm(before=f"{TAGS.argument}{{name}}{KEY_END}\n{VALUE}", after=f"{TAGS.argument_end}\n"),
    after=TAGS.call_end,
    trigger=TAGS.call,
)
FAMILY = Family(name="glm", openings=(Opening((TAGS.call,), read),), knows=knows, forms=(FORM,))
