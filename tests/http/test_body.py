"""Reading a body, message by message."""

import asyncio
import tracemalloc
from pathlib import Path

import pytest
from starlette.types import Message, Receive

from service.errors import BadRequest, BodyTooLarge, Overloaded
from service.http.body import LARGEST_AT_ONCE, BodyReader
from service.http.client_watch import ClientGone
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
    assert await BodyReader(settings(tmp_path)).read(receive, {}) == b'{"a": 1}'


async def test_who_leaves_is_not_answered(tmp_path: Path) -> None:
    with pytest.raises(ClientGone):
        await BodyReader(settings(tmp_path)).read(receiving(piece(b"{"), {"type": "http.disconnect"}), {})


@pytest.mark.parametrize(
    ("declared", "error"),
    [("11", BodyTooLarge), ("9" * 30, BodyTooLarge), ("-1", BadRequest), ("1e1", BadRequest), ("\u0661", BadRequest)],
)
async def test_a_declared_length_is_believed_before_anything_is_read(
    tmp_path: Path, declared: str, error: type[Exception]
) -> None:
    reader = BodyReader(settings(tmp_path, max_body_bytes=10))
    with pytest.raises(error):
        await reader.read(receiving(), {b"content-length": declared.encode()})


async def test_small_pieces_cost_no_more_than_their_bytes(tmp_path: Path) -> None:
    """A body may come in chunks of a few bytes, each of which would be an object ten times as large."""
    sent = 0

    async def receive() -> Message:
        nonlocal sent
        sent += 1
        return piece(sent.to_bytes(3, "big"), more=sent < MANY)

    tracemalloc.start()
    try:
        body = await BodyReader(settings(tmp_path)).read(receive, {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(body) == 3 * MANY
    assert peak < 4 * len(body)


async def test_many_large_bodies_at_once_are_refused_before_memory_is(tmp_path: Path) -> None:
    reader = BodyReader(settings(tmp_path, max_body_bytes=1000))
    arrived = asyncio.Event()

    def first_all_but_the_end() -> Receive:
        pieces = iter([piece(b"x" * 1000)])

        async def receive() -> Message:
            message = next(pieces, None)
            if message is None:
                await arrived.wait()
                return piece(b"", more=False)
            return message

        return receive

    readings = [asyncio.create_task(reader.read(first_all_but_the_end(), {})) for _ in range(LARGEST_AT_ONCE)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await reader.read(receiving(piece(b"x", more=False)), {})
    arrived.set()
    assert [len(body) for body in await asyncio.gather(*readings)] == [1000] * LARGEST_AT_ONCE
    assert await reader.read(receiving(piece(b"x", more=False)), {}) == b"x"
