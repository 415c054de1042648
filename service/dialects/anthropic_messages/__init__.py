"""Anthropic's messages: `POST /v1/messages` and `POST /v1/messages/count_tokens`.

`request.py` decodes a body, with `messages.py`, `blocks.py` and `tools.py` for its large fields. `answer.py` encodes a
finished answer, a count and an error; `stream.py` encodes a stream.
"""

from functools import partial

from service.dialects.anthropic_messages.answer import encode_count, encode_error, encode_message, error_status
from service.dialects.anthropic_messages.request import read_count_request, read_request
from service.dialects.anthropic_messages.stream import MessageStream
from service.dialects.anthropic_messages.tools import read_tools
from service.dialects.base import ClientRequest, Reply, StreamEncoder
from service.dialects.tool_definitions import ToolReader
from service.errors import ServiceError
from service.generation import Completion, SamplingParams

__all__ = ["AnthropicMessages"]


class AnthropicMessages:
    """Requests with the same tools share them, so schemas must never be changed in place. `searches`: this server can
    search the web."""

    name = "anthropic_messages"
    request_id_header = "request-id"

    def __init__(self, *, searches: bool = False) -> None:
        self._read_tools = ToolReader(partial(read_tools, searches=searches))

    def decode(self, body: bytes, defaults: SamplingParams) -> ClientRequest:
        return read_request(body, defaults, self._read_tools)

    def decode_count(self, body: bytes, defaults: SamplingParams) -> ClientRequest:
        """Decodes the body of `count_tokens`, which has no `max_tokens`."""
        return read_count_request(body, defaults, self._read_tools)

    def encode(self, completion: Completion, reply: Reply) -> bytes:
        return encode_message(completion, reply)

    def encode_count(self, tokens: int) -> bytes:
        return encode_count(tokens)

    def encode_stream(self, reply: Reply) -> StreamEncoder:
        return MessageStream(reply)

    def encode_error(self, error: ServiceError, request_id: str) -> bytes:
        return encode_error(error, request_id)

    def error_status(self, error: ServiceError) -> int:
        return error_status(error)
