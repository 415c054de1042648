"""Reading a body, message by message."""

import tracemalloc
from pathlib import Path

import pytest
from starlette.datastructures import Headers
from starlette.types import Message, Receive

from service.errors import BadRequest, BodyTooLarge
from service.http.body import ClientGone, read_body
from tests.serving import settings

MANY = 200_000


def receiving(*messages: Message) -> Receive:
    coming = iter(messages)

    async def receive() -> Message:
        return next(coming)

    return receive


def piece(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_pieces_are_put_together(tmp_path: Path) -> None:
    receive = receiving(piece(b'{"a"'), {"type": "http.request", "more_body": True}, piece(b": 1}", more=False))
    assert await read_body(receive, Headers({}), settings(tmp_path)) == b'{"a": 1}'


async def test_who_leaves_is_not_answered(tmp_path: Path) -> None:
    with pytest.raises(ClientGone):
        await read_body(receiving(piece(b"{"), {"type": "http.disconnect"}), Headers({}), settings(tmp_path))


@pytest.mark.parametrize(
    ("declared", "error"),
    [("11", BodyTooLarge), ("9" * 30, BodyTooLarge), ("-1", BadRequest), ("1e1", BadRequest), ("\u0661", BadRequest)],
)
async def test_a_declared_length_is_believed_before_anything_is_read(
    tmp_path: Path, declared: str, error: type[Exception]
) -> None:
    headers = Headers(raw=[(b"content-length", declared.encode())])
    with pytest.raises(error):
        await read_body(receiving(), headers, settings(tmp_path, max_body_bytes=10))


async def test_small_pieces_cost_no_more_than_their_bytes(tmp_path: Path) -> None:
    """A body may come in chunks of a few bytes, each of which would be an object ten times as large."""
    sent = 0

    async def receive() -> Message:
        nonlocal sent
        sent += 1
        return piece(sent.to_bytes(3, "big"), more=sent < MANY)

    tracemalloc.start()
    try:
        body = await read_body(receive, Headers({}), settings(tmp_path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(body) == 3 * MANY
    assert peak < 4 * len(body)
