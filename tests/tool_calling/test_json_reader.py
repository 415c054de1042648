"""The tolerant JSON reader: what is valid passes untouched, what is unambiguous is repaired, all else is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.tool_calling.json_reader import MAX_DEPTH, repair
from service.tool_calling.python_reader import PythonReader
from tests.examples import examples

VALID = [
    "0", "-0", "1.50", "1E+5", "123456789012345678901234567890", "true", "false", "null", '""', r'"\u00e9\ud83d\/\n"',
    '"é😀\u2028"', "[]", "{}", "[ ]", "{ }", '[1, [2, {"a": []}]]', '{"a" : 1 ,\n\t"b":{"c":"}"}}', " 1 ",
]  # fmt: skip
REPAIRED = [
    ("[1,]", "[1]"),
    ('{"a": 1, }', '{"a": 1 }'),
    ("'a'", '"a"'),
    ("""'a "b" \\' c'""", '''"a \\"b\\" ' c"'''),
    ('"a\nb\x01"', '"a\\nb\\u0001"'),
    (r'"\d \x41 \u12 \'"', r'''"\\d \\x41 \\u12 '"'''),
    ('"a\\\nb"', '"a\\\\\\nb"'),
    ("[True, False, None]", "[true, false, null]"),
    ("{a: 1, b-c: 2}", '{"a": 1, "b-c": 2}'),
    ('{"a": [1, "b"', '{"a": [1, "b"]}'),
    ('{"a": [1, 2}', '{"a": [1, 2]}'),
    ('{"a": {"b": true', '{"a": {"b": true}}'),
]
REFUSED = [
    "", " ", "{", "[", '{"a"', '{"a":', '{"a": 1', '{"a": 1,', "[1", "[1,", '"a', '"a\\', '"a\\u1', "'a", "tru", "nul",
    "a", "01", "1.", ".5", "+1", "1e", "--1", "[1 2]", '{"a" 1}', '{"a": 1 "b": 2}', '{"a": "b"c"}', "[,]", "{,}",
    "NaN", "Infinity", "undefined", "{1, 2}", "[1]]", "{} {}", "1 2", "<a>", "[" * (MAX_DEPTH + 1),
]  # fmt: skip


@pytest.mark.parametrize("text", VALID)
def test_valid_json_passes_untouched(text: str) -> None:
    assert repair(text) == text.strip(" ")


@pytest.mark.parametrize(("text", "expected"), REPAIRED)
def test_what_has_one_reading_is_repaired(text: str, expected: str) -> None:
    assert repair(text) == expected
    json.loads(expected)


@pytest.mark.parametrize("text", REFUSED)
def test_what_has_none_or_several_is_refused(text: str) -> None:
    assert repair(text) is None


def test_depth_has_a_bound_and_does_not_recurse() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert repair(deep) == deep
    assert repair("[" * 100_000) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@examples(100)
@given(value=json_values, indent=st.sampled_from([None, 2]), ascii_only=st.booleans())
def test_every_json_text_passes_untouched(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert repair(text) == text


@examples(100)
@given(text=st.text("{}[]()\"':,\\ntrue1.e-\n ", max_size=30))
def test_what_comes_out_is_json(text: str) -> None:
    found = repair(text)
    if found is not None:
        json.loads(found)


PYTHON = [
    ("'it\\'s'", "it's"),
    ('"\\x41\\u00e9\\101\\0\\N{BULLET}\\q\\\\"', "AéA\0•\\q\\"),
    ("'a\\\nb'", "ab"),
    ('"""a "b"\n"""', 'a "b"\n'),
    ("''", ""),
    ("''''''", ""),
    ("(1, 'a', (),)", [1, "a", []]),
    ("(1,)", [1]),
    ("{'a': True, 'b': None, 'c': {}}", {"a": True, "b": None, "c": {}}),
    ("[1_000, 0x1f, -0b11, 0o17, 1., .5, -2.e3]", [1000, 31, -3, 15, 1.0, 0.5, -2000.0]),
]


@pytest.mark.parametrize(("text", "value"), PYTHON)
def test_python_literals_become_json(text: str, value: Any) -> None:
    found = repair(text, PythonReader)
    assert found is not None
    assert json.loads(found) == value


def test_a_python_integer_of_any_length_keeps_its_digits() -> None:
    text = f"[{'9' * 5000}]"
    assert repair(text, PythonReader) == text


@pytest.mark.parametrize(
    "text",
    [
        "(1)",
        "f(1)",
        "1+1",
        "r'a'",
        "1j",
        "0x",
        "lambda: 0",
        "[0b9]",
        "[00.5]",
        "[.]",
        "[(1)]",
        "'\\N{NO SUCH}'",
        "'\\xg1'",
        "'\\U00110000'",
    ],
)
def test_what_is_no_literal_is_refused(text: str) -> None:
    assert repair(text, PythonReader) is None


@examples(100)
@given(value=json_values)
def test_every_python_literal_is_read(value: Any) -> None:
    found = repair(f"[{value!r}]", PythonReader)
    assert found is not None
    assert json.loads(found) == [value]
