"""Apertus: a JSON list of objects, each with the tool's name as its only key, between two markers."""

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, template_has
from service.tool_calling.form import CallForm
from service.tool_calling.json_calls import read_end
from service.tool_calling.json_reader import JsonReader, ignore
from service.tool_calling.source import SPACE, Malformed, Reading, Source

OPEN, CLOSE = "<|tools_prefix|>", "<|tools_suffix|>"


def read(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from source.run(SPACE)
    reader = JsonReader(source, attempt.repaired, (CLOSE,))
    yield from reader.open(ignore, "[")
    while (yield from reader.more(ignore)):
        attempt.begin()
        yield from reader.open(ignore, "{")
        if not (yield from reader.more(ignore)):
            raise Malformed
        name = yield from reader.key_text()
        if (yield from source.peek()) != "{":
            yield from source.refuse()
        attempt.start(name)
        yield from reader.value(attempt.write)
        if (yield from reader.more(ignore)):
            raise Malformed
        attempt.end()
    attempt.absorb()
    yield from read_end(source, attempt, CLOSE)


FORM = CallForm(begin=f"{OPEN}[", before='{"{name}": ', after="}", separator=", ", end=f"]{CLOSE}", trigger=OPEN)
FAMILY = Family(name="apertus", openings=(Opening((OPEN,), read),), knows=template_has(OPEN), forms=(FORM,))
