"""Mistral: `[TOOL_CALLS]`, then a JSON list (tokenizers up to v7), or `name[ARGS]{...}` for each call (from v11)."""

import re

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, template_has
from service.tool_calling.form import CallForm
from service.tool_calling.json_calls import read_arguments, read_calls
from service.tool_calling.source import SPACE, Reading, Source

OPEN, CALL_ID, ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_NAME = re.compile(r"[A-Za-z0-9_.-]*")


def read(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from source.run(SPACE)
    if (yield from source.peek()) in ("[", "{"):
        yield from read_calls(source, attempt, OPEN)
    else:
        yield from _read_named(source, attempt)


def _read_named(source: Source, attempt: CallAttempt) -> Reading[None]:
    name = yield from source.run(_NAME)
    if not name:
        yield from source.refuse()
    if (yield from source.skip(CALL_ID)):
        yield from source.run(_NAME)
    yield from source.skip(ARGUMENTS)  # lost where special tokens are not part of the text
    yield from source.run(SPACE)
    yield from read_arguments(source, attempt, name, OPEN)


FORMS = (
    CallForm(before=f"{OPEN}{{name}}{ARGUMENTS}", separator="", trigger=OPEN),
    CallForm(
        begin=f"{OPEN}[", before='{"name": "{name}", "arguments": ', after="}", separator=", ", end="]", trigger=OPEN
    ),
)
FAMILY = Family(name="mistral", openings=(Opening((OPEN,), read),), knows=template_has(OPEN), forms=FORMS)
