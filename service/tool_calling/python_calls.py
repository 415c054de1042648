"""Reads calls with keyword arguments, as in Python: `f(a=1, b="x")`."""

import re

from service.tool_calling.calls import CallAttempt
from service.tool_calling.python_reader import PythonReader
from service.tool_calling.source import SPACE, Reading, Source

_KEYWORD = re.compile(r"\w*")


def read_keywords(source: Source, attempt: CallAttempt, name: str) -> Reading[None]:
    """Starts at the opening bracket."""
    yield from source.expect("(")
    yield from source.run(SPACE)
    keyword = yield from _keyword(source)
    if not keyword and (yield from source.peek()) != ")":
        yield from source.refuse()
    attempt.start(name)
    reader = PythonReader(source)
    opening = "{"
    while keyword:
        attempt.write(f'{opening}"{keyword}": ')
        opening = ", "
        yield from reader.value(attempt.write)
        yield from source.run(SPACE)
        comma = yield from source.skip(",")
        yield from source.run(SPACE)
        keyword = (yield from _keyword(source)) if comma else ""
    yield from source.expect(")")
    attempt.write("{}" if opening == "{" else "}")
    attempt.end()


def _keyword(source: Source) -> Reading[str]:
    """Includes its equals sign; empty if there is no argument."""
    keyword = yield from source.run(_KEYWORD)
    yield from source.run(SPACE)
    if keyword:
        yield from source.expect("=")
        yield from source.run(SPACE)
    return keyword
