import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.dialects import json_body
from service.errors import BadRequest, InvalidJson, InvalidType, MissingParameter


class Line(msgspec.Struct):
    role: Literal["user", "system"]
    content: str | list[str] | None = None


class Body(msgspec.Struct):
    lines: Annotated[list[Line], msgspec.Meta(min_length=1)]
    heat: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    schema: dict[str, Any] = {}
    bias: dict[str, Annotated[float, msgspec.Meta(ge=-1, le=1)]] = {}


DECODER = msgspec.json.Decoder(Body)


def body(fields: str) -> bytes:
    return b'{"lines": [{"role": "user"}], %b}' % fields.encode()


BAD = [
    (b"", InvalidJson, None, "ends too early"),
    (b'{"lines": [', InvalidJson, None, "ends too early"),
    (b'{"lines": [}', InvalidJson, None, "invalid character"),
    (b"[]", InvalidType, None, "the body: expected object, found array"),
    (b"7", InvalidType, None, "expected object, found integer"),
    (b"null", InvalidType, None, "expected object, found null"),
    (b"{}", MissingParameter, "lines", "'lines'"),
    (b'{"lines": [{}]}', MissingParameter, "lines[0].role", "'lines[0].role'"),
    (b'{"lines": []}', BadRequest, "lines", "length >= 1, found []"),
    (b'{"lines": [{"role": "no - at `$.x`"}]}', BadRequest, "lines[0].role", 'found "no - at'),
    (b'{"lines": [{"role": "user", "content": 5}]}', InvalidType, "lines[0].content", "string or array or null, found"),
    (body('"heat": 3'), BadRequest, "heat", "expected number <= 2.0, found 3"),
    (body('"heat": 3, "schema": {"x": 1e999}'), BadRequest, "heat", "<= 2.0."),
    (body('"heat": 1e999'), BadRequest, "heat", "out of range"),
    (body('"heat": ' + "9" * 400), BadRequest, "heat", "out of range"),
    (body('"heat": NaN'), InvalidJson, None, "invalid character"),
    (body('"count": true'), InvalidType, "count", "expected integer, found boolean"),
    (body('"count": ' + "9" * 400), BadRequest, "count", "expected integer <= 8, found 999"),
    (body('"count": ' + "9" * 5000), BadRequest, "count", "out of range"),
    (body('"schema": {"x": ' + "9" * 5000 + "}"), BadRequest, "schema", "out of range"),
    (body('"bias": {"1": 7}'), BadRequest, "bias", "expected number <= 1.0"),
    (body('"schema": ' + '{"a":' * 5000), InvalidJson, None, "too deep"),
    (body('"unknown": ' + "[" * 100_000), InvalidJson, None, "too deep"),
    (b'{"lines": [{"role": "user", "content": "\\ud800"}]}', InvalidJson, "lines[0].content", "surrogate"),
    (b'{"lines": [{"role": "user", "content": ["", "\\udc00 x"]}]}', InvalidJson, "lines[0].content[1]", "surrogate"),
    (body('"schema": {"\\ud800": 1}'), InvalidJson, "schema", "surrogate"),
    (b'{"lines": [{"role": "user", "content": "\xff"}]}', InvalidJson, "lines[0].content", "UTF-8"),
    (b'"\xff"', InvalidType, None, "expected object, found string"),
    (b"\xff", InvalidJson, None, "invalid character"),
    (b'{"lines": [{"role": "user", "content": "\xff' + b"x" * 2_000_000 + b'"}]}', InvalidJson, None, "UTF-8"),
]


@pytest.mark.parametrize(("sent", "error", "param", "words"), BAD, ids=[str(sent[:60]) for sent, *_ in BAD])
def test_what_is_wrong_is_named(sent: bytes, error: type[BadRequest], param: str | None, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        json_body.decode(DECODER, sent)
    assert type(caught.value) is error
    assert caught.value.param == param
    assert words in caught.value.message
    assert len(caught.value.message) < 300


def test_a_part_of_a_body_is_named_from_the_top() -> None:
    with pytest.raises(InvalidType) as caught:
        json_body.decode(msgspec.json.Decoder(list[Line]), b'[{"role": 1}]', at="tools")
    assert caught.value.param == "tools[0].role"
    with pytest.raises(InvalidJson) as broken:
        json_body.decode(msgspec.json.Decoder(list[Line]), b'[{"role": "\xff"}]', at="tools")
    assert broken.value.param == "tools[0].role"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"lines":[{"role":"user","content":"\\ud83d\\ude00"}]}')
def test_whatever_is_sent_is_decoded_or_refused(sent: bytes) -> None:
    try:
        decoded = json_body.decode(DECODER, sent)
    except BadRequest as refused:
        refused.message.encode()
    else:
        msgspec.json.encode(decoded)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_is_bounded_exactly(opening: str) -> None:
    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value] if opening == "[" else {"a": value}
        return value

    json_body.check_free_form(nested(json_body.MAX_DEPTH), "schema")
    with pytest.raises(BadRequest, match="64 levels") as caught:
        json_body.check_free_form(nested(json_body.MAX_DEPTH + 1), "schema")
    assert caught.value.param == "schema"


def test_parts_are_joined_by_lines() -> None:
    assert json_body.join_texts(["a", "b\n", "c"]) == "a\nb\n\nc"


@pytest.mark.parametrize(("value", "shown"), [({"a": [1]}, '{"a":[1]}'), ("x" * 200, '"' + "x" * 99 + "...")])
def test_values_are_shown_short(value: Any, shown: str) -> None:
    assert json_body.show(value) == shown


def test_free_form_json_has_a_bounded_number_of_values() -> None:
    json_body.check_free_form({"enum": [[]] * 90_000}, "schema")
    with pytest.raises(BadRequest, match="'schema' is too large: expected at most 100000 values"):
        json_body.check_free_form({"enum": [[]] * 110_000}, "schema")
