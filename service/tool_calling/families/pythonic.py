"""Llama 3.2 and 4, ToolACE (bare) and LFM2 (between markers): a Python list of calls, `[f(a=1), g()]`. OLMo 3 writes
each call on a line, without the list."""

import re

from service.tool_calling.calls import CallAttempt
from service.tool_calling.family import Family, Opening, template_has
from service.tool_calling.form import ArgumentForm, CallForm
from service.tool_calling.json_calls import read_calls, read_end
from service.tool_calling.python_calls import read_keywords
from service.tool_calling.source import SPACE, Reading, Source

OPENS = ("<|tool_call_start|>", "<|python_start|>")
CLOSES = ("<|tool_call_end|>", "<|python_end|>")
LINES, LINES_END = "<function_calls>", "</function_calls>"
_NAME = re.compile(r"[\w.-]*")


def read_marked(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from source.run(SPACE)
    yield from _read_list(source, attempt, bare=False)
    yield from read_end(source, attempt, *CLOSES)


def read_marked_json(source: Source, attempt: CallAttempt) -> Reading[None]:
    """LFM2 writes JSON between its markers if asked to."""
    yield from read_calls(source, attempt, *CLOSES)
    yield from read_end(source, attempt, *CLOSES)


def read_lines(source: Source, attempt: CallAttempt) -> Reading[None]:
    while True:
        attempt.begin()
        yield from source.run(SPACE)
        yield from _read_call(source, attempt, bare=False)
        yield from source.run(SPACE)
        if not _NAME.fullmatch((yield from source.peek()) or "<"):
            break
    yield from read_end(source, attempt, LINES_END)


def read_bare(source: Source, attempt: CallAttempt) -> Reading[None]:
    yield from _read_list(source, attempt, bare=True)


def _read_list(source: Source, attempt: CallAttempt, *, bare: bool) -> Reading[None]:
    in_list = yield from source.skip("[")
    while True:
        attempt.begin()
        yield from source.run(SPACE)
        yield from _read_call(source, attempt, bare=bare)
        yield from source.run(SPACE)
        comma = yield from source.skip(",")
        yield from source.run(SPACE)
        closed = in_list and (yield from source.skip("]"))
        if closed or comma:
            attempt.absorb()
        if closed or not (in_list and comma):
            return


def _read_call(source: Source, attempt: CallAttempt, *, bare: bool) -> Reading[None]:
    name = yield from source.run(_NAME)
    if bare and name not in attempt.tools:
        yield from source.refuse()
    yield from read_keywords(source, attempt, name)


OPENINGS = (
    Opening(OPENS, read_marked),
    Opening(OPENS, read_marked_json),
    Opening(("[",), read_bare, "line", consumed=False),
)


def _form(begin: str, end: str, *, separator: str, trigger: str) -> CallForm:
    return CallForm(
        begin=begin,
        before="{name}(",
        argument=ArgumentForm(before="{name}=", separator=", ", values="json"),
        after=")",
        separator=separator,
        end=end,
        trigger=trigger,
    )


def _family(name: str, evidence: tuple[str, ...], begin: str = "", end: str = "") -> Family:
    return Family(
        name=name,
        openings=OPENINGS,
        knows=lambda template: any(marker in template for marker in evidence),
        forms=(_form(f"{begin}[", f"]{end}", separator=", ", trigger=begin),),
    )


PYTHONIC = _family("pythonic", ("<|python_start|>", "[func_name1("))
LFM2 = _family("lfm2", (OPENS[0], "<|tool_list_start|>"), OPENS[0], CLOSES[0])
OLMO3 = Family(
    name="olmo3",
    openings=(Opening((LINES,), read_lines),),
    knows=template_has(LINES),
    forms=(_form(LINES, LINES_END, separator="\n", trigger=LINES),),
)
FAMILIES = (PYTHONIC, LFM2, OLMO3)
