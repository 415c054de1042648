"""HTTP/1.1. Protocol errors have the shape of all other errors."""

import re
from collections.abc import Callable
from contextlib import suppress
from itertools import chain

import h11
from h11._headers import Headers
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol

from service.dialects.openai_chat import OpenAIChat
from service.errors import SHOWN_CHARS, BadRequest

# HTTP allows no control characters but the tab (RFC 9110 section 5.5), and we send none.
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class InvalidHttp(BadRequest):
    code = "invalid_http"


class RequestReader(h11.Connection):
    """Reads nothing after a request that it refused. `refusal` is the reason."""

    refusal: h11.RemoteProtocolError | None = None

    def __init__(self, config: Config) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=config.h11_max_incomplete_size)
        self._http2 = "h2" in config.alpn_protocols

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Raises h11.RemoteProtocolError."""
        if self.refusal is not None:
            raise self.refusal
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                _refuse_two_lengths(event)
                if not self._http2 and event.http_version == b"2.0":
                    message = "HTTP/2 is off; ask by HTTP/1.1, or set http2"
                    raise h11.RemoteProtocolError(message, error_status_hint=505)
        except h11.RemoteProtocolError as error:
            self.refusal = error
            raise
        return event

    def has_partial_head(self) -> bool:
        return self.their_state is h11.IDLE and bool(self.trailing_data[0])


class Http1(H11Protocol):
    def __init__(self, wrapper: ProtocolWrapper, on_partial_head: Callable[[], None]) -> None:
        super().__init__(
            wrapper.app,
            wrapper.config,
            wrapper.context,
            wrapper.task_group,
            wrapper.state,
            wrapper.ssl,
            wrapper.client,
            wrapper.server,
            wrapper.send,
        )
        self._requests = RequestReader(self.config)
        self._on_partial_head = on_partial_head
        self._is_late = False
        self.connection = self._requests

    async def handle(self, event: Event) -> None:
        await super().handle(event)
        if isinstance(event, RawData) and self._requests.has_partial_head():
            self._on_partial_head()

    async def stream_send(self, event: StreamEvent) -> None:
        if not isinstance(event, Response):
            await super().stream_send(event)
            return
        headers = (*event.headers, *self.config.response_headers("h11"))
        if _CONTROL.search(b"".join(chain.from_iterable(headers))):
            raise h11.LocalProtocolError("a header contains a control character")
        # h11 takes its own `Headers` as they are. It would look at each name and value twice otherwise.
        checked = Headers([(name, name, value) for name, value in headers])
        await self._send_h11_event(h11.Response(status_code=event.status_code, headers=checked))

    async def refuse_late_head(self) -> None:
        """Does nothing if the head is complete by now."""
        if self._requests.has_partial_head():
            self._is_late = True
            await self._send_error_response(408)
            await self.send(Closed())

    async def _check_protocol(self, event: h11.Request) -> None:
        if "h2" in self.config.alpn_protocols:
            await super()._check_protocol(event)

    async def _send_error_response(self, status_code: int) -> None:
        body = OpenAIChat().encode_error(InvalidHttp(self._what_was_wrong(status_code)), request_id="")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *self.config.response_headers("h11"),
        ]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        with suppress(h11.LocalProtocolError):  # the answer to HEAD has no body
            await self._send_h11_event(h11.Data(data=body))
            await self._send_h11_event(h11.EndOfMessage())

    def _what_was_wrong(self, status_code: int) -> str:
        if self._is_late:
            return "The end of the request's headers did not come in time. Send the whole head at once."
        if status_code == 431:
            limit = self.config.h11_max_incomplete_size
            return (
                f"The request line and the headers have more than {limit} bytes. Send fewer headers, or shorter ones."
            )
        return f"This is no valid HTTP request: {self._requests.refusal}"[:SHOWN_CHARS]


def _refuse_two_lengths(request: h11.Request) -> None:
    """RFC 9112 section 6.1."""
    names = {name.lower() for name, _ in request.headers.raw_items()}  # plain iteration takes three times as long
    if {b"content-length", b"transfer-encoding"} <= names:
        raise h11.RemoteProtocolError("it has both a Content-Length and a Transfer-Encoding; send one of them")
