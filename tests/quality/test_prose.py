"""Docstrings are whole sentences, and there are not too many of them."""

import re

import pytest

from tests.quality.bounds import DOCSTRING_WORDS_PER_100_LINES, FRAGMENTS
from tests.quality.source import WRITTEN, source_files

# First words of docstrings that are no sentences, and those that are none if no comma and verb follow.
FRAGMENT = re.compile(
    r"(Also|As|Behind|Beside|Besides|Nothing|Of|Only|Says|So|Tells|Than|Told|Until|What|Where|Who|Whom|Whose|Within)\b"
    r"|(At|For|In|Since)( [^\s.,:;]+){1,7}[.:;](\s|$)"
)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("Of the engine.", True),
        ("As far as it fits.", True),
        ("In seconds; 0 if it is new.", True),
        ("For everything but connections.", True),
        ("At most `places.number` sequences run, fewer if memory is short.", False),
        ("In XML-like formats a value is text, and its type comes from the schema.", False),
        ("Offers are counted.", False),
        ("Returns seconds.", False),
    ],
)
def test_fragments_are_found(text: str, fragment: bool) -> None:
    assert bool(FRAGMENT.match(text)) == fragment


def test_docstrings_are_not_fragments() -> None:
    found = [
        f"{file.place}:{node.lineno}: {' '.join(text.split())[:60]}"
        for file in source_files(*WRITTEN)
        for node, text in file.docstrings()
        if FRAGMENT.match(text.strip())
    ]
    assert len(found) <= FRAGMENTS, "Write a sentence with a subject and a verb, or delete:\n" + "\n".join(found)


@pytest.mark.parametrize("package", DOCSTRING_WORDS_PER_100_LINES)
def test_docstrings_are_short(package: str) -> None:
    files = source_files(package)
    words = sum(len(text.split()) for file in files for _, text in file.docstrings())
    lines = sum(file.code_lines() for file in files)
    assert 100 * words / lines <= DOCSTRING_WORDS_PER_100_LINES[package], "docstring words per 100 lines of code"
