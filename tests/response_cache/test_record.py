"""What lies under a key comes back as it was, or not at all."""

import zlib

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from service.generation import Choice, Completion, Reasoning, Text, TokenLogprob, ToolCall, TopLogprob, Usage
from service.response_cache.record import RECORD_VERSION, AnswerRecord, decode_record, encode_record
from tests.response_cache.answers import text

KEY = "a" * 64

FULL = Completion(
    choices=(
        Choice(
            parts=(
                Reasoning("hm \u4e2d"),
                Text("\U0001f600"),
                ToolCall("id", "name", '{"a": 1}'),
                ToolCall("b", "c", "{}"),
            ),
            finish_reason="tool_calls",
            logprobs=(TokenLogprob("\ufffd", b"\xf0\x9f", -0.25, (TopLogprob("x", b"\x00", -3.5),)),),
        ),
        Choice(parts=(Text("stopped"),), finish_reason="stop", stop_sequence="\n"),
    ),
    usage=Usage(prompt_tokens=7, completion_tokens=5, cached_tokens=3, prefix_stored_tokens=4, reasoning_tokens=1),
)


def test_a_record_comes_back_as_it_was() -> None:
    record = AnswerRecord(KEY, 1234567890.25, FULL)
    assert decode_record(encode_record(record), KEY) == record


@settings(deadline=None)
@given(st.text(), st.floats(min_value=0, max_value=253_402_300_799))
def test_any_text_comes_back(content: str, stored_at: float) -> None:
    try:
        content.encode()
    except UnicodeEncodeError:
        return
    record = AnswerRecord(KEY, stored_at, text(content))
    assert decode_record(encode_record(record), KEY) == record


def test_every_flipped_bit_is_noticed() -> None:
    data = encode_record(AnswerRecord(KEY, 1.0, text("a")))
    for index in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[index // 8] ^= 1 << index % 8
        assert decode_record(bytes(damaged), KEY) is None


def test_a_record_of_another_key_is_none() -> None:
    data = encode_record(AnswerRecord(KEY, 1.0, FULL))
    assert decode_record(data, "b" + KEY[1:]) is None


def test_every_truncation_is_noticed() -> None:
    data = encode_record(AnswerRecord(KEY, 1.0, FULL))
    assert [length for length in range(len(data)) if decode_record(data[:length], KEY) is not None] == []
    assert decode_record(data + b"\0", KEY) is None


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_none(data: bytes) -> None:
    assert decode_record(data, KEY) is None


def with_header(payload: bytes, version: int = RECORD_VERSION) -> bytes:
    return bytes([version]) + zlib.crc32(payload).to_bytes(4) + payload


@pytest.mark.parametrize("version", [0, RECORD_VERSION + 1, 255])
def test_another_version_is_none(version: int) -> None:
    payload = msgspec.msgpack.encode(AnswerRecord(KEY, 1.0, text()))
    assert decode_record(with_header(payload), KEY) is not None
    assert decode_record(with_header(payload, version), KEY) is None


@pytest.mark.parametrize(
    "content",
    [
        None,
        [KEY, 1.0],
        [KEY, 1.0, {"choices": []}],
        [KEY, "yesterday", {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}],
        [KEY, 1e308, {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}],
        [KEY, -1.0, {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}],
        [1.0, {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}],
        [KEY, 1.0, {"choices": [{"parts": [{"type": "other"}], "finish_reason": "stop"}], "usage": {}}],
    ],
)
def test_another_shape_is_none(content: object) -> None:
    assert decode_record(with_header(msgspec.msgpack.encode(content)), KEY) is None


def test_bad_utf8_is_none() -> None:
    payload = msgspec.msgpack.encode(AnswerRecord(KEY, 1.0, text("abc"))).replace(b"abc", b"\xff\xfe\xfd")
    assert decode_record(with_header(payload), KEY) is None
