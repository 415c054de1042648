"""A dialect does no I/O and knows no other dialect."""

from typing import Protocol

import msgspec

from service.errors import ServiceError
from service.events import Event
from service.generation import Completion, GenerationRequest, SamplingParams


class WebSearchTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool of the request that this server runs. A domain includes its subdomains, and may have a path."""

    name: str
    max_uses: int | None = None
    allowed_domains: tuple[str, ...] = ()
    blocked_domains: tuple[str, ...] = ()


class ClientRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`dialect_state` comes back in the `Reply`. `unknown_fields` are paths without indexes (`messages[].mood`),
    `unread_media` paths of parts that text replaces. `absent_tools` are left out, because nobody here can run them."""

    request: GenerationRequest
    model: str | None = None
    stream: bool = False
    include_usage: bool = False
    dialect_state: object = ""
    unknown_fields: tuple[str, ...] = ()
    unread_media: tuple[str, ...] = ()
    absent_tools: tuple[str, ...] = ()
    web_search: WebSearchTool | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """`id` has no prefix of the dialect; `created` is in Unix seconds; `fingerprint` is the served model's."""

    id: str
    model: str
    created: int
    include_usage: bool = False
    prompt_tokens: int = 0
    fingerprint: str = ""
    dialect_state: object = ""


class StreamEncoder(Protocol):
    """Encodes one response, without I/O: every method returns whole frames to send now, perhaps none."""

    def start(self) -> bytes: ...
    def feed(self, event: Event) -> bytes: ...

    def keep_alive(self) -> bytes: ...
    def fail(self, error: ServiceError) -> bytes:
        """Returns the frames for an error in an open stream, and the protocol's end."""
        ...


class Dialect(Protocol):
    """`request_id_header` (lower case) is the header in which the protocol's clients look for the request's id."""

    name: str
    request_id_header: str

    def decode(self, body: bytes, defaults: SamplingParams) -> ClientRequest:
        """`defaults` fill in the sampling that the client left out. Raises `BadRequest` that names the field."""
        ...

    def encode(self, completion: Completion, reply: Reply) -> bytes: ...
    def encode_stream(self, reply: Reply) -> StreamEncoder: ...
    def encode_error(self, error: ServiceError, request_id: str) -> bytes: ...
    def error_status(self, error: ServiceError) -> int:
        """Returns the HTTP status, which may be the dialect's own (Anthropic's 529 for `Overloaded`)."""
        ...
