import pytest

from service.dialects import sse


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (sse.frame(b'{"a": 1}'), b'data: {"a": 1}\n\n'),
        (sse.frame("é\u2028".encode()), "data: é\u2028\n\n".encode()),
        (sse.named_frame("message_stop", b"{}"), b"event: message_stop\ndata: {}\n\n"),
    ],
)
def test_frames(sent: bytes, expected: bytes) -> None:
    assert sent == expected


def test_keep_alive_is_a_comment_that_carries_no_event() -> None:
    assert sse.KEEP_ALIVE.startswith(b":")
    assert sse.KEEP_ALIVE.endswith(b"\n\n")
    assert b"data" not in sse.KEEP_ALIVE
