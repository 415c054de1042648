"""What a dialect is: bytes to a `ClientRequest`, and answers back to bytes. No I/O, no clock, no other dialect."""

from typing import Protocol

import msgspec

from service.errors import ServiceError
from service.events import Event
from service.generation import Completion, GenerationRequest, SamplingParams


class ClientRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded request: the question, and how its answer is to be delivered. `model` is None when none was named.
    `style` is the dialect's own note on how to word the answer: it goes unread into the `Reply`."""

    request: GenerationRequest
    model: str | None = None
    stream: bool = False
    include_usage: bool = False
    style: str = ""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a response says of itself. `id` is without the dialect's prefix; `created` is in Unix seconds;
    `fingerprint` is the served model's."""

    id: str
    model: str
    created: int
    include_usage: bool = False
    prompt_tokens: int = 0
    fingerprint: str = ""
    style: str = ""


class StreamEncoder(Protocol):
    """Encodes one response, sans I/O: every method returns the bytes to send now, whole frames, perhaps none."""

    def start(self) -> bytes: ...
    def feed(self, event: Event) -> bytes:
        """The `Done` event gives the closing frames."""
        ...

    def keep_alive(self) -> bytes: ...
    def fail(self, error: ServiceError) -> bytes:
        """An error after the stream has opened, as the protocol says it, and the protocol's end."""
        ...


class Dialect(Protocol):
    """`request_id_header` is where the protocol's clients look for the id of a request, in lower case."""

    name: str
    request_id_header: str

    def decode(self, body: bytes, defaults: SamplingParams) -> ClientRequest:
        """Raises `BadRequest` that names the field; `defaults` fill in the sampling that the client left out."""
        ...

    def encode(self, completion: Completion, reply: Reply) -> bytes: ...
    def encode_stream(self, reply: Reply) -> StreamEncoder: ...
    def encode_error(self, error: ServiceError, request_id: str) -> bytes: ...
    def error_status(self, error: ServiceError) -> int:
        """The HTTP status; a dialect may have its own (Anthropic's 529 for `Overloaded`)."""
        ...
