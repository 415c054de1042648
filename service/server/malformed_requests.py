"""Answers what is no proper HTTP/1.1 in the shape of every other error, and ends its connection.

Hypercorn (0.18) answers what h11 cannot read with an empty body, and h11 (0.16) reads one thing that it should not: a
request with two lengths. A proxy may go by the other one, and then takes a part of its body for the next request.
"""

from contextlib import suppress

import h11
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol

from service.dialects.openai_chat import OpenAIChat
from service.errors import BadRequest

_SHOWN_CHARS = 200

_DIALECT = OpenAIChat()  # no path is known that would say another


class InvalidHttp(BadRequest):
    code = "invalid_http"


class RequestReader(h11.Connection):
    """Reads nothing more behind a request that it refused. `refusal` says what was wrong with that."""

    refusal: h11.RemoteProtocolError | None = None

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Raises h11.RemoteProtocolError."""
        if self.refusal is not None:
            raise self.refusal
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                _refuse_two_lengths(event)
        except h11.RemoteProtocolError as error:
            self.refusal = error
            raise
        return event


class Http1(H11Protocol):
    """Hypercorn's HTTP/1.1, which says what was wrong."""

    def __init__(self, its: ProtocolWrapper) -> None:
        super().__init__(
            its.app, its.config, its.context, its.task_group, its.state, its.ssl, its.client, its.server, its.send
        )
        self._requests = RequestReader(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)
        self.connection = self._requests

    async def _send_error_response(self, status_code: int) -> None:
        body = _DIALECT.encode_error(InvalidHttp(self._what_was_wrong(status_code)), request_id="")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *self.config.response_headers("h11"),
        ]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        with suppress(h11.LocalProtocolError):  # HEAD is answered without a body
            await self._send_h11_event(h11.Data(data=body))
            await self._send_h11_event(h11.EndOfMessage())

    def _what_was_wrong(self, status_code: int) -> str:
        if status_code == 431:
            limit = self.config.h11_max_incomplete_size
            return (
                f"The request line and the headers have more than {limit} bytes. Send fewer headers, or shorter ones."
            )
        return f"This is no valid HTTP request: {self._requests.refusal}"[:_SHOWN_CHARS]


def _refuse_two_lengths(request: h11.Request) -> None:
    """RFC 9112 section 6.1: a server may reject such a request, and otherwise has to end the connection after it."""
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}:
        raise h11.RemoteProtocolError("it has both a Content-Length and a Transfer-Encoding; send one of them")
