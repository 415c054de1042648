from starlette.types import Receive

from service.deadlines import Deadline, DeadlineExpired
from service.errors import BadRequest, BodyTimeout, BodyTooLarge, Overloaded, UnsupportedMediaType
from service.http.client_watch import ClientGone
from service.http.request_headers import RequestHeaders, shown
from service.settings import Settings

LARGEST_AT_ONCE = 8


def check_content(headers: RequestHeaders) -> None:
    """Requires uncompressed JSON. A web page can post forms to other origins, but JSON only after a preflight
    request."""
    content_type = headers.get(b"content-type", b"")
    if content_type != b"application/json" and not _is_json(content_type):
        found = f"'{shown(content_type)}'" if content_type else "no Content-Type"
        raise UnsupportedMediaType(f"Expected the header 'Content-Type: application/json', found {found}.")
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding.strip().lower() != b"identity":
        raise UnsupportedMediaType(
            f"Expected a body that is not compressed, found 'Content-Encoding: {shown(encoding)}'."
        )


def check_origin(headers: RequestHeaders) -> None:
    """Refuses a request without a body that a web page of another origin could send without a preflight request."""
    origin = headers.get(b"origin")
    if origin is None or _is_json(headers.get(b"content-type", b"")):
        return
    if origin.partition(b"://")[2] != headers.get(b"host"):
        raise UnsupportedMediaType(
            f"A web page of {shown(origin)} has to send the header 'Content-Type: application/json'."
        )


def _is_json(content_type: bytes) -> bool:
    media_type = content_type.partition(b";")[0].strip().lower()
    return media_type == b"application/json" or media_type.endswith(b"+json")


class BodyReader:
    """Bounds all bodies that arrive together by `LARGEST_AT_ONCE` times `max_body_bytes`."""

    def __init__(self, settings: Settings) -> None:
        self._max_bytes = settings.max_body_bytes
        self._arriving_bytes = 0
        self._deadline = Deadline(settings.body_timeout_seconds)

    async def read(self, receive: Receive, headers: RequestHeaders) -> bytes:
        """Raises `BodyTooLarge`, `BodyTimeout`, `Overloaded` or `ClientGone`."""
        self._check_declared_length(headers)
        body = bytearray()  # not a list of chunks: each may be one byte
        try:
            await self._deadline.run(self._fill(body, receive))
        except DeadlineExpired:
            raise BodyTimeout(
                f"The request body did not end within {self._deadline.seconds:g} seconds; {len(body)} bytes came."
            ) from None
        finally:
            self._arriving_bytes -= len(body)
        return bytes(body)

    async def _fill(self, body: bytearray, receive: Receive) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            body += piece
            self._arriving_bytes += len(piece)
            if len(body) > self._max_bytes:
                raise self._too_large(f"more than {self._max_bytes}")
            if self._arriving_bytes > LARGEST_AT_ONCE * self._max_bytes:
                raise Overloaded("Too many large requests arrive at the same time. Try again.", retry_after=1.0)
            more = message.get("more_body", False)

    def _check_declared_length(self, headers: RequestHeaders) -> None:
        declared = headers.get(b"content-length")
        if declared is None:
            return
        if not declared.isdigit():
            raise BadRequest("Expected a number of bytes in the header Content-Length.")
        if len(declared) > 18 or int(declared) > self._max_bytes:
            raise self._too_large(shown(declared[:20]))

    def _too_large(self, found: str) -> BodyTooLarge:
        return BodyTooLarge(f"The request body may have {self._max_bytes} bytes at most, found {found}.")
