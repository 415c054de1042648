"""Reads a request's body within a size and a deadline. ASGI servers bound neither."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Receive

from service.errors import BadRequest, BodyTimeout, BodyTooLarge, UnsupportedMediaType
from service.settings import Settings


class ClientGone(Exception):
    """The client closed the connection: there is nobody to answer."""


def check_content(headers: Headers) -> None:
    """Refuses a body that does not say that it is JSON, and one that is compressed. The first is also what keeps a web
    page's plain form post, which a browser sends across origins without asking, from reaching the model."""
    content_type = headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        found = f"'{content_type}'" if content_type else "no Content-Type"
        raise UnsupportedMediaType(f"Expected the header 'Content-Type: application/json', found {found}.")
    encoding = headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise UnsupportedMediaType(f"Expected a body that is not compressed, found 'Content-Encoding: {encoding}'.")


async def read_body(receive: Receive, headers: Headers, settings: Settings) -> bytes:
    """The whole body. Raises `BodyTooLarge`, `BodyTimeout`, or `ClientGone`."""
    _check_declared_length(headers, settings.max_body_bytes)
    body = bytearray()  # and not a list of chunks: each may be one byte
    try:
        async with asyncio.timeout(settings.body_timeout_seconds):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > settings.max_body_bytes:
                    raise _too_large(f"more than {settings.max_body_bytes}", settings.max_body_bytes)
                more = message.get("more_body", False)
    except TimeoutError:
        raise BodyTimeout(
            f"The request body did not end within {settings.body_timeout_seconds:g} seconds; {len(body)} bytes came."
        ) from None
    return bytes(body)


def _check_declared_length(headers: Headers, limit: int) -> None:
    declared = headers.get("content-length")
    if declared is None:
        return
    if not declared.isascii() or not declared.isdigit():
        raise BadRequest("Expected a number of bytes in the header Content-Length.")
    if len(declared) > 18 or int(declared) > limit:
        raise _too_large(declared[:20], limit)


def _too_large(found: str, limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body may have {limit} bytes at most, found {found}.")
