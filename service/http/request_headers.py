"""A request's headers, read once: an endpoint looks up several, and each look-up in the list would go through all."""

from collections.abc import Mapping

from starlette.types import Scope

from service.errors import SHOWN_CHARS

RequestHeaders = Mapping[bytes, bytes]
"""Names in lower case, as ASGI gives them."""


def read_headers(scope: Scope) -> RequestHeaders:
    """The lines of one name are one list (RFC 9110 section 5.3)."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def shown(value: bytes) -> str:
    """For an error message."""
    return value[:SHOWN_CHARS].decode("latin-1")
